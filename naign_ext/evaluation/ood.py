"""Telling data from what is not data by a score that is larger away from the data."""

import torch
from torch import Tensor

from naign_ext.evaluation.rows import as_rows, same_width
from naign_ext.ops import imle_knn


def auroc(inside: Tensor, outside: Tensor) -> float:
    """Area under the ROC curve: the probability that a score outside exceeds one inside, ties counted half.

    1 = always told apart, 0.5 = chance, below 0.5 = the score points the wrong way.

    Args:
        inside: (N,) scores of data; outside: (M,) scores of what is not data. Infinities are allowed.

    Raises:
        ValueError: either is empty, not one-dimensional, or holds NaN.
    """
    for name, scores in (("inside", inside), ("outside", outside)):
        if scores.dim() != 1 or len(scores) == 0:
            raise ValueError(f"{name}: expected scores (N,) with N >= 1, got shape {tuple(scores.shape)}")
        if bool(scores.isnan().any()):
            raise ValueError(f"{name}: expected no NaN, got {int(scores.isnan().sum())}")
    ordered = inside.detach().double().sort().values
    outside = outside.detach().double().to(ordered.device)
    below = torch.searchsorted(ordered, outside, side="left")
    not_above = torch.searchsorted(ordered, outside, side="right")
    return float((below + not_above).double().mean()) / (2 * len(ordered))


def nearest_distance(train: Tensor, x: Tensor) -> Tensor:
    """(N,) distance of every x to its nearest training row: the score that any model should beat."""
    train, x = as_rows("train", train), as_rows("x", x)
    same_width(train=train, x=x)
    return imle_knn(x, train).distances[:, 0].sqrt()


def nearest_row(train: Tensor, x: Tensor) -> Tensor:
    """The nearest training row of every x, of x's shape: a projector without a network."""
    rows, points = as_rows("train", train), as_rows("x", x)
    same_width(train=rows, x=points)
    return train[imle_knn(points, rows).indices[:, 0]].to(x.dtype)


def inverse_variance(x: Tensor) -> Tensor:
    """(N,) minus the variance of a row's own elements: what the normalisation alone achieves, with no
    model."""
    return -as_rows("x", x).double().var(dim=1, unbiased=False)
