"""Exact nearest neighbours of data in a pool of samples, the costly step of implicit maximum likelihood."""

import math
import numbers
import operator
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.masked import MaskedTensor

from naign_ext import _native
from naign_ext.ops import reference
from naign_ext.ops.imle_knn_gradients import backward, distance_dtype, search_transformed, setup_context

# None without the extension: nothing is usual then.
_native_operator: Any = torch.ops.naign.imle_knn.default if _native.extension is not None else None
KERNEL_DTYPES = _native.NATIVE_DTYPES if _native.extension is not None else ()
MOST_NEIGHBOURS = 2**31 - 1
FLOATING = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

Missing = Literal["mark", "raise"]
"""What becomes of neighbours that are not there: index -1, which torch takes for the last row, or an error."""


class Neighbours(NamedTuple):
    """Squared Euclidean distances, ascending, and int64 pool indices, both (N, k) or (B, N, k)."""

    distances: Tensor
    indices: Tensor

    @property
    def found(self) -> Tensor:
        """bool, of the same shape: False where there is no neighbour and the index is -1."""
        return self.indices >= 0


def imle_knn(
    data: Tensor,
    pool: Tensor,
    k: int = 1,
    *,
    reject_below: float | None = None,
    missing: Missing = "mark",
) -> Neighbours:
    """The k nearest pool rows of every data row, exactly.

    Args:
        data: (N, D) or (B, N, D); float32, float16 or bfloat16 (float64 is computed by the torch reference).
        pool: (M, D) or (B, M, D), same device; its dtype may differ from data's. Any strides.
        k: neighbours per row, 1 <= k <= M; an int, or what counts as one (numpy's, a tensor of one).
        reject_below: pairs whose squared distance is below this are inadmissible (RS-IMLE, arXiv 2409.17439).
        missing: what becomes of a neighbour that is not there. "mark" gives it index -1, which ``pool[indices]``
            takes for the last row: mask by :attr:`Neighbours.found`. "raise" raises a ValueError; on CUDA the host
            then waits for the search, and under torch.compile it is raised only where indices are used.

    Returns:
        Neighbours(distances, indices), each (N, k) or (B, N, k). distances: squared Euclidean, float32 (float64 if
        an input is), ascending. indices: int64; ties go to the lowest index. Distances are compared in float64 as
        :func:`naign_ext.ops.reference.squared_distances` defines them, so the answer depends neither on threads nor
        on the instruction set. A pool row with NaN or Inf never matches; a data row with NaN or Inf gets index -1
        and distance NaN; where fewer than k rows are admissible, index -1 and distance +inf (see missing).

    Differentiable in distances with respect to data and pool, also by torch.func (grad, vjp, jvp, vmap) and by
    forward-mode AD. Memory beyond the inputs: O(N k + block).

    Raises:
        TypeError: an input is not a dense floating tensor, or k is not an int.
        ValueError: shapes, devices or k do not fit, or a neighbour is missing and is not to be; the message names the
            argument.
    """
    found = _search(data, pool, k, reject_below)
    return found if missing == "mark" else without_missing(found, missing)


def _search(data: Tensor, pool: Tensor, k: int, reject_below: float | None) -> Neighbours:
    if _are_usual(data, pool, k, reject_below):
        native = True
    else:
        k, reject_below = check_arguments(data, pool, k, reject_below)
        native = has_kernel(data, pool, k)
    search = _native_operator if native else torch.ops.naign.imle_knn_reference.default
    if torch.compiler.is_compiling():
        return Neighbours(*search(data, pool, k, reject_below))
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return Neighbours(*search_transformed(search, data, pool, k, reject_below))
    if torch.is_grad_enabled() and (data.requires_grad or pool.requires_grad):
        return Neighbours(*search(data, pool, k, reject_below))
    # Autograd written in Python takes longer than a small search, also where there is nothing to differentiate.
    with torch._C._AutoDispatchBelowAutograd():
        return Neighbours(*search(data, pool, k, reject_below))


def _are_usual(data: Any, pool: Any, k: Any, reject_below: Any) -> bool:
    """True for the usual arguments of the extension's search on the CPU, quickly; False says nothing."""
    if reject_below is not None or type(k) is not int:
        return False
    if type(data) is not Tensor or type(pool) is not Tensor or not (data.is_cpu and pool.is_cpu):
        return False
    if data.dtype not in KERNEL_DTYPES or pool.dtype not in KERNEL_DTYPES:
        return False
    if data.layout != torch.strided or pool.layout != torch.strided or data.is_nested or pool.is_nested:
        return False
    x, y = data.shape, pool.shape
    fits = len(x) == len(y) == 2 or (len(x) == len(y) == 3 and x[0] == y[0])
    return fits and x[-1] == y[-1] > 0 and 1 <= k <= y[-2]


def has_kernel(data: Tensor, pool: Tensor, k: int) -> bool:
    """True where the extension searches for k neighbours of these tensors."""
    return _native.has_kernel(data, pool) and (data.device.type != "cuda" or k <= _native.LARGEST_K_ON_CUDA)


def check_dense(name: str, value: Any) -> None:
    """Raise TypeError unless value is a dense floating tensor; name: the argument, or words for a part of it."""
    it = name if name.isidentifier() else "x"
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name}: expected a torch.Tensor, got {type(value).__name__}; use torch.as_tensor({it})"
        )
    if value.is_nested:
        raise TypeError(f"{name}: expected a dense tensor, got a nested one; use torch.cat({it}.unbind())")
    if value.layout != torch.strided:
        got = str(value.layout).removeprefix("torch.").lstrip("_")
        raise TypeError(f"{name}: expected a dense tensor, got the layout {got}; use {it}.to_dense()")
    if isinstance(value, MaskedTensor):
        raise TypeError(f"{name}: expected a dense tensor, got a masked one; use {it}.to_tensor(0.0)")
    if value.dtype not in FLOATING:
        expected = ", ".join(str(d).removeprefix("torch.") for d in FLOATING)
        got = str(value.dtype).removeprefix("torch.")
        change = f"{it}.dequantize()" if value.is_quantized else f"{it}.float()"
        if value.is_complex():
            change = f"torch.view_as_real({it}).flatten(-2)"
        raise TypeError(f"{name}: expected one of the dtypes {expected}, got {got}; use {change}")


def check_tensor(name: str, value: Any, dims: tuple[int, ...]) -> None:
    """Raise unless value is a dense floating tensor with one of these numbers of dimensions and D >= 1."""
    check_dense(name, value)
    if value.dim() not in dims:
        raise ValueError(
            f"{name}: expected {' or '.join(map(str, dims))} dimensions (rows, D), got shape {tuple(value.shape)};"
            f" {_other_shapes(name, value.dim())}"
        )
    if value.shape[-1] == 0:
        raise ValueError(f"{name}: expected D >= 1 numbers a row, got shape {tuple(value.shape)}")


def _other_shapes(name: str, dims: int) -> str:
    if dims == 0:
        return f"use {name}[None, None] for one row of one number"
    if dims == 1:
        return f"use {name}[None] for one row, {name}[:, None] for rows of one number"
    return f"use {name}.flatten(1)"


def check_k(k: Any) -> int:
    """k as an int; raise unless it is a whole number of at least 1."""
    if isinstance(k, torch.SymInt):
        return k  # type: ignore[return-value]
    if _is_bool(k) or not _is_whole(k):
        raise TypeError(f"k: expected an int, got {type(k).__name__}; use int(k)")
    whole = operator.index(k)
    if whole < 1:
        raise ValueError(f"k: expected at least 1, got {whole}")
    if whole > MOST_NEIGHBOURS:
        raise ValueError(f"k: expected at most {MOST_NEIGHBOURS}, got {whole}")
    return whole


def check_offset(offset: Any, rows: int) -> int:
    """offset as an int; raise unless the pool rows offset, offset + 1, ... have indices of 64 bits."""
    if _is_bool(offset) or not _is_whole(offset):
        raise TypeError(
            f"offset: expected an int from 0 to 2^63 - rows, got {type(offset).__name__}; use int(offset)"
        )
    whole = operator.index(offset)
    if not 0 <= whole <= 2**63 - rows:
        raise ValueError(f"offset: expected an int from 0 to 2^63 - rows = {2**63 - rows}, got {whole}")
    return whole


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, Tensor) and value.dtype == torch.bool)


def _is_whole(value: Any) -> bool:
    try:
        operator.index(value)
    except (TypeError, ValueError, RuntimeError):
        return False
    return True


def check_reject_below(value: Any) -> float | None:
    """value as a float or None; raise unless it is None or a number that is not NaN."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"reject_below: expected a float or None, got {type(value).__name__}")
    number = as_float("reject_below", value)
    if math.isnan(number):
        raise ValueError("reject_below: expected a squared distance, got nan; use None to reject nothing")
    return number


def as_float(name: str, value: Any) -> float:
    """A real number as a float; ValueError where it is an int beyond them."""
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name}: expected at most 1.8e308, got an int beyond floats") from None


def without_missing(found: Neighbours, missing: Any) -> Neighbours:
    """found as :func:`imle_knn` returns it for this ``missing``; raise unless it is a known mode."""
    if missing not in get_args(Missing):
        raise ValueError(f"missing: expected {' or '.join(map(repr, get_args(Missing)))}, got {missing!r}")
    if missing == "mark":
        return found
    return Neighbours(found.distances, torch.ops.naign.require_found(found.distances.detach(), found.indices))


def check_pool_matches(data: Tensor, pool: Tensor) -> None:
    """Raise unless pool is a floating tensor of data's number of dimensions, D, batch size and device."""
    check_tensor("pool", pool, (2, 3))
    if pool.dim() != data.dim():
        advice = f"pool.expand({len(data)}, -1, -1) for one pool for all batches"
        if data.dim() == 2:
            advice = "pool.flatten(0, 1) for all batches as one pool"
        raise ValueError(
            f"pool: expected {data.dim()} dimensions as data has, got shape {tuple(pool.shape)}; use {advice}"
        )
    if pool.shape[-1] != data.shape[-1]:
        raise ValueError(f"pool: expected D = {data.shape[-1]} as data has, got D = {pool.shape[-1]}")
    if data.dim() == 3 and pool.shape[0] != data.shape[0]:
        raise ValueError(f"pool: expected B = {data.shape[0]} batches as data has, got B = {pool.shape[0]}")
    if pool.device != data.device:
        raise ValueError(
            f"pool: expected device {data.device} as data has, got {pool.device}; use pool.to(data.device)"
        )


def check_arguments(data: Any, pool: Any, k: Any, reject_below: Any) -> tuple[int, float | None]:
    """Everything :func:`imle_knn` demands of its arguments; k and reject_below as the operators take them."""
    check_tensor("data", data, (2, 3))
    check_pool_matches(data, pool)
    k, reject_below = check_k(k), check_reject_below(reject_below)
    if pool.shape[-2] == 0:
        raise ValueError(f"pool: expected at least one row, got shape {tuple(pool.shape)}")
    if k > pool.shape[-2]:
        raise ValueError(f"k: expected at most the pool's {pool.shape[-2]} rows, got {k}")
    return k, reject_below


@torch.library.custom_op("naign::imle_knn_reference", mutates_args=())
def _reference_operator(
    data: Tensor, pool: Tensor, k: int, reject_below: float | None
) -> tuple[Tensor, Tensor]:
    return reference.imle_knn(data, pool, k, reject_below)


def _fake(data: Tensor, pool: Tensor, k: int, reject_below: float | None) -> tuple[Tensor, Tensor]:
    shape = (*data.shape[:-1], k)
    distances = data.new_empty(shape, dtype=distance_dtype(data, pool))
    return distances, data.new_empty(shape, dtype=torch.int64)


@torch.library.custom_op("naign::require_found", mutates_args=())
def _require_found(distances: Tensor, indices: Tensor) -> Tensor:
    """The indices; ValueError if one is -1. An operator, so that a compiled graph keeps the check."""
    without = (indices < 0).any(dim=-1)
    if without.any():
        raise ValueError(_without_neighbours(distances, without))
    return indices.clone()


def _without_neighbours(distances: Tensor, without: Tensor) -> str:
    """What is wrong with the rows of data (..., k) that have too few neighbours, and what to do."""
    unusable = distances.isnan().any(dim=-1)
    rows, reason = without, "fewer than k admissible neighbours"
    advice = "pool rows with NaN or Inf and those nearer than reject_below are none"
    if unusable.any():
        rows, reason, advice = unusable, "NaN or Inf", "they have no neighbours"
    place = rows.nonzero()[0].tolist()
    where = place[0] if len(place) == 1 else tuple(place)
    return (
        f"data: {int(rows.sum())} of {rows.numel()} rows have {reason}, row {where} first; {advice}; "
        "pass missing='mark' for index -1 in their place and mask by .found"
    )


@_require_found.register_fake
def _(distances: Tensor, indices: Tensor) -> Tensor:
    return torch.empty_like(indices)


@_require_found.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], distances: Tensor, indices: Tensor) -> tuple[Tensor, int]:
    distances, indices = (
        t.expand(info.batch_size, *t.shape) if dim is None else t.movedim(dim, 0)
        for t, dim in zip((distances, indices), in_dims, strict=True)
    )
    return torch.ops.naign.require_found(distances, indices), 0


def _register(name: str) -> None:
    torch.library.register_fake(name, _fake)
    torch.library.register_autograd(name, backward, setup_context=setup_context)


_register("naign::imle_knn_reference")
if _native.extension is not None:
    _register("naign::imle_knn")
