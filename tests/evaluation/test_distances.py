"""Distances between distributions: closed forms, scipy, and the axioms."""

import numpy as np
import pytest
import torch
from scipy import stats

from naign_ext.evaluation import energy_distance, sliced_wasserstein2, wasserstein2
from naign_ext.evaluation.correlation import ranks, spearman


def normal(rows, columns, seed, scale=1.0):
    return scale * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_energy_distance_of_two_points():
    assert energy_distance(torch.zeros(1, 1), torch.full((1, 1), 3.0)) == pytest.approx(6.0)


def test_energy_distance_in_one_dimension_is_scipys_squared():
    x, y = normal(200, 1, 0), normal(300, 1, 1, 2.0) + 1
    expected = stats.energy_distance(x[:, 0].numpy(), y[:, 0].numpy()) ** 2
    assert energy_distance(x, y) == pytest.approx(expected, rel=1e-4)


def test_distances_of_a_set_to_itself_are_zero():
    x = normal(200, 3, 0)
    shuffled = x[torch.randperm(200, generator=torch.Generator().manual_seed(1))]
    assert energy_distance(x, shuffled) == pytest.approx(0.0, abs=1e-12)
    assert wasserstein2(x, shuffled) == 0.0
    assert sliced_wasserstein2(x, shuffled) == pytest.approx(0.0, abs=1e-7)


def test_shift_moves_w2_by_its_length():
    x = normal(300, 2, 0)
    shift = torch.tensor([3.0, 4.0])
    assert wasserstein2(x, x + shift) == pytest.approx(5.0, rel=1e-5)
    # E over directions of (u . shift)^2 = |shift|^2 / D, with 2000 directions.
    assert sliced_wasserstein2(x, x + shift, projections=2000) == pytest.approx(5 / 2**0.5, rel=0.03)


def test_sliced_w2_in_one_dimension_is_w2_also_for_unequal_sizes():
    x, y = normal(60, 1, 0), normal(60, 1, 1, 2.0)
    assert sliced_wasserstein2(x, y) == pytest.approx(wasserstein2(x, y), rel=1e-5)
    repeated = y.repeat_interleave(3, dim=0)
    assert sliced_wasserstein2(x, repeated) == pytest.approx(wasserstein2(x, y), rel=1e-5)


def test_sliced_w2_of_unequal_sizes_by_hand():
    # F^-1 differs by 1 on [0, 1/3), by 0 on [1/3, 1/2), by 1 on [1/2, 2/3), by 2 on [2/3, 1).
    x = torch.tensor([[0.0], [1.0], [2.0]])
    y = torch.tensor([[1.0], [1.0], [0.0], [0.0]])
    levels = [(1 / 3, 0 - 0), (1 / 6, 1 - 0), (1 / 6, 1 - 1), (1 / 3, 2 - 1)]
    expected = sum(width * gap**2 for width, gap in levels) ** 0.5
    assert sliced_wasserstein2(x, y) == pytest.approx(expected, rel=1e-6)


def test_w2_of_gaussians_has_its_closed_form():
    x, y = normal(1000, 1, 0), normal(1000, 1, 1, 3.0) + 2
    # W2^2 = (mean difference)^2 + (deviation difference)^2
    assert wasserstein2(x, y) == pytest.approx((2**2 + 2**2) ** 0.5, rel=0.06)


def test_caps_and_seeds():
    x, y = normal(500, 2, 0), normal(400, 2, 1) + 5
    assert wasserstein2(x, y, max_points=50, seed=1) == wasserstein2(x, y, max_points=50, seed=1)
    assert wasserstein2(x, y, max_points=50) == pytest.approx(wasserstein2(x, y), rel=0.1)
    assert energy_distance(x, y, max_points=50) == pytest.approx(energy_distance(x, y), rel=0.1)


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="x D = 2, y D = 3"):
        energy_distance(torch.ones(4, 2), torch.ones(4, 3))
    with pytest.raises(ValueError, match="projections: expected 1 or more"):
        sliced_wasserstein2(torch.ones(4, 2), torch.ones(4, 2), projections=0)
    with pytest.raises(ValueError, match="y: expected finite"):
        wasserstein2(torch.ones(4, 2), torch.full((4, 2), torch.inf))


def test_ranks_share_ties():
    assert ranks(torch.tensor([3.0, 1.0, 3.0, 2.0])).tolist() == [2.5, 0.0, 2.5, 1.0]


def test_spearman_is_scipys():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 10, 100).astype(float), rng.normal(size=100)
    y += 0.2 * x
    expected = stats.spearmanr(x, y).statistic
    assert spearman(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(expected, abs=1e-12)
    assert spearman(torch.ones(5), torch.arange(5.0)) == 0.0
    with pytest.raises(ValueError, match="equal length"):
        spearman(torch.ones(5), torch.ones(4))
