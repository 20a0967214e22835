"""Linear and rank correlation."""

import torch
from torch import Tensor


def ranks(values: Tensor) -> Tensor:
    """(N,) ranks from 0, float64; equal values share the mean of their ranks."""
    _, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    shared: Tensor = (last - (counts.double() + 1) / 2)[inverse]
    return shared


def pearson(x: Tensor, y: Tensor) -> float:
    """Pearson's correlation of x (N,) and y (N,), in [-1, 1]; 0 where one of them is constant.

    Raises:
        ValueError: not one-dimensional, of unequal length, or fewer than 2 values.
    """
    if x.dim() != 1 or x.shape != y.shape or len(x) < 2:
        got = f"{tuple(x.shape)} and {tuple(y.shape)}"
        raise ValueError(f"x, y: expected two vectors of equal length N >= 2, got shapes {got}")
    first, second = (v.detach().double() - v.detach().double().mean() for v in (x, y))
    scale = float(first.norm() * second.norm())
    return float(first @ second) / scale if scale > 0 else 0.0


def spearman(x: Tensor, y: Tensor) -> float:
    """Spearman's correlation: Pearson's of the ranks. Same arguments and errors as :func:`pearson`."""
    if x.dim() != 1 or x.shape != y.shape:
        return pearson(x, y)
    return pearson(ranks(x.detach()), ranks(y.detach()))
