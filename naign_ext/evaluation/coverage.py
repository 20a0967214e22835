"""How much of the data the samples reach, and how many samples lie where data lie.

Every neighbour here is exact: :func:`naign_ext.imle_knn`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from naign_ext.evaluation.rows import as_rows, same_width
from naign_ext.ops import imle_knn


def train_coverage(train: Tensor, samples: Tensor) -> float:
    """Share of the training rows that are the nearest training row of at least one sample, in [0, 1].

    1 when every training point is reached, 1/N when all samples fall on one. Grows with the number of
    samples: compare at equal numbers only.

    Args:
        train: (N, ...); samples: (M, ...) of the same row shape.
    """
    train, samples = as_rows("train", train), as_rows("samples", samples)
    same_width(train=train, samples=samples)
    return len(torch.unique(imle_knn(samples, train).indices)) / len(train)


def authenticity(train: Tensor, samples: Tensor) -> float:
    """Share of samples that are not copies: farther from their nearest training row than that row is from its
    own.

    AuthPct of Alaa et al. (arXiv 2102.08921), in [0, 1]; low values mean memorised training data.

    Args:
        train: (N, ...), N >= 2; samples: (M, ...).
    """
    train, samples = as_rows("train", train, at_least=2), as_rows("samples", samples)
    same_width(train=train, samples=samples)
    own = imle_knn(train, train, k=2).distances[:, 1]
    nearest = imle_knn(samples, train)
    return float((nearest.distances[:, 0] > own[nearest.indices[:, 0]]).double().mean())


def near_copies(train: Tensor, samples: Tensor, *, ratio: float = 1 / 3) -> float:
    """Share of samples nearer to one training row than to any other by that ratio of Euclidean distances or more.

    The rule of Yoon et al. 2023 and of Gu et al. (arXiv 2310.02664) for what a diffusion model memorised, in [0, 1].

    Args:
        train: (N, ...), N >= 2; samples: (M, ...).
    """
    train, samples = as_rows("train", train, at_least=2), as_rows("samples", samples)
    same_width(train=train, samples=samples)
    first, second = imle_knn(samples, train, k=2).distances.double().unbind(1)
    return float((first < ratio**2 * second).double().mean())


@dataclass(frozen=True)
class Prdc:
    """Improved precision and recall (arXiv 1904.06991), density and coverage (arXiv 2002.09797)."""

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(real: Tensor, samples: Tensor, *, k: int = 5) -> Prdc:
    """Precision, recall, density and coverage from the k-nearest-neighbour balls of real data and of samples.

    B(x) is the ball around x that reaches the k-th nearest other row of x's own set.
        precision  share of samples inside some B(real)
        recall     share of real rows inside some B(sample)
        density    mean over samples of the number of B(real) that contain it, divided by k (may exceed 1)
        coverage   share of real rows whose B contains at least one sample

    Args:
        real: (N, ...), N > k; samples: (M, ...), M > k.
        k: neighbours that set the radius.
    """
    real = as_rows("real", real, at_least=k + 1)
    samples = as_rows("samples", samples, at_least=k + 1)
    same_width(real=real, samples=samples)
    real_radius = imle_knn(real, real, k=k + 1).distances[:, k]
    sample_radius = imle_knn(samples, samples, k=k + 1).distances[:, k]
    nearest_sample = imle_knn(real, samples).distances[:, 0]
    inside = _balls_containing(samples, real, real_radius)
    return Prdc(
        precision=float((inside > 0).double().mean()),
        recall=float((_balls_containing(real, samples, sample_radius) > 0).double().mean()),
        density=float(inside.double().mean()) / k,
        coverage=float((nearest_sample <= real_radius).double().mean()),
    )


@dataclass(frozen=True)
class ModeCoverage:
    """covered: number of modes reached; high_quality: share of samples near a mode; shares: (K,) of all
    samples."""

    covered: int
    high_quality: float
    shares: Tensor


def mode_coverage(
    samples: Tensor, modes: Tensor, mode_std: float, *, sigmas: float = 3.0, min_share: float = 0.1
) -> ModeCoverage:
    """Modes of a mixture that the samples reach, and the share of samples near one ("high quality").

    A sample counts for its nearest mode when it lies within sigmas * mode_std of it. A mode is covered when
    it holds at least min_share of its fair share M/K of the samples, and one at the least, so a stray hit
    does not count.

    Args:
        samples: (M, D); modes: (K, D), the means; mode_std: their common standard deviation per dimension.
        sigmas: radius in standard deviations. Choose it so that raw noise scores badly: 3 for modes of few
            sigmas' distance in 1-D, 4 on 2-D grids.

    Raises:
        ValueError: shapes do not fit, or mode_std, sigmas are not positive.
    """
    samples, modes = as_rows("samples", samples), as_rows("modes", modes)
    same_width(samples=samples, modes=modes)
    for name, value in (("mode_std", mode_std), ("sigmas", sigmas)):
        if not value > 0:
            raise ValueError(f"{name}: expected a positive number, got {value}")
    nearest = imle_knn(samples, modes)
    good = nearest.distances[:, 0] <= (sigmas * mode_std) ** 2
    counts = torch.bincount(nearest.indices[:, 0][good], minlength=len(modes))
    needed = max(1.0, min_share * len(samples) / len(modes))
    return ModeCoverage(
        covered=int((counts >= needed).sum()),
        high_quality=float(good.double().mean()),
        shares=(counts / len(samples)).cpu(),
    )


def _balls_containing(points: Tensor, centres: Tensor, squared_radii: Tensor, block: int = 1 << 22) -> Tensor:
    """(P,) how many of the balls contain each point; distances from differences, in blocks."""
    rows = max(1, block // len(centres))
    counts = []
    for part in torch.split(points, rows):
        distance: Tensor = torch.cdist(part, centres, compute_mode="donot_use_mm_for_euclid_dist")
        counts.append((distance.square() <= squared_radii).sum(dim=1))
    return torch.cat(counts)
