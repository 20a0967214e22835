"""Multi-layer perceptron over flattened points."""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import FiniteFloat, field_validator
from torch import Tensor, nn

from naign_ext.models.layers import (
    ACTIVATIONS,
    Activation,
    Normalisation,
    activation_option,
    check_widths,
    normalisation_option,
)
from naign_ext.models.registry import MODELS, Network, NetworkOptions
from naign_ext.options import option

_NORMALISATIONS = {"none": None, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}


class MlpOptions(NetworkOptions):
    """Options of :class:`MLP`. Batch normalisation needs at least 2 points a batch while training."""

    architecture: Literal["mlp"] = option("mlp", "for vectors and small images.", "Model")
    widths: tuple[int, ...] = option(
        (128, 128, 128), "Hidden widths of an mlp; a small one in the middle is a bottleneck.", "Model"
    )
    activation: Activation = activation_option("relu")
    normalisation: Normalisation = normalisation_option("none")
    input_gain: FiniteFloat = option(
        1.0,
        "Factor on an mlp's input; above 1 the first layer bends on a finer scale than the data's.",
        "Model",
        gt=0,
    )

    @field_validator("widths")
    @classmethod
    def _in_bounds(cls, widths: tuple[int, ...]) -> tuple[int, ...]:
        return check_widths(widths)


@MODELS.register("mlp")
class MLP(Network):
    """f(x) = reshape(W_L h_{L-1} + b_L), h_l = act(norm(W_l h_{l-1} + b_l)), h_0 = input_gain * flatten(x).

    Maps (B, *sample_shape) to the same shape. No skip connection joins input and output: an identity must be
    learnt, which is what keeps f from being one where there are no data. A narrow entry of ``widths`` is the
    bottleneck. Weights are drawn from torch's global generator (seed it with ``torch.manual_seed``).

    sample_shape: (D,) or (C, H, W).
    """

    Options: ClassVar[type[MlpOptions]] = MlpOptions

    def __init__(self, sample_shape: Sequence[int], options: MlpOptions) -> None:
        super().__init__(sample_shape, options)
        self.input_gain = options.input_gain
        norm, activation = _NORMALISATIONS[options.normalisation], ACTIVATIONS[options.activation]
        size, hidden = math.prod(self.sample_shape), list(options.widths)
        layers: list[nn.Module] = []
        for before, width in zip([size, *hidden], hidden, strict=False):
            layers.append(nn.Linear(before, width))
            if norm is not None:
                layers.append(norm(width))
            layers.append(activation())
        layers.append(nn.Linear(hidden[-1], size))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, *sample_shape) to (B, *sample_shape)."""
        if tuple(x.shape[1:]) != self.sample_shape:
            raise ValueError(
                f"x: expected shape (B, {', '.join(map(str, self.sample_shape))}), got {tuple(x.shape)}"
            )
        flat = x.flatten(1) * self.input_gain
        output: Tensor = self.layers(flat)
        return output.reshape(x.shape)
