"""Multi-layer perceptron over flattened points."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from naign_ext.models.layers import ACTIVATIONS, check_choice, check_positive, check_sample_shape

_NORMALISATIONS = {"none": None, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}


class MLP(nn.Module):
    """f(x) = reshape(W_L h_{L-1} + b_L), h_l = act(norm(W_l h_{l-1} + b_l)), h_0 = input_gain * flatten(x).

    Maps (B, *sample_shape) to the same shape. No skip connection joins input and output: an identity must be
    learnt, which is what keeps f from being one where there are no data. A narrow entry of ``widths`` is the
    bottleneck. Weights are drawn from torch's global generator (seed it with ``torch.manual_seed``).

    Args:
        sample_shape: (D,) or (C, H, W).
        widths: hidden widths, first to last; at least one.
        activation: "relu" or "silu".
        normalisation: of the hidden layers, before the activation: "none", "batch" or "layer". Batch
            normalisation needs at least 2 points a batch while training.
        input_gain: factor on the input, > 0; above 1 the first layer bends on a finer scale than the data's.
    """

    def __init__(
        self,
        sample_shape: Sequence[int],
        *,
        widths: Sequence[int] = (128, 128, 128),
        activation: str = "relu",
        normalisation: str = "none",
        input_gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.sample_shape = check_sample_shape(sample_shape)
        activation = check_choice("activation", activation, ACTIVATIONS)
        normalisation = check_choice("normalisation", normalisation, _NORMALISATIONS)
        if len(widths) == 0:
            raise ValueError("widths: expected at least one hidden width, got an empty list")
        hidden = [check_positive("widths", width) for width in widths]
        if not (math.isfinite(input_gain) and input_gain > 0):
            raise ValueError(f"input_gain: expected a finite number > 0, got {input_gain}")
        self.input_gain = float(input_gain)
        norm = _NORMALISATIONS[normalisation]
        size = math.prod(self.sample_shape)
        layers: list[nn.Module] = []
        for before, width in zip([size, *hidden], hidden, strict=False):
            layers.append(nn.Linear(before, width))
            if norm is not None:
                layers.append(norm(width))
            layers.append(ACTIVATIONS[activation]())
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
