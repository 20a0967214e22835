"""A global and a local part, for images of any height and width: an MLP sees the whole, convolutions the details."""

import itertools
import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import field_validator
from torch import Tensor, nn

from naign_ext.models.layers import (
    LARGEST_WIDTH,
    MOST_LAYERS,
    Activation,
    Normalisation,
    activation_option,
    check_widths,
    convolution,
    normalisation_option,
)
from naign_ext.models.mlp import MLP, MlpOptions
from naign_ext.models.registry import MODELS, Network, NetworkOptions
from naign_ext.options import option

_GLOBAL_SIDE = 32
"""Pixels of the shorter side up to which the global part sees an image as it is."""
_LOCAL_SIDE = 16
"""Pixels that the local part's planes have at the least along the shorter side, after unshuffling by a power of two."""
_KEPT_AT_FIRST = 0.1
"""Share of the input's details that passes before training."""


class HybridOptions(NetworkOptions):
    """Options of :class:`Hybrid`. Batch normalisation needs at least 2 points a batch while training."""

    architecture: Literal["hybrid"] = option(
        "hybrid", "a global and a local part, for images of any size.", "Model"
    )
    widths: tuple[int, ...] = option(
        (512, 512, 512), "Hidden widths of a hybrid's global part, an mlp.", "Model"
    )
    channels: int = option(32, "Channels of a hybrid's local part.", "Model", ge=1, le=LARGEST_WIDTH)
    layers: int = option(5, "Convolutions of a hybrid's local part.", "Model", ge=2, le=MOST_LAYERS)
    unshuffle: int | None = option(
        None,
        "Pixels a side that the local part sees as one with more channels; default: a power of two that leaves at "
        "least 16 along the shorter side, and at least 2 where there are as many.",
        "Model",
        ge=1,
    )
    activation: Activation = activation_option("silu")
    normalisation: Normalisation = normalisation_option("batch")

    @field_validator("widths")
    @classmethod
    def _positive(cls, widths: tuple[int, ...]) -> tuple[int, ...]:
        return check_widths(widths)


def automatic_unshuffle(height: int, width: int) -> int:
    """The factor for images of this size: 8 -> 2, 28 -> 2, 32 -> 2, 64 -> 4, 128 -> 8; 1 for a side of 1 pixel."""
    side = min(height, width)
    return min(side, max(2, 1 << int(math.log2(max(side / _LOCAL_SIDE, 1)))))


@MODELS.register("hybrid")
class Hybrid(Network):
    """f(x) = g + a (x - g) + r, elementwise, for images x: an estimate of the whole, what is kept of x, a correction.

    g = MLP(x), of images of more than 32 pixels a side averaged down and enlarged again: all that comes of noise comes
    from there. r and a = sigmoid(.), in (0, 1), are made by convolutions that see x and g side by side, and whose
    first features are scaled and shifted by the MLP's last hidden layer: the whole tells them what they look at. So
    details of images that f has not seen pass through a, and no skip connection passes what is no data.

    The convolutions work on x with ``unshuffle`` x ``unshuffle`` pixels as channels of one, their blocks are residual,
    and r begins at 0. Maps (B, C, H, W) to the same shape, C 1 or 3. Weights are drawn from torch's global generator.

    sample_shape: (C, H, W).
    """

    Options: ClassVar[type[HybridOptions]] = HybridOptions
    channels_last: ClassVar[tuple[str, ...]] = ("cpu", "cuda")
    half_precision_on_amx: ClassVar[bool] = True

    def __init__(self, sample_shape: Sequence[int], options: HybridOptions) -> None:
        super().__init__(sample_shape, options)
        if len(self.sample_shape) != 3 or self.sample_shape[0] not in (1, 3):
            raise ValueError(
                f"sample_shape: a hybrid model expects (C, H, W) with C 1 or 3; got {self.sample_shape}. "
                "Use architecture 'mlp' for vectors"
            )
        channels, height, width = self.sample_shape
        self.unshuffle = options.unshuffle or automatic_unshuffle(height, width)
        if self.unshuffle > min(height, width):
            raise ValueError(
                f"unshuffle: expected at most the shorter side of {height}x{width} pixels, got {self.unshuffle}"
            )
        reduction = math.ceil(min(height, width) / _GLOBAL_SIDE)
        reduced = (channels, math.ceil(height / reduction), math.ceil(width / reduction))
        self.whole = MLP(
            reduced,
            MlpOptions(
                widths=options.widths, activation=options.activation, normalisation=options.normalisation
            ),
        )
        self._build(channels * self.unshuffle**2, options)

    def _build(self, planes: int, options: HybridOptions) -> None:
        channels = options.channels
        sizes = [2 * planes, *[channels] * (options.layers - 1)]
        first, *others = (
            convolution(before, after, options.activation, options.normalisation)
            for before, after in itertools.pairwise(sizes)
        )
        self.stem = first
        self.blocks = nn.ModuleList(others)
        self.modulation = nn.Linear(options.widths[-1], 2 * channels)
        self.head = nn.Conv2d(channels, 2 * planes, 3, padding=1)
        for layer in (self.modulation, self.head):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            self.head.bias[planes:] = math.log(_KEPT_AT_FIRST / (1 - _KEPT_AT_FIRST))  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        if tuple(x.shape[1:]) != self.sample_shape:
            raise ValueError(
                f"x: expected shape (B, {', '.join(map(str, self.sample_shape))}), got {tuple(x.shape)}"
            )
        whole, hidden = self._see_whole(x)
        correction, kept = self._see_details(x, whole, hidden)
        return whole + torch.sigmoid(kept) * (x - whole) + correction

    def _see_whole(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """g, of x's shape and dtype, and the MLP's last hidden layer (B, widths[-1])."""
        reduced = x
        if self.whole.sample_shape != self.sample_shape:
            reduced = F.adaptive_avg_pool2d(x, list(self.whole.sample_shape[1:]))  # type: ignore[arg-type]
        hidden: Tensor = self.whole.layers[:-1](reduced.flatten(1))
        whole = self.whole.layers[-1](hidden).view(reduced.shape).to(x.dtype)
        if reduced is not x:
            whole = F.interpolate(whole, size=x.shape[2:], mode="bilinear", align_corners=False)
        return whole, hidden

    def _see_details(self, x: Tensor, whole: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """r and the logarithm of a / (1 - a), (B, C, H, W) each."""
        height, width = x.shape[2:]
        factor = self.unshuffle
        both = F.pad(
            torch.cat([x, whole], dim=1), (0, -width % factor, 0, -height % factor), mode="replicate"
        )
        both = F.pixel_unshuffle(both, factor)
        if self.head.weight.is_contiguous(memory_format=torch.channels_last):
            both = both.contiguous(memory_format=torch.channels_last)
        scale, shift = self.modulation(hidden)[:, :, None, None].chunk(2, dim=1)
        h = self.stem(both) * (1 + scale) + shift
        for block in self.blocks:
            h = h + block(h)
        correction, kept = (
            F.pixel_shuffle(part, factor)[..., :height, :width] for part in self.head(h).chunk(2, dim=1)
        )
        return correction, kept
