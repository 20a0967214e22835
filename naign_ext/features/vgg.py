"""The feature space of LPIPS (Zhang et al., CVPR 2018) with all channels weighted alike."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from naign_ext.features.images import ImageNetInput, check_images
from naign_ext.features.registry import FEATURES, source_of
from naign_ext.features.weights import FeaturesUnavailableError
from naign_ext.options import in_a_line

VGG16_FILE = "vgg16-397923af.pth"
SMALLEST_SIDE = 64
"""Pixels of an image's shorter side at least, smaller ones being enlarged: LPIPS was measured on patches of 64."""
_WIDTHS = (64, 128, 256, 512, 512)
_CONVOLUTIONS = (2, 2, 3, 3, 3)
_TINY = 1e-10


@FEATURES.register("vgg16")
def vgg16(sample_shape: Sequence[int], weights: Path | None) -> nn.Module:
    """:class:`Lpips` with torchvision's weights, for images of this shape.

    Raises:
        ValueError: the data are no images. FeaturesUnavailableError: the weights are not there, or are others.
    """
    check_images("vgg16", sample_shape)
    file = source_of(weights).torchvision_file("VGG16", VGG16_FILE)
    with torch.device("meta"):
        blocks = vgg_blocks()
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
        convolutions = {name: value for name, value in found.items() if name.startswith("features.")}
        _numbered(blocks).load_state_dict(convolutions, assign=True)
    except Exception as error:
        raise FeaturesUnavailableError(
            f"features: {file} is no VGG16 of torchvision: {in_a_line(error)}"
        ) from None
    return Lpips(blocks, sample_shape)


class Lpips(nn.Module):
    """Images (B, 1 or 3, H, W) to the activations that end VGG16's five blocks, (B, K).

    Each is scaled to length 1 over its channels, and divided by the root of its height times width. So the squared
    Euclidean distance of two images is LPIPS's with all weights 1: the sum over the blocks of the mean over places of
    the squared distance of unit vectors. K is about 122 for each pixel: half a million at 64 x 64.
    """

    def __init__(self, blocks: Sequence[nn.Sequential], sample_shape: Sequence[int]) -> None:
        super().__init__()
        self.input = ImageNetInput(sample_shape, _enlarged(*sample_shape[1:]))
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        activations = self.input(x)
        parts = []
        for block in self.blocks:
            activations = block(activations)
            length = (activations.square().sum(dim=1, keepdim=True) + _TINY).sqrt()
            places = activations.shape[-2] * activations.shape[-1]
            parts.append((activations / (length * places**0.5)).flatten(1))
        return torch.cat(parts, dim=1)


class Halve(nn.Module):
    """The maximum of every 2 x 2 pixels; max_pool2d, but its gradient is deterministic on CUDA."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H // 2, W // 2)."""
        height, width = x.shape[-2] // 2, x.shape[-1] // 2
        whole = x[..., : 2 * height, : 2 * width]
        return whole.reshape(*x.shape[:-2], height, 2, width, 2).amax(dim=(-3, -1))


def vgg_blocks(widths: Sequence[int] = _WIDTHS) -> list[nn.Sequential]:
    """VGG16's five blocks of convolutions, with so many channels each; all but the first halve the image first."""
    blocks: list[nn.Sequential] = []
    channels = 3
    for width, count in zip(widths, _CONVOLUTIONS, strict=True):
        layers: list[nn.Module] = [Halve()] if blocks else []
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        blocks.append(nn.Sequential(*layers))
    return blocks


def _numbered(blocks: Sequence[nn.Sequential]) -> nn.Module:
    """The blocks' layers under torchvision's names, features.0 and so on."""
    return nn.ModuleDict({"features": nn.Sequential(*(layer for block in blocks for layer in block))})


def _enlarged(height: int, width: int) -> tuple[int, int]:
    """The size of images as the network sees them."""
    factor = max(1.0, SMALLEST_SIDE / min(height, width))
    return round(height * factor), round(width * factor)
