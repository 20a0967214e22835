"""What the architectures share: activations and normalisations, as layers and as options."""

from typing import Any, Literal

from torch import nn

from naign_ext.options import option

Activation = Literal["relu", "silu"]
Normalisation = Literal["none", "batch", "layer"]

LARGEST_WIDTH = 1 << 20
"""Numbers of a layer at most, so that no count of weights or bytes overflows."""
MOST_LAYERS = 1000
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU}


def activation_option(default: Activation) -> Any:
    """The option ``activation``."""
    return option(default, "Activation function.", "Model")


def check_widths(widths: tuple[int, ...]) -> tuple[int, ...]:
    """Hidden widths of an MLP, or ValueError where there are none, or one is out of bounds."""
    if not widths or min(widths) < 1:
        raise ValueError("expected at least one width, all >= 1")
    if len(widths) > MOST_LAYERS or max(widths) > LARGEST_WIDTH:
        raise ValueError(f"expected at most {MOST_LAYERS} widths, all <= {LARGEST_WIDTH}")
    return widths


def normalisation_option(default: Normalisation) -> Any:
    """The option ``normalisation``."""
    return option(default, "Normalisation, before each activation.", "Model")


def _normalisation(kind: str, channels: int) -> list[nn.Module]:
    if kind == "batch":
        return [nn.BatchNorm2d(channels)]
    # One group over channels and pixels is layer normalisation of an image, for any height and width.
    return [nn.GroupNorm(1, channels)] if kind == "layer" else []


def convolution(
    before: int, after: int, activation: str, normalisation: str, stride: int = 1
) -> nn.Sequential:
    """3 x 3, (B, before, H, W) to (B, after, ceil(H / stride), ceil(W / stride)); normalisation, activation."""
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=stride, padding=1),
        *_normalisation(normalisation, after),
        ACTIVATIONS[activation](),
    )
