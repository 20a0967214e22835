"""DINOv2 (Oquab et al., 2023) from a folder of transformers."""

import contextlib
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import normalize

from naign_ext.features.images import ImageNetInput, check_images
from naign_ext.features.registry import FEATURES, source_of
from naign_ext.features.weights import FeaturesUnavailableError, WeightsSource
from naign_ext.options import in_a_line
from naign_ext.vision import import_torchvision

SIDE = 224


@FEATURES.register("dinov2")
def dinov2(sample_shape: Sequence[int], weights: Path | None) -> nn.Module:
    """:class:`UnitClassToken` of the DINOv2 in a folder, for images of this shape.

    Raises:
        ValueError: the data are no images. FeaturesUnavailableError: the folder or the package transformers is not
            there.
    """
    check_images("dinov2", sample_shape)
    return UnitClassToken(load_dinov2(source_of(weights)).float(), sample_shape)


def load_dinov2(source: WeightsSource) -> nn.Module:
    """The network from (B, 3, 224, 224), scaled as for ImageNet, to its class token (B, K)."""
    path = source.path
    if path is None or not (path / "config.json").is_file():
        raise FeaturesUnavailableError(
            f"features: DINOv2 needs a folder with config.json and model.safetensors (got {path}), as transformers' "
            "Dinov2Model.from_pretrained('facebook/dinov2-small').save_pretrained(FOLDER) writes it; name it with "
            f"{source.option}; {source.otherwise}"
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
        raise FeaturesUnavailableError(f"features: {path} holds no DINOv2: {in_a_line(error)}") from None
    return ClassToken(network)


class ClassToken(nn.Module):
    """A transformer of images without what it says of patches."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, K)."""
        token: Tensor = self.network(images).last_hidden_state[:, 0]
        return token


class UnitClassToken(nn.Module):
    """Images (B, 1 or 3, H, W), resized to 224 x 224, to class tokens of length 1, (B, K).

    The squared distance of two is 2 - 2 cos of their angle.
    """

    def __init__(self, network: nn.Module, sample_shape: Sequence[int]) -> None:
        super().__init__()
        self.input = ImageNetInput(sample_shape, (SIDE, SIDE))
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return normalize(self.network(self.input(x)), dim=1)
