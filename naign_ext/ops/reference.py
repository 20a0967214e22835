"""Float64 reference of every operator in plain torch: the oracle of the tests and the fallback without a compiler.

The squared distance that decides every comparison is *defined* here, order of summation included, so that all
implementations (torch, portable C++, AVX2, AVX-512, CUDA) agree to the last bit and ties are ties everywhere:

    t_k = float64(x_k) - float64(y_k),  s_l = sum of t_k * t_k over k = l, l + 32, l + 64, ... in this order,
    then s_l += s_{l+16} for l < 16, s_l += s_{l+8} for l < 8, ... down to s_0,

every operation rounded to float64, none fused. Its relative error is below (D / 32 + 7) * 2^-53.
"""

import functools
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

LANES = 32
_PAIRS_PER_BLOCK = 1 << 21
_ELEMENTS_PER_BLOCK = 1 << 22


P = ParamSpec("P")
R = TypeVar("R")
_smallest_subnormal = 2.0**-1074


def _keeps_subnormals(function: Callable[P, R]) -> Callable[P, R]:
    """function, undisturbed by torch.set_flush_denormal, which would make small numbers zeros in the calling thread."""

    @functools.wraps(function)
    def keeping(*args: P.args, **kwargs: P.kwargs) -> R:
        if _smallest_subnormal * 1.0 > 0:
            return function(*args, **kwargs)
        torch.set_flush_denormal(False)
        try:
            return function(*args, **kwargs)
        finally:
            torch.set_flush_denormal(True)

    return keeping


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared distance of x (P, D) to y (P, D) row by row, float64, in the order of summation defined above."""
    step = max(1, _ELEMENTS_PER_BLOCK // max(1, x.shape[1]))
    blocks = [_squared_distances_block(x[i : i + step], y[i : i + step]) for i in range(0, x.shape[0], step)]
    return torch.cat(blocks) if blocks else x.new_zeros(0, dtype=torch.float64)


def squared_distances_of_pairs(data: Tensor, pool: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Squared distances of data[row] to pool[column], float64 (P,), without gathering all pairs at once."""
    step = max(1, _ELEMENTS_PER_BLOCK // max(1, data.shape[1]))
    found = torch.empty(len(row), dtype=torch.float64, device=data.device)
    for i in range(0, len(row), step):
        found[i : i + step] = squared_distances(data[row[i : i + step]], pool[column[i : i + step]])
    return found


def _squared_distances_block(x: Tensor, y: Tensor) -> Tensor:
    difference = x.double() - y.double()
    padding = -difference.shape[1] % LANES
    lanes = functional.pad(difference, (0, padding)).view(len(x), -1, LANES)
    total = torch.zeros(len(x), LANES, dtype=torch.float64, device=x.device)
    for k in range(lanes.shape[1]):
        total = total + lanes[:, k] * lanes[:, k]
    width = LANES // 2
    while width:
        total = total[:, :width] + total[:, width:]
        width //= 2
    return total[:, 0]


def finite_rows(x: Tensor) -> Tensor:
    """True for every row of x (N, D) without NaN or Inf."""
    return x.isfinite().all(dim=1)


def empty_neighbours(rows: int, k: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The running result before any pool row was seen: distance +inf, index -1."""
    distances = torch.full((rows, k), torch.inf, dtype=torch.float64, device=device)
    return distances, torch.full((rows, k), -1, dtype=torch.int64, device=device)


def merge_neighbours(
    distances: Tensor, indices: Tensor, other_distances: Tensor, other_indices: Tensor
) -> tuple[Tensor, Tensor]:
    """The k smallest of two results (N, k), ordered by distance, then by index."""
    k = distances.shape[1]
    if k == 1:
        other = (other_distances < distances) | ((other_distances == distances) & (other_indices < indices))
        return torch.where(other, other_distances, distances), torch.where(other, other_indices, indices)
    both_distances = torch.cat([distances, other_distances], dim=1)
    both_indices = torch.cat([indices, other_indices], dim=1)
    by_index = both_indices.argsort(dim=1, stable=True)
    both_distances, both_indices = both_distances.gather(1, by_index), both_indices.gather(1, by_index)
    by_distance = both_distances.argsort(dim=1, stable=True)[:, :k]
    return both_distances.gather(1, by_distance), both_indices.gather(1, by_distance)


@_keeps_subnormals
def update(
    data: Tensor, pool: Tensor, distances: Tensor, indices: Tensor, *, offset: int, reject_below: float | None
) -> tuple[Tensor, Tensor]:
    """Running neighbours (N, k) after the pool rows offset, offset + 1, ... were seen as well.

    A float64 matrix product proposes candidates: with n = |x|^2 + |y|^2 its error is below (2 D + 16) 2^-53 n, so a
    row whose approximate distance exceeds the k-th smallest by more than twice that cannot be among the k nearest.
    The candidates' distances are then computed as :func:`squared_distances` defines them.
    """
    columns = max(1, min(len(pool), _PAIRS_PER_BLOCK // 64))
    rows = max(1, _PAIRS_PER_BLOCK // columns)
    results = []
    for i in range(0, len(data), rows):
        best = distances[i : i + rows], indices[i : i + rows]
        for j in range(0, len(pool), columns):
            block = _block_neighbours(data[i : i + rows], pool[j : j + columns], best, reject_below)
            block_indices = torch.where(block[1] >= 0, block[1] + (offset + j), block[1])
            best = merge_neighbours(*best, block[0], block_indices)
        results.append(best)
    if not results:
        return distances, indices
    return torch.cat([r[0] for r in results]), torch.cat([r[1] for r in results])


def _block_neighbours(
    data: Tensor, pool: Tensor, best: tuple[Tensor, Tensor], reject_below: float | None
) -> tuple[Tensor, Tensor]:
    k = best[0].shape[1]
    valid = finite_rows(data)[:, None] & finite_rows(pool)[None, :]
    candidates = _candidates(data.double(), pool.double(), valid, best[0][:, -1:], k, reject_below)
    row, column = candidates.nonzero(as_tuple=True)
    distance = squared_distances_of_pairs(data, pool, row, column)
    if reject_below is not None:
        admissible = distance >= reject_below
        row, column, distance = row[admissible], column[admissible], distance[admissible]
    return _smallest_of_each_row(row, column, distance, len(data), k)


def _candidates(
    x: Tensor, y: Tensor, valid: Tensor, known: Tensor, k: int, reject_below: float | None
) -> Tensor:
    norms = x.square().sum(1, keepdim=True) + y.square().sum(1)
    approximate = norms - 2 * (x @ y.T)
    slack = (2 * x.shape[1] + 16) * 2.0**-53 * norms
    lower = (approximate - slack).nan_to_num(nan=-torch.inf).masked_fill(~valid, torch.inf)
    upper = (approximate + slack).nan_to_num(nan=torch.inf).masked_fill(~valid, torch.inf)
    if reject_below is not None:
        upper = upper.masked_fill(lower < reject_below, torch.inf)
    if k <= upper.shape[1]:
        known = torch.minimum(known, upper.kthvalue(k, dim=1, keepdim=True).values)
    return (lower <= known) & valid


def _smallest_of_each_row(
    row: Tensor, column: Tensor, distance: Tensor, rows: int, k: int
) -> tuple[Tensor, Tensor]:
    """The k smallest entries of each row of a sparse matrix whose entries are sorted by row, then column."""
    order = distance.argsort(stable=True)
    order = order[row[order].argsort(stable=True)]
    row, column, distance = row[order], column[order], distance[order]
    counts = torch.bincount(row, minlength=rows)
    rank = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    keep = rank < k
    distances, indices = empty_neighbours(rows, k, row.device)
    distances[row[keep], rank[keep]] = distance[keep]
    indices[row[keep], rank[keep]] = column[keep]
    return distances, indices


@_keeps_subnormals
def finish(data: Tensor, distances: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Distances in the public dtype; NaN where the data row itself holds NaN or Inf."""
    dtype = torch.float64 if data.dtype == torch.float64 else torch.float32
    unusable = ~finite_rows(data)[:, None]
    return distances.to(dtype).masked_fill(unusable, torch.nan), indices.masked_fill(unusable, -1)


@_keeps_subnormals
def imle_knn(data: Tensor, pool: Tensor, k: int, reject_below: float | None) -> tuple[Tensor, Tensor]:
    """See :func:`naign_ext.imle_knn`; data (N, D) and pool (M, D), or (B, N, D) and (B, M, D)."""
    if data.dim() == 3:
        pairs = [imle_knn(d, p, k, reject_below) for d, p in zip(data, pool, strict=True)]
        if not pairs:
            distances, indices = empty_neighbours(data.shape[1], k, data.device)
            return distances.float().expand(0, -1, -1).contiguous(), indices.expand(0, -1, -1).contiguous()
        return torch.stack([p[0] for p in pairs]), torch.stack([p[1] for p in pairs])
    empty = empty_neighbours(len(data), k, data.device)
    distances, indices = update(data, pool, *empty, offset=0, reject_below=reject_below)
    wide = torch.float64 in (data.dtype, pool.dtype)
    return finish(data.double() if wide else data, distances, indices)


def fused_loss(
    tensors: Sequence[Tensor],
    predictions: Sequence[int],
    targets: Sequence[int],
    weights: Sequence[float],
    l1: bool,
    wanted: Sequence[int],
    scale: Tensor | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """The unweighted terms, float64 (terms,), and gradients of their weighted sum, or of the sum times scale.

    Term t compares tensors[predictions[t]] with tensors[targets[t]]. Gradients are with respect to tensors[i] for i
    in wanted, in their dtypes, computed in float64 and rounded once.
    """
    sums = {i: torch.zeros_like(tensors[i], dtype=torch.float64) for i in wanted}
    terms = []
    for prediction, target, weight in zip(predictions, targets, weights, strict=True):
        difference = tensors[prediction].double() - tensors[target].double()
        count = max(1, difference.numel())
        penalty = difference.abs() if l1 else difference.square()
        derivative = (difference.sign() if l1 else 2 * difference) * (weight / count)
        terms.append(penalty.sum() / count)
        for place, sign in ((prediction, 1), (target, -1)):
            if place in sums:
                sums[place] += sign * derivative
    factor = 1 if scale is None else scale.double()
    return torch.stack(terms), [(sums[i] * factor).to(tensors[i].dtype).contiguous() for i in wanted]


def batch_norm_sums(x: Tensor, gradient: Tensor | None, centre: Tensor) -> Tensor:
    """Sums of v and of v d over all dimensions of x (B, C, ...) but C, and elements of a channel: float64 (2 C + 1,).

    d = x - centre; v = gradient, or d where there is none.
    """
    deviation = x.double() - _beside(x, centre).double()
    value = deviation if gradient is None else gradient.double()
    first, second = (t.transpose(0, 1).flatten(1).sum(dim=1) for t in (value, value * deviation))
    return torch.cat([first, second, first.new_full((1,), x[:, 0].numel())])


def batch_norm_forward(
    x: Tensor,
    sums: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """x (B, C, ...) normalised by sums about the running mean, and mean and 1 / deviation in float64.

    The running statistics follow in place.
    """
    count = sums[-1]
    shift, squares = (sums[:-1] / count).view(2, -1)
    variance = (squares - shift.square()).clamp(min=0)
    mean, scale = running_mean + shift, (variance + eps).rsqrt()
    unbiased = variance * count / (count - 1).clamp(min=1)
    for running, value in ((running_mean, mean), (running_var, unbiased)):
        running.copy_(running + momentum * (value - running))
    slope = scale if weight is None else scale * weight
    y = (x.double() - _beside(x, mean)) * _beside(x, slope)
    return (y if bias is None else y + _beside(x, bias)).to(x.dtype), mean, scale


def batch_norm_backward(
    x: Tensor,
    gradient: Tensor,
    own_sums: Tensor,
    sums: Tensor,
    mean: Tensor,
    scale: Tensor,
    weight: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x (B, C, ...), weight and bias from sums about the mean rounded to x's dtype."""
    rest = mean.to(x.dtype) - mean

    def with_h(of: Tensor) -> Tensor:
        alone, with_deviation = of[:-1].view(2, -1).unbind()
        product: Tensor = (with_deviation + rest * alone) * scale
        return product

    h = (x.double() - _beside(x, mean)) * _beside(x, scale)
    alone, bend = sums[: len(mean)] / sums[-1], with_h(sums) / sums[-1]
    slope = scale if weight is None else scale * weight
    centred = gradient.double() - _beside(x, alone) - h * _beside(x, bend)
    for_weight, for_bias = with_h(own_sums).to(x.dtype), own_sums[: len(mean)].to(x.dtype, copy=True)
    return (centred * _beside(x, slope)).to(x.dtype), for_weight, for_bias


def _beside(x: Tensor, of_channels: Tensor) -> Tensor:
    """(C,) in the shape that goes with x (B, C, ...)."""
    return of_channels.view(-1, *[1] * (x.dim() - 2))
