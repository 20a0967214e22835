"""Samplers and restorers with no network in them: what any figure has to be judged against."""

import math

import torch
from torch import Tensor

from naign_ext.evaluation.rows import as_rows, generator
from naign_ext.transforms.corruptions import gaussian_blur


def mean_image(train: Tensor, count: int) -> Tensor:
    """(count, ...) copies of the training mean."""
    mean: Tensor = train.mean(dim=0, keepdim=True)
    return mean.expand(count, *train.shape[1:]).contiguous()


def pca_gaussian(train: Tensor, count: int, seed: int, *, components: int = 8) -> Tensor:
    """(count, ...) draws of the Gaussian with the training mean and its leading principal components."""
    rows = as_rows("train", train, at_least=2)
    centre = rows.mean(dim=0)
    _, singular, axes = torch.linalg.svd(rows - centre, full_matrices=False)
    kept = min(components, len(singular))
    deviation = singular[:kept] / math.sqrt(len(rows) - 1)
    noise = torch.randn(count, kept, generator=generator(seed)).to(rows.device)
    drawn: Tensor = centre + (noise * deviation) @ axes[:kept]
    return drawn.view(count, *train.shape[1:])


def best_filter(clean: Tensor, corrupted: Tensor) -> float:
    """The sigma, of 0 to 3 pixels, whose Gaussian filter brings corrupted nearest to clean in mean square."""
    candidates = (0.0, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0)
    errors = [float((gaussian_blur(corrupted, s) - clean).square().mean()) for s in candidates]
    return candidates[errors.index(min(errors))]
