"""Grids, energies with known integrals, the fitted temperature, and the toys' true shares."""

import math

import pytest
import torch

from naign_ext.data import load_dataset
from naign_ext.evaluation.density import (
    Grid,
    density_shares,
    fit_bandwidth,
    fit_temperature,
    log_partition,
    total_variation,
    true_shares,
)


def normal(rows, columns, seed, scale=1.0):
    return scale * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).double()


def square(grid):
    return grid.points.square().sum(1)


def test_cells_and_points_fit():
    grid = Grid.over([(0.0, 2.0), (-1.0, 1.0)], [4, 2])
    assert grid.points[0].tolist() == [0.25, -0.5]
    assert grid.points[1].tolist() == [0.25, 0.5]
    assert torch.equal(grid.cells_of(grid.points), torch.arange(8))
    assert grid.cells_of(torch.tensor([[2.1, 0.0], [-0.1, 0.0], [1.9, -2.0]])).tolist() == [-1, -1, -1]
    assert grid.log_cell == pytest.approx(math.log(0.5 * 1.0))
    assert grid.histogram(torch.tensor([[0.1, -0.9], [0.2, -0.1], [1.9, 0.9]])).tolist() == pytest.approx(
        [2 / 3, 0, 0, 0, 0, 0, 0, 1 / 3]
    )


@pytest.mark.parametrize("dimensions", [1, 2])
def test_partition_of_a_quadratic_energy_is_gaussian(dimensions):
    grid = Grid.over([(-6.0, 6.0)] * dimensions, [300] * dimensions)
    # exp(-|x|^2 / T) integrates to (pi T)^(D/2).
    for temperature in (0.3, 1.0):
        expected = dimensions / 2 * math.log(math.pi * temperature)
        assert log_partition(square(grid), temperature, grid) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("dimensions", [1, 2])
def test_the_likeliest_temperature_is_twice_the_variance(dimensions):
    grid = Grid.over([(-6.0, 6.0)] * dimensions, [300] * dimensions)
    heldout = normal(500, dimensions, 0, 0.7)
    energy = heldout.square().sum(1)
    found = fit_temperature(square(grid), energy, grid)
    # E_T |x|^2 = D T / 2 must be the held-out mean.
    assert found == pytest.approx(2 * energy.mean().item() / dimensions, rel=1e-4)
    likelihood = lambda t: -energy.mean().item() / t - log_partition(square(grid), t, grid)  # noqa: E731
    assert likelihood(found) > max(likelihood(0.95 * found), likelihood(1.05 * found))


def test_the_temperature_stays_where_the_grid_can_see_it():
    grid = Grid.over([(-1.0, 1.0)], [100])
    assert fit_temperature(square(grid), torch.zeros(5), grid) == pytest.approx((2 * 0.02) ** 2)
    with pytest.raises(ValueError, match="heldout_energy: expected at least 1"):
        fit_temperature(square(grid), torch.zeros(0), grid)
    with pytest.raises(ValueError, match="heldout_energy: expected finite"):
        fit_temperature(square(grid), torch.tensor([torch.nan]), grid)


def test_shares_and_their_distance():
    grid = Grid.over([(-6.0, 6.0)], [600])
    narrow = density_shares(square(grid), 0.5)
    assert narrow.sum().item() == pytest.approx(1)
    assert total_variation(narrow, narrow) == 0
    assert total_variation(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])) == 1
    # N(0, 1) against N(1, 1): 2 Phi(1/2) - 1.
    unit, shifted = (density_shares((grid.points[:, 0] - centre).square(), 2.0) for centre in (0.0, 1.0))
    assert total_variation(unit, shifted) == pytest.approx(math.erf(0.5 / 2**0.5), abs=1e-4)
    with pytest.raises(ValueError, match="p, q: expected equal shapes"):
        total_variation(unit, shifted[:5])


def test_log_density_reads_the_cells():
    grid = Grid.over([(-6.0, 6.0)], [1200])
    unit = density_shares(square(grid), 2.0)
    x = torch.tensor([[0.0], [1.0], [7.0]])
    found = grid.log_density(unit, x)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(x[:2, 0]).double()
    torch.testing.assert_close(found[:2], expected, rtol=0, atol=0.01)
    assert found[2].item() == -math.inf


def test_blurring_adds_variance():
    grid = Grid.over([(-6.0, 6.0), (-6.0, 6.0)], [200, 100])
    point = torch.zeros(grid.points.shape[0], dtype=torch.float64)
    point[grid.cells_of(torch.tensor([[0.03, 0.06]]))] = 1
    spread = grid.blurred(point, 0.8)
    variance = (spread[:, None] * grid.points.square()).sum(0)
    torch.testing.assert_close(variance, torch.full_like(variance, 0.64), rtol=0.02, atol=0)


def test_bandwidth_follows_the_data():
    grid = Grid.over([(-5.0, 5.0)], [1000])
    many, few = (fit_bandwidth(grid, normal(n, 1, 0), normal(500, 1, 1)) for n in (5000, 50))
    assert many < few
    assert 0.05 < few < 1


@pytest.mark.parametrize("name", ["trimodal1d", "8gaussians", "moons", "checkerboard"])
def test_true_shares_are_those_of_draws(name):
    dataset = load_dataset(name)
    low, high = dataset.train.amin(0) - 0.5, dataset.train.amax(0) + 0.5
    box = list(zip(low.tolist(), high.tolist(), strict=True))
    fine = Grid.over(box, [240] * len(box))
    coarse = Grid.over(box, [24] * len(box))
    truth = true_shares(dataset, fine)
    assert truth.sum().item() == pytest.approx(1)
    seen = torch.zeros(len(coarse.points), dtype=torch.float64)
    seen.index_add_(0, coarse.cells_of(fine.points), truth)
    drawn = coarse.histogram(dataset.sample_truth(200_000, 1))
    assert total_variation(seen, drawn) < 0.02


def test_data_without_a_known_truth_have_none():
    digits = load_dataset("digits")
    assert true_shares(digits, Grid.over([(0.0, 1.0)], [4])) is None
