"""What the architectures share: activations and normalisations, as layers and as options."""

from typing import Any, Literal

from torch import nn

from naign_ext.options import option

Activation = Literal["relu", "silu"]
Normalisation = Literal["none", "batch", "layer"]

LARGEST_WIDTH = 1 << 20
"""Numbers of a layer at most, so that no count of weights or bytes overflows."""
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU}


def activation_option(default: Activation) -> Any:
    """The option ``activation``."""
    return option(default, "Activation function.", "Model")


def normalisation_option(default: Normalisation) -> Any:
    """The option ``normalisation``."""
    return option(default, "Normalisation, before each activation.", "Model")
