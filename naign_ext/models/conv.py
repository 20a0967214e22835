"""Convolutional encoder-decoder with a bottleneck, for images of any height and width."""

import itertools
import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from naign_ext.models.layers import (
    ACTIVATIONS,
    LARGEST_WIDTH,
    Activation,
    Normalisation,
    activation_option,
    convolution,
    normalisation_option,
)
from naign_ext.models.registry import MODELS, Network, NetworkOptions
from naign_ext.options import option

_MAX_WIDENING = 8
_COARSEST_SIDE = 4


def automatic_depth(height: int, width: int) -> int:
    """Halvings until the shorter side is at most 4 pixels, at least 1: 8 -> 1, 28 -> 3, 64 -> 4, 256 -> 6."""
    return max(1, math.ceil(math.log2(min(height, width) / _COARSEST_SIDE)))


class ConvOptions(NetworkOptions):
    """Options of :class:`ConvAutoencoder`."""

    architecture: Literal["conv"] = option("conv", "encoder-decoder for images of any size.", "Model")
    base_channels: int = option(
        32,
        "Channels of the finest level; they double at each level, up to 8 times as many.",
        "Model",
        ge=1,
        le=LARGEST_WIDTH // _MAX_WIDENING,
    )
    depth: int | None = option(
        None,
        "Levels that halve the image; default: until the shorter side is at most 4 pixels.",
        "Model",
        ge=1,
        le=64,
    )
    latent_dim: int = option(128, "Width of the bottleneck.", "Model", ge=1, le=LARGEST_WIDTH)
    activation: Activation = activation_option("silu")
    normalisation: Normalisation = normalisation_option("batch")


@MODELS.register("conv")
class ConvAutoencoder(Network):
    """Encoder (stride-2 convolutions), a vector of ``latent_dim`` numbers, decoder (upsampling, convolving).

    Maps (B, C, H, W) to the same shape, C 1 or 3, H and W at least 2 and not necessarily even: level l has
    ceil(H / 2^l) x ceil(W / 2^l) pixels, and the decoder passes through the same sizes backwards. All that
    reaches the output goes through the bottleneck; there are no skip connections. Weights are drawn from
    torch's global generator.

    sample_shape: (C, H, W).
    """

    Options: ClassVar[type[ConvOptions]] = ConvOptions
    # The convolutions of tensor cores take it as it is.
    channels_last: ClassVar[tuple[str, ...]] = ("cuda",)

    def __init__(self, sample_shape: Sequence[int], options: ConvOptions) -> None:
        super().__init__(sample_shape, options)
        if (
            len(self.sample_shape) != 3
            or self.sample_shape[0] not in (1, 3)
            or min(self.sample_shape[1:]) < 2
        ):
            raise ValueError(
                "sample_shape: a convolutional model expects (C, H, W) with C 1 or 3 and H, W of at least 2; "
                f"got {self.sample_shape}. Use architecture 'mlp' for vectors"
            )
        channels, height, width = self.sample_shape
        depth = automatic_depth(height, width) if options.depth is None else options.depth
        if 2 ** (depth - 1) >= min(height, width):
            raise ValueError(
                f"depth: {depth} halvings leave nothing of {height}x{width} pixels to halve; "
                f"expected at most {math.ceil(math.log2(min(height, width)))}"
            )
        sizes = [(math.ceil(height / 2**level), math.ceil(width / 2**level)) for level in range(depth + 1)]
        widths = [options.base_channels * min(2**level, _MAX_WIDENING) for level in range(depth + 1)]
        self.coarse_shape = (widths[-1], *sizes[-1])
        # The decoder's targets, finest last; recorded because ceil(H / 2) cannot be inverted for odd H.
        self.decoder_sizes = sizes[-2::-1]
        self._build(channels, widths, options.latent_dim, options.activation, options.normalisation)

    def _build(
        self, channels: int, widths: list[int], latent_dim: int, activation: str, normalisation: str
    ) -> None:
        coarse = math.prod(self.coarse_shape)
        self.stem = convolution(channels, widths[0], activation, normalisation)
        self.down = nn.ModuleList(
            nn.Sequential(
                convolution(before, after, activation, normalisation, stride=2),
                convolution(after, after, activation, normalisation),
            )
            for before, after in itertools.pairwise(widths)
        )
        self.to_latent = nn.Linear(coarse, latent_dim)
        self.from_latent = nn.Sequential(nn.Linear(latent_dim, coarse), ACTIVATIONS[activation]())
        self.up = nn.ModuleList(
            nn.Sequential(
                convolution(before, after, activation, normalisation),
                convolution(after, after, activation, normalisation),
            )
            for before, after in itertools.pairwise(widths[::-1])
        )
        self.head = nn.Conv2d(widths[0], channels, 3, padding=1)

    def encode(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the bottleneck (B, latent_dim)."""
        if tuple(x.shape[1:]) != self.sample_shape:
            raise ValueError(
                f"x: expected shape (B, {', '.join(map(str, self.sample_shape))}), got {tuple(x.shape)}"
            )
        h = self.stem(x)
        for level in self.down:
            h = level(h)
        latent: Tensor = self.to_latent(h.flatten(1))
        return latent

    def decode(self, latent: Tensor) -> Tensor:
        """Bottleneck (B, latent_dim) to (B, C, H, W)."""
        h = self.from_latent(latent).reshape(-1, *self.coarse_shape)
        for level, size in zip(self.up, self.decoder_sizes, strict=True):
            h = level(F.interpolate(h, size=size, mode="nearest"))
        output: Tensor = self.head(h)
        return output

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        return self.decode(self.encode(x))
