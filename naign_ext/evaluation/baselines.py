"""What has no network in it and every metric is read beside: samplers, maps, filters, and their words."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from naign_ext.evaluation.rows import as_rows, cpu_generator
from naign_ext.transforms.corruptions import gaussian_blur

BLUR_SIGMA = 0.7
CORRUPTED, CLEAN = "corrupted", "clean"


@dataclass(frozen=True)
class Baseline:
    """short: for the head of a column; text: what it is."""

    short: str
    text: str


BASELINES = {
    "prior": Baseline("latents", "the latents themselves"),
    "gaussian": Baseline("Gaussian", "draws of the Gaussian with the training mean and covariance"),
    "truth": Baseline("true draw", "fresh draws of the true distribution"),
    "heldout": Baseline("held out", "held-out images as if they were samples"),
    "half": Baseline("half", "half of the training images as samples, the other half as the training set"),
    "copies": Baseline("copies", "training data drawn with replacement"),
    "blur": Baseline("blur", "copies under a Gaussian blur of .7 pixel"),
    "pca": Baseline("PCA", "a Gaussian of 8 principal components"),
    "mean": Baseline("mean", "the training mean, repeated, or in place of f(x)"),
    "nearest": Baseline("nearest", "the nearest training row in place of f(x)"),
    "variance": Baseline("variance", "a small variance of the image counts as not being data"),
    "kde": Baseline("kernel", "kernel density estimate of the training set, bandwidth fitted as T is"),
    CLEAN: Baseline("clean", "the clean images"),
    CORRUPTED: Baseline("corrupted", "the corrupted images as they are"),
    "filter": Baseline("Gaussian filter", "the Gaussian filter that is best on training images"),
    "tv": Baseline("total variation", "total variation denoising, its weight the best on training images"),
    "inpaint": Baseline("inpainting", "biharmonic inpainting of what is known to be lost"),
}
"""By name, in the order of the columns of tables."""


def copies(train: Tensor, count: int, seed: int) -> Tensor:
    """(count, ...) training rows drawn with replacement."""
    chosen = torch.randint(len(train), (count,), generator=cpu_generator(seed))
    return train[chosen.to(train.device)]


def halves(train: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """The training rows in two random halves, the larger second."""
    order = torch.randperm(len(train), generator=cpu_generator(seed)).to(train.device)
    middle = len(order) // 2
    return train[order[:middle]], train[order[middle:]]


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
    noise = torch.randn(count, kept, generator=cpu_generator(seed)).to(rows.device)
    drawn: Tensor = centre + (noise * deviation) @ axes[:kept]
    return drawn.view(count, *train.shape[1:])


def log_normal(rows: Tensor, x: Tensor) -> Tensor:
    """log density, up to a constant, at x (N, D) of the Gaussian with the mean and covariance of rows."""
    covariance = rows.T.cov().view(rows.shape[1], -1)
    apart = x - rows.mean(dim=0)
    exponent: Tensor = (apart * torch.linalg.solve(covariance, apart.T).T).sum(dim=1)
    return -0.5 * exponent


def best_filter(clean: Tensor, corrupted: Tensor) -> float:
    """The sigma, of 0 to 3 pixels, whose Gaussian filter brings corrupted nearest to clean in mean square."""
    candidates = (0.0, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0)
    errors = [float((gaussian_blur(corrupted, s) - clean).square().mean()) for s in candidates]
    return candidates[errors.index(min(errors))]
