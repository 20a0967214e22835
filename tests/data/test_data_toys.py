"""Toy distributions: their parameters are what the draws show."""

import json
import math

import pytest
import torch

from naign_ext.data import load_dataset
from naign_ext.data.toys import TOYS, nearest_distance, sample_toy

MIXTURES = {"trimodal1d": (3, 0.2), "8gaussians": (8, 0.1), "grid25": (25, 0.05)}
CURVES = ["moons", "rings", "spirals", "swissroll"]


@pytest.mark.parametrize("name", TOYS)
def test_shapes_and_determinism(name):
    data, again, other = load_dataset(name), load_dataset(name), load_dataset(name, seed=1)
    dimension = 1 if name == "trimodal1d" else 2
    assert data.kind == "vector"
    assert data.sample_shape == (dimension,)
    assert data.train.shape == data.heldout.shape == data.ood.shape == (2000, dimension)
    for part in ("train", "heldout", "ood"):
        values = getattr(data, part)
        assert values.dtype == torch.float32
        assert torch.equal(values, getattr(again, part))
        assert not torch.equal(values, getattr(other, part))
    assert json.loads(json.dumps(data.parameters)) == data.parameters
    assert data.licence is None


@pytest.mark.parametrize("name", TOYS)
def test_fresh_truth_repeats_by_seed_and_is_no_copy_of_the_training_rows(name):
    data = load_dataset(name)
    assert torch.equal(data.sample_truth(100, 7), data.sample_truth(100, 7))
    assert not torch.equal(data.sample_truth(100, 7), data.sample_truth(100, 8))
    fresh = data.sample_truth(2000, 0)
    seen = {row.numpy().tobytes() for row in torch.cat((data.train, data.heldout))}
    assert not seen & {row.numpy().tobytes() for row in fresh}


@pytest.mark.parametrize("name", MIXTURES)
def test_mixtures_have_their_modes_weights_and_width(name):
    count, std = MIXTURES[name]
    data = load_dataset(name)
    assert data.modes.shape == (count, data.sample_shape[0])
    assert data.mode_std == data.noise_std == std
    draws = data.sample_truth(40_000, 0)
    owner = torch.cdist(draws, data.modes).argmin(1)
    share = torch.bincount(owner, minlength=count) / len(draws)
    # 5 standard deviations of a share and of a mean; a sixth per cent on the width.
    assert (share - 1 / count).abs().max() < 5 * math.sqrt(1 / count / len(draws))
    for k in range(count):
        mine = draws[owner == k] - data.modes[k]
        assert mine.mean(0).abs().max() < 5 * std / math.sqrt(len(mine))
    residual = draws - data.modes[owner]
    assert residual.std().item() == pytest.approx(std, rel=0.02)


def test_trimodal_modes_are_at_plus_minus_four_and_zero():
    assert load_dataset("trimodal1d").modes.flatten().tolist() == [-4, 0, 4]


def test_eight_gaussians_lie_on_a_circle_of_radius_two():
    modes = load_dataset("8gaussians").modes
    torch.testing.assert_close(modes.norm(dim=1), torch.full((8,), 2.0))
    neighbours = torch.cdist(modes, modes).fill_diagonal_(9).amin(1)
    torch.testing.assert_close(neighbours, torch.full((8,), 4 * math.sin(math.pi / 8)))


@pytest.mark.parametrize("name", MIXTURES)
def test_modes_are_too_far_apart_to_share_a_high_quality_point(name):
    data = load_dataset(name)
    nearest = torch.cdist(data.modes, data.modes).fill_diagonal_(float("inf")).min()
    assert nearest > 15 * data.mode_std


@pytest.mark.parametrize("name", CURVES)
def test_curves_carry_noise_of_the_stated_width(name):
    data = load_dataset(name)
    assert data.modes is None
    distance = data.support_distance(data.sample_truth(8000, 0))
    # The offset across a smooth curve is |N(0, noise^2)|, so its mean square is noise^2, less a little where a
    # draw lies past an end or bend.
    assert distance.square().mean().sqrt().item() == pytest.approx(data.noise_std, rel=0.05)
    assert (distance < 4 * data.noise_std).float().mean() > 0.999


def test_moons_ends_and_tops_are_on_the_support():
    distance = load_dataset("moons").support_distance
    on = torch.tensor([[0.5, -0.25], [-1.5, -0.25], [-0.5, 0.75], [0.5, -0.75], [1.5, 0.25]])
    assert distance(on).max() < 1e-3
    # The upper moon's centre is sqrt(1.25) from the lower one's, whose radius is 1.
    assert distance(torch.tensor([[-0.5, -0.25]])).item() == pytest.approx(math.sqrt(1.25) - 1, abs=1e-3)


def test_rings_have_equal_shares_of_radius_one_and_two():
    data = load_dataset("rings")
    draws = data.sample_truth(20_000, 0)
    outer = draws.norm(dim=1) > 1.5
    assert outer.float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert draws[outer].norm(dim=1).mean().item() == pytest.approx(2, abs=0.01)
    assert draws[~outer].norm(dim=1).mean().item() == pytest.approx(1, abs=0.01)


def test_spirals_have_two_mirrored_arms():
    data = load_dataset("spirals")
    on = torch.tensor([[-2.0, 0.0], [2.0, 0.0]])
    assert data.support_distance(on).max() < 1e-3
    draws = data.sample_truth(4000, 0)
    assert draws.mean(0).abs().max() < 0.1
    torch.testing.assert_close(data.support_distance(draws), data.support_distance(-draws), atol=1e-3, rtol=0)


def test_checkerboard_fills_every_second_square_evenly():
    data = load_dataset("checkerboard")
    draws = data.sample_truth(40_000, 0)
    cells = draws.floor().to(torch.int64)
    assert (cells.sum(1) % 2 == 0).all()
    assert cells.min() == -2
    assert cells.max() == 1
    shares = torch.unique(cells, dim=0, return_counts=True)[1] / len(draws)
    assert len(shares) == 8
    assert (shares - 1 / 8).abs().max() < 0.01
    assert data.support_distance(draws).max() == 0
    inside, corner = torch.tensor([[-0.5, 0.5]]), torch.tensor([[3.0, 3.0]])
    assert data.support_distance(inside).item() == pytest.approx(0.5)
    assert data.support_distance(corner).item() == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize("name", TOYS)
def test_ood_rows_keep_their_margin_and_cover_the_box(name):
    data = load_dataset(name)
    margin = TOYS[name].ood_margin
    assert data.support_distance(data.ood).min() >= margin
    # The noise reaches this far once in two million rows, or never.
    assert data.support_distance(data.heldout).max() < max(margin, 1e-6)
    span = data.train.amax(0) - data.train.amin(0)
    assert ((data.ood.amax(0) - data.ood.amin(0)) > 1.2 * span).all()


def test_heldout_fraction_counts_fresh_rows():
    assert load_dataset("moons", heldout_fraction=0.2).heldout.shape == (500, 2)
    assert load_dataset("moons", heldout_fraction=0).heldout.shape == (0, 2)


def test_a_negative_count_is_refused():
    with pytest.raises(ValueError, match="n: expected the number of rows"):
        sample_toy("moons", -1, 0)


def test_nearest_distance_is_exact_over_chunks_and_empty_rows():
    points = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    x = torch.tensor([[0.0, 1.0], [3.0, 4.0], [6.0, 8.0]]).repeat(1000, 1)
    expected = torch.tensor([1.0, 0.0, 5.0]).repeat(1000)
    assert torch.equal(nearest_distance(points, x), expected)
    assert nearest_distance(points, torch.empty(0, 2)).shape == (0,)
