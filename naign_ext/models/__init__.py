"""Networks f: (B, *sample_shape) -> (B, *sample_shape)."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from naign_ext.models.conv import ConvAutoencoder
from naign_ext.models.layers import check_choice
from naign_ext.models.mlp import MLP

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {"mlp": MLP, "conv": ConvAutoencoder}

__all__ = ["ARCHITECTURES", "MLP", "ConvAutoencoder", "build_model", "model_options", "parameter_count"]


def model_options(architecture: str) -> dict[str, Any]:
    """Names and defaults of the options that ``build_model`` takes for an architecture."""
    check_choice("architecture", architecture, ARCHITECTURES)
    parameters = inspect.signature(ARCHITECTURES[architecture]).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def build_model(architecture: str, sample_shape: Sequence[int], **options: Any) -> nn.Module:
    """A network mapping (B, *sample_shape) to the same shape, freshly initialised from torch's generator.

    Args:
        architecture: "mlp" (any shape) or "conv" (C, H, W).
        sample_shape: shape of one point, without the batch.
        options: see :class:`MLP` and :class:`ConvAutoencoder`; ``model_options(architecture)`` lists them.

    Raises:
        ValueError, TypeError: an unknown architecture or option, or a value out of range; the text names it.
    """
    known = model_options(architecture)
    for name in options:
        if name not in known:
            raise ValueError(
                f"{name}: architecture {architecture!r} has no such option; it has {', '.join(known)}"
            )
    return ARCHITECTURES[architecture](sample_shape, **options)


def parameter_count(model: nn.Module, trainable_only: bool = True) -> int:
    """Number of scalars among the model's parameters (buffers such as running means do not count)."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable_only)
