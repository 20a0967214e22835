"""Feature Likelihood Divergence: against the authors' figures, against autograd, and its edge cases."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from reference.feature_sets import feature_sets

from naign_ext.evaluation import fld
from naign_ext.evaluation.fld import (
    FldScorer,
    _log_densities,
    _loss_and_gradients,
    fit_log_variances,
    mixture_nll,
    squared_distances,
)

# Figures of other implementations on the same sets; reference/make_figures.py wrote them.
REFERENCE = json.loads((Path(__file__).parent / "reference" / "figures.json").read_text())
SETS = feature_sets()


def normal(rows, columns, seed, scale=1.0):
    return scale * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_gradients_are_those_of_autograd():
    rows, centres = normal(40, 5, 0), normal(30, 5, 1)
    distances = squared_distances(rows, centres)
    to_middle = squared_distances(rows, rows.mean(0, keepdim=True))
    log_variance = normal(30, 1, 2)[:, 0].requires_grad_()
    background = torch.tensor([0.3], requires_grad=True)
    mixture = _log_densities(distances, log_variance, 5) - math.log(30)
    broad = _log_densities(to_middle, background, 5)
    expected = -torch.cat([mixture, broad], 1).logsumexp(1).mean() / 5
    expected.backward()
    with torch.no_grad():
        loss, gradient, broad_gradient = _loss_and_gradients(
            distances, log_variance, to_middle, background, 5
        )
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(gradient, log_variance.grad, rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(broad_gradient, background.grad, rtol=1e-4, atol=1e-8)


def test_likelihood_is_that_of_the_mixture():
    centres, fit_to, judged = normal(6, 3, 0), normal(50, 3, 1), normal(20, 3, 2)
    variance = fit_log_variances(centres, fit_to).exp()
    gaussians = [
        torch.distributions.MultivariateNormal(c, v * torch.eye(3))
        for c, v in zip(centres, variance, strict=True)
    ]
    log_p = torch.stack([g.log_prob(judged) for g in gaussians], 1).logsumexp(1) - math.log(6)
    assert mixture_nll(centres, fit_to, judged) == pytest.approx(-log_p.mean().item() / 3, rel=1e-5)


@pytest.mark.parametrize("name", ["gaussian", "digits", "faces"])
def test_agrees_with_the_authors_implementation(name):
    expected, rows = REFERENCE["sets"][name], SETS[name]
    train, heldout, samples = (torch.from_numpy(r) for r in (rows.train, rows.heldout, rows.samples))
    found = fld(train, heldout, samples, baseline=1.0)
    assert found == pytest.approx(expected["fld_at_baseline_1"], abs=1e-3)
    assert found == pytest.approx(expected["fld_at_baseline_1_float32"], abs=0.1)
    copies = fld(train, heldout, train.clone(), baseline=1.0)
    assert copies == pytest.approx(expected["fld_at_baseline_1_of_copies"], rel=1e-4)
    scorer = FldScorer(train, heldout, size=len(samples), baseline=1.0)
    for seed, value in enumerate(expected["baseline_nll"]):
        order = torch.from_numpy(np.random.RandomState(seed).permutation(len(train)))
        assert scorer.halved_nll(order, len(samples)) == pytest.approx(value, abs=1e-5)


def test_the_baseline_is_near_the_authors():
    for name, rows in SETS.items():
        train, heldout = torch.from_numpy(rows.train), torch.from_numpy(rows.heldout)
        found = FldScorer(train, heldout, size=len(rows.samples)).baseline
        authors = torch.tensor(REFERENCE["sets"][name]["baseline_nll"])
        assert abs(found - authors.mean().item()) < 3 * authors.std().item() + 1e-3


def two_modes(rows, seed, sides=(-1.0, 1.0), noise=0.1):
    rng = torch.Generator().manual_seed(seed)
    side = torch.tensor(sides)[torch.randint(len(sides), (rows,), generator=rng)]
    return side[:, None] + noise * torch.randn(rows, 6, generator=rng)


def test_fresh_data_score_near_zero_and_worse_samples_higher():
    train, heldout = two_modes(600, 0), two_modes(300, 1)
    fresh = fld(train, heldout, two_modes(300, 2))
    assert abs(fresh) < 5
    assert fld(train, heldout, two_modes(300, 3, sides=(1.0,))) > fresh + 20
    assert fld(train, heldout, two_modes(300, 4, noise=1.0)) > fresh + 20


def test_copies_of_training_data_score_huge_but_finite():
    train, heldout = normal(60, 6, 0), normal(30, 6, 1)
    value = fld(train, heldout, train.clone())
    assert math.isfinite(value)
    assert value > 1e6


def test_equal_samples_score_finite():
    value = fld(two_modes(60, 0), two_modes(30, 1), torch.zeros(100, 6))
    assert math.isfinite(value)
    assert value > 20


def test_constant_dimensions_change_nothing():
    sets = [normal(60, 6, 0), normal(30, 6, 1), normal(50, 6, 2)]
    padded = [torch.cat([s, torch.full((len(s), 2), 0.1)], 1) for s in sets]
    assert fld(*padded) == pytest.approx(fld(*sets), abs=1e-4)


def test_scale_and_shift_of_the_features_change_nothing():
    sets = [normal(60, 6, 0), normal(30, 6, 1), normal(50, 6, 2)]
    factors = torch.tensor([0.01, 1, 100, 3, 7, 0.5])
    assert fld(*(s * factors + 3 for s in sets)) == pytest.approx(fld(*sets), abs=0.05)


def test_the_caller_may_hold_gradients_off():
    sets = [normal(60, 6, 0), normal(30, 6, 1), normal(50, 6, 2)]
    expected = fld(*sets)
    with torch.no_grad():
        assert fld(*sets) == expected
    with torch.inference_mode():
        assert fld(*(s + 0 for s in sets)) == pytest.approx(expected, abs=1e-4)


def test_distances_computed_in_batches_give_the_same(monkeypatch):
    sets = [normal(300, 6, 0), normal(30, 6, 1), normal(50, 6, 2)]
    expected = fld(*sets)
    module = sys.modules["naign_ext.evaluation.fld"]
    monkeypatch.setattr(module, "KEPT_DISTANCES", 0)
    monkeypatch.setattr(module, "DISTANCE_BLOCK_ELEMENTS", 100)
    assert fld(*sets) == pytest.approx(expected, abs=1e-3)


def test_same_seed_same_value_and_images_are_flattened():
    train, heldout, samples = (normal(n, 12, i).view(n, 3, 2, 2) for i, n in enumerate((40, 20, 30)))
    value = fld(train, heldout, samples, seed=3)
    assert value == fld(train, heldout, samples, seed=3)
    assert value == fld(train.flatten(1), heldout.flatten(1), samples.flatten(1), seed=3)


def test_scorer_equals_single_calls():
    train, heldout = normal(60, 6, 0), normal(30, 6, 1)
    scorer = FldScorer(train, heldout, seed=1, size=50)
    for seed in (2, 3):
        samples = normal(50, 6, seed)
        assert scorer(samples) == fld(train, heldout, samples, seed=1)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"heldout": torch.ones(5, 4)}, ValueError, "heldout: expected rows that differ"),
        ({"samples": torch.ones(5, 3)}, ValueError, "samples: expected D = 4"),
        ({"heldout": torch.ones(5, 3)}, ValueError, "train D = 4, heldout D = 3"),
        ({"samples": torch.full((5, 4), torch.nan)}, ValueError, "samples: expected finite"),
        ({"train": torch.ones(1, 4)}, ValueError, "train: expected at least 2 rows"),
        ({"samples": torch.ones(5, 4, dtype=torch.int64)}, TypeError, "samples: expected a floating"),
        ({"samples": [1.0]}, TypeError, "samples: expected a torch.Tensor"),
        ({"splits": 0}, ValueError, "splits: expected 1 or more"),
    ],
)
def test_errors_name_the_argument(change, error, text):
    arguments = {"train": normal(10, 4, 0), "heldout": normal(5, 4, 1), "samples": normal(5, 4, 2), **change}
    with pytest.raises(error, match=text):
        fld(**arguments)
