"""Networks that are only described: which tensors they have, before memory is taken for any of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from naign_ext.models.registry import build_model
from naign_ext.options import shortened


def tensors_of(
    architecture: str, sample_shape: Sequence[int], options: Mapping[str, Any]
) -> dict[str, Tensor] | None:
    """Tensors without memory of the network; None where it cannot be made so. Torch's generator is left as it was.

    Raises:
        ValueError, TypeError: there is no such network, or none of that size.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            return dict(build_model(architecture, sample_shape, **options).state_dict())
    except (RuntimeError, OverflowError) as error:
        # A network that reads its weights while it is made cannot be made without them.
        if "meta" in str(error):
            return None
        raise ValueError(f"no network of that size: {str(error).splitlines()[0]}") from None


def misfit(shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, Tensor], file: str) -> str:
    """In what tensors of these shapes differ from the expected, which the file describes; empty where they do not."""
    if missing := [name for name in expected if name not in shapes]:
        return f"lacks {_some(missing)}"
    if extra := [name for name in shapes if name not in expected]:
        return f"has {_some(extra)}, which the network of {file} has not"
    for name, tensor in expected.items():
        if shapes[name] != tuple(tensor.shape):
            return f"{name}: expected shape {tuple(tensor.shape)} by {file}, got {shapes[name]}"
    return ""


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(shortened(name) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The first tensor that holds NaN or an infinity."""
    return next(
        (name for name, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()), None
    )
