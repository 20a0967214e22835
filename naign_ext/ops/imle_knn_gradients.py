"""Derivatives of the search: of the winners' distances with respect to both inputs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    data, pool, _, _ = inputs
    ctx.save_for_backward(data, pool, output[1])
    ctx.mark_non_differentiable(output[1])


def backward(ctx: Any, grad_distances: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
    data, pool, indices = ctx.saved_tensors
    needs_data, needs_pool, _, _ = ctx.needs_input_grad
    return *_gradients(data, pool, indices, grad_distances, needs_data, needs_pool), None, None


def distance_dtype(data: Tensor, pool: Tensor) -> torch.dtype:
    return torch.float64 if torch.float64 in (data.dtype, pool.dtype) else torch.float32


def _gradients(
    data: Tensor, pool: Tensor, indices: Tensor, upstream: Tensor, needs_data: bool, needs_pool: bool
) -> tuple[Tensor | None, Tensor | None]:
    flat_data, flat_pool, rows = _as_one_batch(data, pool, indices)
    grad_data, grad_pool = _winner_gradients(
        flat_data, flat_pool, rows, upstream.reshape(rows.shape), needs_data, needs_pool
    )
    return (
        grad_data.view(data.shape).to(data.dtype) if grad_data is not None else None,
        grad_pool.view(pool.shape).to(pool.dtype) if grad_pool is not None else None,
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


def _as_one_batch(data: Tensor, pool: Tensor, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Data (rows, D), pool (rows, D) and the pool's rows (rows, k): batches one after the other, -1 as it is."""
    if data.dim() == 2:
        return data, pool, indices
    first_row = torch.arange(data.shape[0], device=data.device)[:, None, None] * pool.shape[1]
    rows = torch.where(indices >= 0, indices + first_row, indices)
    return data.flatten(0, 1), pool.flatten(0, 1), rows.flatten(0, 1)


def _tangents(
    data: Tensor, pool: Tensor, indices: Tensor, data_tangent: Tensor | None, pool_tangent: Tensor | None
) -> Tensor:
    """2 (x_i - y_j) (dx_i - dy_j) of every winner; zero where there is none, NaN for rows with NaN or Inf."""
    dtype = distance_dtype(data, pool)
    x, y, rows = _as_one_batch(data, pool, indices)
    dx = torch.zeros_like(x) if data_tangent is None else data_tangent.reshape(x.shape)
    dy = torch.zeros_like(y) if pool_tangent is None else pool_tangent.reshape(y.shape)
    tangents = []
    for j in range(rows.shape[1]):
        winner = rows[:, j].clamp(min=0)
        difference, change = x.to(dtype) - y[winner].to(dtype), dx.to(dtype) - dy[winner].to(dtype)
        tangents.append(torch.where(rows[:, j] >= 0, 2 * (difference * change).sum(dim=1), 0.0))
    unusable = ~x.isfinite().all(dim=1, keepdim=True)
    return torch.stack(tangents, dim=1).masked_fill(unusable, torch.nan).reshape(indices.shape)


def _without_mapped_dimension(
    data: Tensor, pool: Tensor, data_dim: int | None, pool_dim: int | None, size: int
) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """A search whose results, in this shape (size, ..., N), are those of `size` searches."""
    if data_dim is not None:
        data = data.movedim(data_dim, 0)
    if pool_dim is None and pool.dim() == 2:
        return data.flatten(0, 1), pool, (size, data.shape[1])
    data = data.expand(size, *data.shape) if data_dim is None else data
    pool = pool.expand(size, *pool.shape) if pool_dim is None else pool.movedim(pool_dim, 0)
    if data.dim() == 3:
        return data, pool, tuple(data.shape[:2])
    return data.flatten(0, 1), pool.flatten(0, 1), tuple(data.shape[:3])


class _TransformedSearch(torch.autograd.Function):
    """The search under torch.func and forward-mode AD, which need more than the operator's backward."""

    @staticmethod
    def forward(
        search: Callable[..., tuple[Tensor, Tensor]],
        data: Tensor,
        pool: Tensor,
        k: int,
        reject_below: float | None,
    ) -> tuple[Tensor, Tensor]:
        return search(data, pool, k, reject_below)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _, data, pool, _, _ = inputs
        ctx.save_for_backward(data, pool, output[1])
        ctx.save_for_forward(data, pool, output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, grad_distances: Tensor, grad_indices: Tensor) -> tuple[Tensor | None, ...]:
        data, pool, indices = ctx.saved_tensors
        _, needs_data, needs_pool, _, _ = ctx.needs_input_grad
        found = _gradients(data, pool, indices, grad_distances, needs_data, needs_pool)
        return None, *found, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, None]:
        data, pool, indices = ctx.saved_tensors
        _, data_tangent, pool_tangent, _, _ = tangents
        return _tangents(data, pool, indices, data_tangent, pool_tangent), None

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        search: Callable[..., tuple[Tensor, Tensor]],
        data: Tensor,
        pool: Tensor,
        k: int,
        reject_below: float | None,
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        data, pool, shape = _without_mapped_dimension(data, pool, in_dims[1], in_dims[2], info.batch_size)
        distances, indices = search_transformed(search, data, pool, k, reject_below)
        return (distances.reshape(*shape, k), indices.reshape(*shape, k)), (0, 0)


def search_transformed(
    search: Callable[..., tuple[Tensor, Tensor]],
    data: Tensor,
    pool: Tensor,
    k: int,
    reject_below: float | None,
) -> tuple[Tensor, Tensor]:
    """search(data, pool, k, reject_below) under whatever transforms are active."""
    found: tuple[Tensor, Tensor] = _TransformedSearch.apply(search, data, pool, k, reject_below)  # type: ignore[no-untyped-call]
    return found
