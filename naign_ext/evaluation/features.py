"""Feature spaces in which sets of images are compared: pixels, principal components, or a network's features."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naign_ext.data.dataset import Dataset
from naign_ext.evaluation.classifier import Classifier
from naign_ext.evaluation.rows import as_rows
from naign_ext.features import FeaturesUnavailableError, WeightsSource, chosen_weights
from naign_ext.features.dinov2 import SIDE as DINOV2_SIDE
from naign_ext.features.dinov2 import load_dinov2
from naign_ext.features.images import IMAGENET_MEAN, IMAGENET_STD
from naign_ext.features.inception import SIDE as INCEPTION_SIDE
from naign_ext.features.inception import load_inception

SpaceName = Literal["pixels", "pca", "classifier", "inception", "dinov2"]
SPACES: tuple[SpaceName, ...] = get_args(SpaceName)
PCA_COMPONENTS = 64
_BATCH = 64


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
    source = WeightsSource(
        chosen_weights(weights), "--feature-weights", "pixels, pca and classifier need none"
    )
    network, side = (
        (load_inception(source), INCEPTION_SIDE)
        if name == "inception"
        else (load_dinov2(source), DINOV2_SIDE)
    )
    return FeatureSpace(name, _network(network, side, torch.device(device or "cpu")))


def _pca(train: Tensor) -> Callable[[Tensor], Tensor]:
    rows = as_rows("train", train, at_least=2).double()
    centre = rows.mean(dim=0)
    axes = torch.linalg.svd(rows - centre, full_matrices=False).Vh[:PCA_COMPONENTS].T
    return lambda x: ((x.flatten(1).double() - centre.to(x.device)) @ axes.to(x.device)).float()


def _network(network: nn.Module, side: int, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The network on images (N, 1 or 3, H, W) in [-1, 1], resized to side x side and scaled as for ImageNet."""
    network = network.to(device).eval().requires_grad_(False)
    mean, deviation = (torch.tensor(v, device=device)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))

    def features(x: Tensor) -> Tensor:
        parts = []
        for part in torch.split(x, _BATCH):
            images = (part.to(device).float().clamp(-1, 1) + 1) / 2
            images = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
            images = F.interpolate(images, (side, side), mode="bilinear", antialias=True, align_corners=False)
            parts.append(network((images - mean) / deviation).to(x.device).float())
        return torch.cat(parts)

    return features
