"""Distances between two sets of points as distributions."""

import torch
from torch import Tensor

from naign_ext.evaluation.rows import as_rows, cpu_generator, same_width, subset


def energy_distance(x: Tensor, y: Tensor, *, max_points: int = 5000, seed: int = 0) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| of the two empirical distributions (Szekely & Rizzo 2013), >= 0.

    Args:
        x: (N, ...), y: (M, ...), flattened to rows; seeded subsets of max_points where there are more.
    """
    x, y = _pair(x, y, max_points, seed)
    return max(0.0, 2 * _mean_distance(x, y) - _mean_distance(x, x) - _mean_distance(y, y))


def wasserstein2(x: Tensor, y: Tensor, *, max_points: int = 1000, seed: int = 0) -> float:
    """2-Wasserstein distance by optimal assignment: sqrt(min over permutations of mean |x_i - y_p(i)|^2).

    Both sets are reduced to equally many rows, at most max_points, by seeded subsets. Two draws of one
    distribution are a positive distance apart; compare with that floor at the same number of points.

    Args:
        x: (N, ...), y: (M, ...), flattened to rows.
    """
    from scipy.optimize import linear_sum_assignment

    count = min(len(x), len(y), max_points)
    x, y = _pair(x, y, count, seed)
    cost = (
        torch.cdist(x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist")
        .square()
        .cpu()
        .numpy()
    )
    rows, columns = linear_sum_assignment(cost)
    return float(cost[rows, columns].mean() ** 0.5)


def sliced_wasserstein2(x: Tensor, y: Tensor, *, projections: int = 128, seed: int = 0) -> float:
    """Root mean square over random directions of the 1-D 2-Wasserstein distance of the projected sets.

    Works for any N, M and D; in 1-D it is the 2-Wasserstein distance itself.

    Args:
        x: (N, ...), y: (M, ...), flattened to rows; projections: directions, uniform on the sphere.
    """
    x, y = as_rows("x", x), as_rows("y", y)
    same_width(x=x, y=y)
    if projections < 1:
        raise ValueError(f"projections: expected 1 or more, got {projections}")
    directions = torch.randn(x.shape[1], projections, generator=cpu_generator(seed)).to(x.device)
    directions = directions / directions.norm(dim=0)
    return float(_quantile_cost((x @ directions).double(), (y @ directions).double()).mean() ** 0.5)


def _quantile_cost(x: Tensor, y: Tensor) -> Tensor:
    """(P,) integral over q of (F_x^-1(q) - F_y^-1(q))^2 for the columns of x (N, P) and y (M, P), exactly.

    Both inverse distribution functions are constant between neighbouring levels of {i/N} and {j/M}.
    """
    n, m = len(x), len(y)
    levels = torch.unique(torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]))
    width = torch.diff(levels, prepend=levels.new_zeros(1)).double() / (n * m)
    of_x, of_y = (levels - 1) // m, (levels - 1) // n
    gap = x.sort(dim=0).values[of_x.to(x.device)] - y.sort(dim=0).values[of_y.to(y.device)]
    return (width.to(x.device)[:, None] * gap.square()).sum(dim=0)


def _pair(x: Tensor, y: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    x, y = subset(as_rows("x", x), count, seed), subset(as_rows("y", y), count, seed + 1)
    same_width(x=x, y=y)
    return x, y


def _mean_distance(x: Tensor, y: Tensor, block: int = 1 << 22) -> float:
    total = 0.0
    for part in torch.split(x.double(), max(1, block // len(y))):
        total += float(torch.cdist(part, y.double(), compute_mode="donot_use_mm_for_euclid_dist").sum())
    return total / (len(x) * len(y))
