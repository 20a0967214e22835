"""Feature spaces in which sets of images are compared: pixels, principal components, or a network's features."""

import contextlib
import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naign_ext.data.dataset import Dataset
from naign_ext.data.vision import import_torchvision
from naign_ext.evaluation.classifier import Classifier
from naign_ext.evaluation.rows import as_rows

SpaceName = Literal["pixels", "pca", "classifier", "inception", "dinov2"]
SPACES: tuple[SpaceName, ...] = get_args(SpaceName)
PCA_COMPONENTS = 64
INCEPTION_FILE = "inception_v3_google-0cc3c7bd.pth"
_BATCH = 64
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class FeaturesUnavailableError(ValueError):
    """A network's weights, or the package that runs it, are not on this machine."""


@dataclass(frozen=True)
class FeatureSpace:
    """name, and the map from (N, ...) to float32 features (N, K)."""

    name: SpaceName
    map: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        """Features (N, K) of x (N, ...), without gradient."""
        with torch.no_grad():
            return self.map(x)


def feature_space(
    name: SpaceName,
    dataset: Dataset,
    *,
    classifier: Classifier | None = None,
    weights: str | Path | None = None,
    device: torch.device | str | None = None,
) -> FeatureSpace:
    """A feature space for a data set; nothing is ever downloaded.

    Args:
        name: "pixels", the numbers themselves; "pca", the 64 leading principal components of the training set
            (fewer where there are fewer); "classifier", the data set's own (docs/metrics.md); "inception", the
            2048 pooled features of torchvision's Inception v3; "dinov2", the class token of a DINOv2.
        classifier: for "classifier".
        weights: for "inception" torchvision's weights file, by default looked for in torch's hub folder; for
            "dinov2" a folder as transformers' save_pretrained writes it. Also $NAIGN_FEATURE_WEIGHTS.
        device: where a network computes.

    Raises:
        ValueError: an unknown name, or a network of images for data that are not.
        FeaturesUnavailableError (a ValueError): no labels for a classifier, or weights are not there.
    """
    if name not in SPACES:
        raise ValueError(f"features: expected one of {', '.join(SPACES)}, got {name!r}")
    if name == "pixels":
        return FeatureSpace(name, lambda x: x.flatten(1).float())
    if name == "pca":
        return FeatureSpace(name, _pca(dataset.train))
    if dataset.kind != "image":
        raise ValueError(f"features: {name} is for images, data set {dataset.name!r} has vectors; use pixels")
    if name == "classifier":
        if classifier is None:
            raise FeaturesUnavailableError(
                f"features: data set {dataset.name!r} has no labels to train a classifier on; use pixels or pca"
            )
        return FeatureSpace(name, classifier.features)
    path = weights or os.environ.get("NAIGN_FEATURE_WEIGHTS") or None
    path = None if path is None else Path(path).expanduser()
    build = _inception if name == "inception" else _dinov2
    return FeatureSpace(name, _network(*build(path), torch.device(device or "cpu")))


def _pca(train: Tensor) -> Callable[[Tensor], Tensor]:
    rows = as_rows("train", train, at_least=2).double()
    centre = rows.mean(dim=0)
    axes = torch.linalg.svd(rows - centre, full_matrices=False).Vh[:PCA_COMPONENTS].T
    return lambda x: ((x.flatten(1).double() - centre.to(x.device)) @ axes.to(x.device)).float()


def _network(network: nn.Module, side: int, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The network on images (N, 1 or 3, H, W) in [-1, 1], resized to side x side and scaled as for ImageNet."""
    network = network.to(device).eval().requires_grad_(False)
    mean, deviation = (torch.tensor(v, device=device)[:, None, None] for v in (_IMAGENET_MEAN, _IMAGENET_STD))

    def features(x: Tensor) -> Tensor:
        parts = []
        for part in torch.split(x, _BATCH):
            images = (part.to(device).float().clamp(-1, 1) + 1) / 2
            images = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
            images = F.interpolate(images, (side, side), mode="bilinear", antialias=True, align_corners=False)
            parts.append(network((images - mean) / deviation).to(x.device).float())
        return torch.cat(parts)

    return features


def _inception(path: Path | None) -> tuple[nn.Module, int]:
    file = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE if path is None else path
    if not file.is_file():
        raise FeaturesUnavailableError(
            f"features: Inception's weights are not at {file}; put torchvision's {INCEPTION_FILE} there, or name "
            "the file with --feature-weights; pixels, pca and classifier need no file"
        )
    try:
        models = import_torchvision("models")
        network = models.inception_v3(
            weights=None, aux_logits=True, init_weights=False, transform_input=False
        )
        network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:
        raise FeaturesUnavailableError(
            f"features: {file} is no Inception v3 of torchvision: {error}"
        ) from None
    network.fc = nn.Identity()
    return network, 299


def _dinov2(path: Path | None) -> tuple[nn.Module, int]:
    if path is None or not (path / "config.json").is_file():
        raise FeaturesUnavailableError(
            f"features: DINOv2 needs a folder with config.json and model.safetensors (got {path}), as transformers' "
            "save_pretrained writes it; name it with --feature-weights; pixels, pca and classifier need none"
        )
    try:
        # transformers imports torchvision where it is installed, which beside another torch needs care.
        with contextlib.suppress(ImportError):
            import_torchvision()
        loader: Any = importlib.import_module("transformers").Dinov2Model
    except ImportError as error:
        raise FeaturesUnavailableError(
            f"features: DINOv2 needs the package transformers, which cannot be used: {error}"
        ) from None
    try:
        network = loader.from_pretrained(path, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise FeaturesUnavailableError(f"features: {path} holds no DINOv2: {error}") from None
    return _ClassToken(network), 224


class _ClassToken(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        token: Tensor = self.network(images).last_hidden_state[:, 0]
        return token
