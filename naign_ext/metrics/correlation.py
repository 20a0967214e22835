"""Rank correlation."""

import torch
from torch import Tensor


def ranks(values: Tensor) -> Tensor:
    """(N,) ranks from 0, float64; equal values share the mean of their ranks."""
    _, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    shared: Tensor = (last - (counts.double() + 1) / 2)[inverse]
    return shared


def spearman(x: Tensor, y: Tensor) -> float:
    """Spearman's rank correlation of x (N,) and y (N,), in [-1, 1]; 0 where one of them is constant.

    Raises:
        ValueError: not one-dimensional, of unequal length, or fewer than 2 values.
    """
    if x.dim() != 1 or x.shape != y.shape or len(x) < 2:
        got = f"{tuple(x.shape)} and {tuple(y.shape)}"
        raise ValueError(f"x, y: expected two vectors of equal length N >= 2, got shapes {got}")
    centred = [ranks(v) - (len(v) - 1) / 2 for v in (x.detach(), y.detach())]
    scale = float(centred[0].norm() * centred[1].norm())
    return float(centred[0] @ centred[1]) / scale if scale > 0 else 0.0
