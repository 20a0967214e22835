"""Points near a toy's support and far from it, with their true distances: is |f(x) - x| the distance to the data?"""

from dataclasses import dataclass

import torch
from torch import Tensor

from naign_ext.data.dataset import Dataset
from naign_ext.evaluation.rows import cpu_generator

REACH = 6.0
# What stands in for the noise's standard deviation where a toy has none.
SLIVER = 0.05 / 3
_POINTS = 2000


@dataclass(frozen=True)
class FieldPoints:
    """Points (N, D) and their true distances (N,) to the noise-free support."""

    points: Tensor
    distance: Tensor


def noise_of(dataset: Dataset) -> float:
    """Standard deviation of the noise about the support, or a small stand-in where there is none."""
    return dataset.noise_std or SLIVER


def near_points(dataset: Dataset, seed: int) -> FieldPoints:
    """At most 6 noise deviations off the support: true points, each moved by Gaussian noise of deviation
    U(0, 6 noise)."""
    assert dataset.support_distance is not None
    rng = cpu_generator(seed)
    # Another draw than the one that samples are compared with.
    clean = _true_points(dataset, seed + 2 * 7919)
    reach = REACH * noise_of(dataset)
    points = clean + reach * torch.rand(len(clean), 1, generator=rng) * torch.randn(
        clean.shape, generator=rng
    )
    distance = dataset.support_distance(points)
    return FieldPoints(points[distance <= reach], distance[distance <= reach])


def far_points(dataset: Dataset, seed: int) -> FieldPoints:
    """More than 6 noise deviations off the support: uniform in the training data's box, each side 1.5 times as long."""
    assert dataset.support_distance is not None
    low, high = dataset.train.amin(dim=0).cpu(), dataset.train.amax(dim=0).cpu()
    centre, half = (low + high) / 2, 0.75 * (high - low)
    uniform = 2 * torch.rand(_POINTS, len(low), generator=cpu_generator(seed + 1)) - 1
    points = centre + half * uniform
    distance = dataset.support_distance(points)
    outside = distance > REACH * noise_of(dataset)
    return FieldPoints(points[outside], distance[outside])


def _true_points(dataset: Dataset, seed: int) -> Tensor:
    if dataset.sample_truth is not None:
        return dataset.sample_truth(_POINTS, seed)
    return dataset.train[:_POINTS].cpu()
