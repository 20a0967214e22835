"""Exact nearest neighbours of data in a pool of samples, the costly step of implicit maximum likelihood."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from naign_ext import _native
from naign_ext.ops import reference

FLOATING = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class Neighbours(NamedTuple):
    """Squared Euclidean distances, ascending, and int64 pool indices, both (N, k) or (B, N, k)."""

    distances: Tensor
    indices: Tensor


def imle_knn(data: Tensor, pool: Tensor, k: int = 1, *, reject_below: float | None = None) -> Neighbours:
    """The k nearest pool rows of every data row, exactly.

    Args:
        data: (N, D) or (B, N, D); float32, float16 or bfloat16 (float64 is computed by the torch reference).
        pool: (M, D) or (B, M, D), same device; its dtype may differ from data's. Any strides.
        k: neighbours per row, 1 <= k <= M.
        reject_below: pairs whose squared distance is below this are inadmissible (RS-IMLE, arXiv 2409.17439).

    Returns:
        Neighbours(distances, indices), each (N, k) or (B, N, k). distances: squared Euclidean, float32 (float64 if
        an input is), ascending. indices: int64; ties go to the lowest index. Distances are compared in float64 as
        :func:`naign_ext.ops.reference.squared_distances` defines them, so the answer depends neither on threads nor
        on the instruction set. A pool row with NaN or Inf never matches; a data row with NaN or Inf gets index -1
        and distance NaN; where fewer than k rows are admissible, index -1 and distance +inf.

    Differentiable in distances with respect to data and pool. Memory beyond the inputs: O(N k + block).

    Raises:
        TypeError: an input is not a floating tensor, or k is not an int.
        ValueError: shapes, devices or k do not fit; the message names the argument.
    """
    if not _looks_right(data, pool, k, reject_below):
        check_arguments(data, pool, k, reject_below)
    if not has_kernel(data, pool, k):
        return Neighbours(*torch.ops.naign.imle_knn_reference(data, pool, k, reject_below))
    differentiable = torch.is_grad_enabled() and (data.requires_grad or pool.requires_grad)
    # Autograd written in Python takes longer than a small search, also where there is nothing to differentiate.
    operator = torch.ops.naign.imle_knn if differentiable else torch.ops.naign.imle_knn_no_grad
    return Neighbours(*operator(data, pool, k, reject_below))


def _looks_right(data: Any, pool: Any, k: Any, reject_below: Any) -> bool:
    """True for the usual arguments, quickly; False says nothing."""
    if not (
        isinstance(data, Tensor) and isinstance(pool, Tensor) and type(k) is int and reject_below is None
    ):
        return False
    x, y = data.shape, pool.shape
    two = len(x) == len(y) == 2 and x[1] == y[1] > 0
    return (
        two
        and 1 <= k <= y[0]
        and data.dtype in FLOATING
        and pool.dtype in FLOATING
        and data.device == pool.device
    )


def has_kernel(data: Tensor, pool: Tensor, k: int) -> bool:
    """True where the extension searches for k neighbours of these tensors."""
    return _native.has_kernel(data, pool) and (data.device.type != "cuda" or k <= _native.LARGEST_K_ON_CUDA)


def check_tensor(name: str, value: Any, dims: tuple[int, ...]) -> None:
    """Raise unless value is a floating tensor with one of these numbers of dimensions and D >= 1."""
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name}: expected a torch.Tensor, got {type(value).__name__}; use torch.as_tensor({name})"
        )
    if value.dtype not in FLOATING:
        expected = ", ".join(str(d).removeprefix("torch.") for d in FLOATING)
        got = str(value.dtype).removeprefix("torch.")
        raise TypeError(f"{name}: expected one of the dtypes {expected}, got {got}; use {name}.float()")
    if value.dim() not in dims:
        raise ValueError(
            f"{name}: expected {' or '.join(map(str, dims))} dimensions (rows, D), got shape {tuple(value.shape)};"
            f" use {name}.flatten(1)"
        )
    if value.shape[-1] == 0:
        raise ValueError(f"{name}: expected D >= 1 numbers a row, got shape {tuple(value.shape)}")


def check_k(k: Any) -> None:
    """Raise unless k is an int of at least 1."""
    if not isinstance(k, (int, torch.SymInt)) or isinstance(k, bool):
        raise TypeError(f"k: expected an int, got {type(k).__name__}; use int(k)")
    if k < 1:
        raise ValueError(f"k: expected at least 1, got {k}")


def check_reject_below(value: Any) -> None:
    """Raise unless value is None or a number that is not NaN."""
    if value is None:
        return
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"reject_below: expected a float or None, got {type(value).__name__}")
    if math.isnan(value):
        raise ValueError("reject_below: expected a squared distance, got nan; use None to reject nothing")


def check_pool_matches(data: Tensor, pool: Tensor) -> None:
    """Raise unless pool is a floating tensor of data's number of dimensions, D, batch size and device."""
    check_tensor("pool", pool, (data.dim(),))
    if pool.shape[-1] != data.shape[-1]:
        raise ValueError(f"pool: expected D = {data.shape[-1]} as data has, got D = {pool.shape[-1]}")
    if data.dim() == 3 and pool.shape[0] != data.shape[0]:
        raise ValueError(f"pool: expected B = {data.shape[0]} batches as data has, got B = {pool.shape[0]}")
    if pool.device != data.device:
        raise ValueError(
            f"pool: expected device {data.device} as data has, got {pool.device}; use pool.to(data.device)"
        )


def check_arguments(data: Any, pool: Any, k: Any, reject_below: Any) -> None:
    """Everything :func:`imle_knn` demands of its arguments."""
    check_tensor("data", data, (2, 3))
    check_pool_matches(data, pool)
    check_k(k)
    check_reject_below(reject_below)
    if pool.shape[-2] == 0:
        raise ValueError(f"pool: expected at least one row, got shape {tuple(pool.shape)}")
    if k > pool.shape[-2]:
        raise ValueError(f"k: expected at most the pool's {pool.shape[-2]} rows, got {k}")


@torch.library.custom_op("naign::imle_knn_reference", mutates_args=())
def _reference_operator(
    data: Tensor, pool: Tensor, k: int, reject_below: float | None
) -> tuple[Tensor, Tensor]:
    return reference.imle_knn(data, pool, k, reject_below)


def _fake(data: Tensor, pool: Tensor, k: int, reject_below: float | None) -> tuple[Tensor, Tensor]:
    shape = (*data.shape[:-1], k)
    wide = torch.float64 in (data.dtype, pool.dtype)
    distances = data.new_empty(shape, dtype=torch.float64 if wide else torch.float32)
    return distances, data.new_empty(shape, dtype=torch.int64)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    data, pool, _, _ = inputs
    ctx.save_for_backward(data, pool, output[1])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad_distances: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
    data, pool, indices = ctx.saved_tensors
    needs_data, needs_pool = ctx.needs_input_grad[:2]
    if data.dim() == 3:
        flat_data, flat_pool = data.flatten(0, 1), pool.flatten(0, 1)
        first_row = torch.arange(data.shape[0], device=data.device)[:, None, None] * pool.shape[1]
        rows = torch.where(indices >= 0, indices + first_row, indices).flatten(0, 1)
    else:
        flat_data, flat_pool, rows = data, pool, indices
    gradients = _winner_gradients(
        flat_data, flat_pool, rows, grad_distances.reshape(rows.shape), needs_data, needs_pool
    )
    grad_data, grad_pool = gradients
    return (
        grad_data.view(data.shape).to(data.dtype) if grad_data is not None else None,
        grad_pool.view(pool.shape).to(pool.dtype) if grad_pool is not None else None,
        None,
        None,
    )


def _winner_gradients(
    data: Tensor, pool: Tensor, indices: Tensor, upstream: Tensor, needs_data: bool, needs_pool: bool
) -> tuple[Tensor | None, Tensor | None]:
    """d |x_i - y_j|^2 = 2 (x_i - y_j) (dx_i - dy_j), summed over the winners j of each i.

    Rows without an admissible neighbour get zero, rows with NaN or Inf get NaN.
    """
    grad_data = torch.zeros(data.shape, dtype=upstream.dtype, device=data.device) if needs_data else None
    grad_pool = torch.zeros(pool.shape, dtype=upstream.dtype, device=data.device) if needs_pool else None
    unusable = ~data.isfinite().all(dim=1, keepdim=True)
    for j in range(indices.shape[1]):
        found = indices[:, j : j + 1] >= 0
        winner = indices[:, j].clamp(min=0)
        difference = data.to(upstream.dtype) - pool[winner].to(upstream.dtype)
        contribution = torch.where(found, 2 * upstream[:, j : j + 1] * difference, 0.0)
        if grad_data is not None:
            grad_data = grad_data + contribution
        if grad_pool is not None:
            grad_pool = _add_rows(grad_pool, winner, -contribution)
    if grad_data is not None:
        grad_data = grad_data.masked_fill(unusable, torch.nan)
    return grad_data, grad_pool


def _add_rows(total: Tensor, rows: Tensor, values: Tensor) -> Tensor:
    """total[rows] += values, in a fixed order: index_add is sequential on the CPU, index_put sorts on CUDA."""
    if total.device.type == "cpu":
        return total.index_add(0, rows, values)
    return total.index_put((rows,), values, accumulate=True)


def _register(name: str) -> None:
    torch.library.register_fake(name, _fake)
    torch.library.register_autograd(name, _backward, setup_context=_setup_context)


_register("naign::imle_knn_reference")
if _native.extension is not None:
    _register("naign::imle_knn")
    torch.library.register_fake("naign::imle_knn_no_grad", _fake)
