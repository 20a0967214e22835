"""Networks f: (B, *sample_shape) -> (B, *sample_shape)."""

from naign_ext.models.registry import (
    MODELS,
    Network,
    NetworkOptions,
    build_model,
    model_options,
    parameter_count,
)

# Each enters itself in MODELS, in the order in which they are listed.
# isort: off
from naign_ext.models.mlp import MLP, MlpOptions
from naign_ext.models.conv import ConvAutoencoder, ConvOptions
from naign_ext.models.hybrid import Hybrid, HybridOptions
# isort: on

__all__ = [
    "MLP",
    "MODELS",
    "ConvAutoencoder",
    "ConvOptions",
    "Hybrid",
    "HybridOptions",
    "MlpOptions",
    "Network",
    "NetworkOptions",
    "build_model",
    "model_options",
    "parameter_count",
]
