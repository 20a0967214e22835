"""Coverage, precision and recall, modes: small sets whose answers are counted by hand."""

import pytest
import torch

from naign_ext.evaluation import authenticity, mode_coverage, near_copies, prdc, train_coverage


def column(*values):
    return torch.tensor(values, dtype=torch.float32)[:, None]


def test_train_coverage_counts_reached_rows():
    train = column(0, 1, 2, 3)
    assert train_coverage(train, column(0.1, -5, 0.2)) == 0.25
    assert train_coverage(train, column(0.1, 2.9)) == 0.5
    assert train_coverage(train, train + 0.4) == 1.0


def test_authenticity_is_low_for_copies():
    train = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    fresh = torch.randn(500, 3, generator=torch.Generator().manual_seed(1))
    assert authenticity(train, train + 1e-4) == 0.0
    assert authenticity(train, fresh) > 0.4


def test_near_copies_are_three_times_as_near_to_one_row():
    train = column(0, 4, 100)
    # At 0.9 and 3.2 the next row is 3.4 and 4 times as far; at 1.1 and 2 it is 2.6 times as far and as far.
    assert near_copies(train, column(0.9, 3.2, 1.1, 2)) == 0.5
    assert near_copies(train, train) == 1.0
    assert near_copies(train, column(-0.5), ratio=0.1) == 0.0
    with pytest.raises(ValueError, match="train: expected at least 2 rows"):
        near_copies(train[:1], train)


def test_prdc_by_hand():
    real = column(0, 1, 2, 10)
    samples = column(0.5, 0.6, 1.5, 100)
    found = prdc(real, samples, k=1)
    # Radii of the real rows: 1, 1, 1, 8. Of the samples: .1, .1, .9, 98.5.
    # Balls of real rows that hold the samples: .5 and .6 in those of 0 and 1; 1.5 in those of 1 and 2; 100 in none.
    assert found.precision == 0.75
    assert found.density == pytest.approx(6 / 4)
    assert found.coverage == 0.75
    # 1 and 2 lie in the ball of 1.5, 2 and 10 in that of 100 (1.5 to 198.5), 0 in none.
    assert found.recall == 0.75


def test_prdc_of_equal_sets_is_perfect_and_of_distant_sets_zero():
    real = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    same = prdc(real, real.clone())
    assert (same.precision, same.recall, same.coverage) == (1.0, 1.0, 1.0)
    far = prdc(real, real + 100)
    assert (far.precision, far.recall, far.density, far.coverage) == (0.0, 0.0, 0.0, 0.0)


def test_modes_need_a_share_of_the_samples():
    modes = column(-4, 0, 4)
    samples = torch.cat([column(*[-4.0] * 60), column(*[0.1] * 39), column(4.0)])
    found = mode_coverage(samples, modes, 0.2)
    assert found.covered == 2
    assert found.high_quality == 1.0
    torch.testing.assert_close(found.shares, torch.tensor([0.6, 0.39, 0.01]))
    assert mode_coverage(samples, modes, 0.2, min_share=0.0).covered == 3


def test_high_quality_is_within_the_radius():
    modes = torch.zeros(1, 2)
    samples = torch.tensor([[0.3, 0.0], [0.0, 0.39], [0.41, 0.0], [9.0, 0.0]])
    assert mode_coverage(samples, modes, 0.1, sigmas=4).high_quality == 0.5
    assert mode_coverage(samples, modes, 0.1, sigmas=5).high_quality == 0.75


def test_normal_draws_have_the_normal_share():
    draws = 0.2 * torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0))
    share = mode_coverage(draws, torch.zeros(1, 1), 0.2, sigmas=1).high_quality
    assert share == pytest.approx(0.6827, abs=0.01)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: train_coverage(torch.ones(3, 2), torch.ones(3, 1)), "train D = 2, samples D = 1"),
        (lambda: train_coverage(torch.ones(0, 2), torch.ones(3, 2)), "train: expected at least 1 rows"),
        (lambda: prdc(torch.ones(4, 2), torch.ones(9, 2), k=5), "real: expected at least 6 rows"),
        (lambda: mode_coverage(torch.ones(4, 2), torch.ones(2, 2), 0.0), "mode_std: expected a positive"),
        (lambda: mode_coverage(torch.ones(4, 2), torch.ones(2, 2), 1.0, sigmas=-1), "sigmas: expected"),
    ],
)
def test_errors_name_the_argument(call, text):
    with pytest.raises(ValueError, match=text):
        call()
