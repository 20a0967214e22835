"""Batch normalisation over several processes on the CPU, cut where something is added up over the processes.

torch's own kernels for this (batch_norm_gather_stats and the like) are CUDA's alone. With h = (x - mean) r and
r = 1 / sqrt(variance + eps), all dimensions but the second are summed over:

    y = h weight + bias
    dx = weight r (dy - sum(dy) / n - h sum(dy h) / n),   dweight = sum(dy h),   dbias = sum(dy)
"""

from typing import Any

import torch
from torch import Tensor

from naign_ext import _native
from naign_ext.ops import reference


def batch_norm_sums(x: Tensor, centre: Tensor, gradient: Tensor | None = None) -> Tensor:
    """What is added up over the processes: with d = x - centre, and v = gradient, or d without one,

        sum of v,  sum of v d,  elements of a channel

    Args:
        x: float32 (B, C, ...), any strides (float64 is computed by the torch reference).
        centre: (C,), of x's dtype.
        gradient: of x's shape and dtype.

    Returns:
        float64 (2 C + 1,), all of it computed in float64. The same bits for any number of threads and instruction set.
        Not differentiable, as the others here.

    Raises:
        RuntimeError: x has fewer than 2 dimensions, or another argument does not fit it; the message names it.
    """
    sums: Tensor = _operator("sums", x)(_dense(x, x), _dense(gradient, x), centre)
    return sums


def batch_norm_forward(
    x: Tensor,
    sums: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor, Tensor]:
    """x normalised by sums about the running mean; the running statistics follow in place.

    Args:
        x: as for :func:`batch_norm_sums`.
        sums: of ``batch_norm_sums(x, running_mean)``, added up over the processes.
        running_mean, running_var: (C,), of x's dtype; their new share is momentum, as torch.nn.BatchNorm's.
        weight, bias: (C,), of x's dtype; None: ones, zeros.

    Returns:
        y, of x's shape and dtype, laid out as x where that is dense; mean and r, float64 (C,).

    Raises:
        RuntimeError: as :func:`batch_norm_sums`.
    """
    y, mean, scale = _operator("forward", x)(
        _dense(x, x), sums, running_mean, running_var, weight, bias, momentum, eps
    )
    return _back(y, x), mean, scale


def batch_norm_backward(
    x: Tensor,
    gradient: Tensor,
    own_sums: Tensor,
    sums: Tensor,
    mean: Tensor,
    scale: Tensor,
    weight: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias for a gradient of y.

    Args:
        x: as for :func:`batch_norm_sums`.
        gradient: dy, of x's shape and dtype.
        own_sums: of ``batch_norm_sums(x, mean.to(x.dtype), gradient)``.
        sums: the same, added up over the processes.
        mean, scale, weight: of :func:`batch_norm_forward`.

    Returns:
        dx over all processes' rows; dweight and dbias over this process's rows alone, for DistributedDataParallel
        adds up the others'.

    Raises:
        RuntimeError: as :func:`batch_norm_sums`.
    """
    for_x, for_weight, for_bias = _operator("backward", x)(
        _dense(x, x), _dense(gradient, x), own_sums, sums, mean, scale, weight
    )
    return _back(for_x, x), for_weight, for_bias


def _channels_innermost(x: Tensor) -> bool:
    return x.dim() > 2 and not x.is_contiguous() and x.movedim(1, -1).is_contiguous()


def _dense(tensor: Any, x: Tensor) -> Any:
    """A tensor of x's shape, contiguous; as (rows, C) where x's channels lie innermost in memory."""
    if tensor is None:
        return None
    if _channels_innermost(x):
        return tensor.movedim(1, -1).reshape(-1, x.shape[1])
    return tensor.contiguous()


def _back(tensor: Tensor, x: Tensor) -> Tensor:
    """What _dense made, in x's shape."""
    if tensor.shape == x.shape:
        return tensor
    return tensor.view(x.shape[0], *x.shape[2:], x.shape[1]).movedim(-1, 1)


def _operator(name: str, x: Tensor) -> Any:
    native = x.dtype == torch.float32 and x.device.type == "cpu" and _NATIVE
    return getattr(torch.ops.naign, f"batch_norm_{name}{'' if native else '_reference'}")


_NATIVE = "cpu" in _native.DEVICES_WITH_KERNELS

torch.library.custom_op("naign::batch_norm_sums_reference", reference.batch_norm_sums, mutates_args=())
torch.library.custom_op(
    "naign::batch_norm_forward_reference",
    reference.batch_norm_forward,
    mutates_args=("running_mean", "running_var"),
)
torch.library.custom_op(
    "naign::batch_norm_backward_reference", reference.batch_norm_backward, mutates_args=()
)


def _fake_sums(x: Tensor, gradient: Tensor | None, centre: Tensor) -> Tensor:
    del gradient
    return centre.new_empty(2 * x.shape[1] + 1, dtype=torch.float64)


def _fake_forward(x: Tensor, sums: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), sums.new_empty(x.shape[1]), sums.new_empty(x.shape[1])


def _fake_backward(x: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty(x.shape[1]), x.new_empty(x.shape[1])


for _ending in ("_reference", *(("",) if _native.extension is not None else ())):
    torch.library.register_fake(f"naign::batch_norm_sums{_ending}", _fake_sums)
    torch.library.register_fake(f"naign::batch_norm_forward{_ending}", _fake_forward)
    torch.library.register_fake(f"naign::batch_norm_backward{_ending}", _fake_backward)
