"""The validation score: its parts, and what it prefers."""

import pytest
import torch

from naign_ext.data import load_dataset
from naign_ext.latents import LatentPool
from naign_ext.training.validation import POOL, validate


def test_parts_are_what_they_say():
    rng = torch.Generator().manual_seed(0)
    train, heldout = (torch.randn(n, 3, generator=rng) for n in (50, 20))
    metrics = validate(lambda x: 0.05 * x, train, heldout, 2.0, seed=4)
    samples = 0.05 * LatentPool((3,), 2.0, 4).chunk(0, POOL)
    squared = torch.cdist(torch.cat([train, heldout]), samples).square() / 3
    assert metrics["fixed_point"] == pytest.approx((0.95 * heldout).square().mean().item(), rel=1e-5)
    assert metrics["imle"] == pytest.approx(squared.amin(1).mean().item(), rel=1e-4)
    assert metrics["projection"] == pytest.approx(squared.amin(0).mean().item(), rel=1e-4)
    nearest = torch.cdist(samples, train).argmin(1)
    assert metrics["coverage"] == len(nearest.unique()) / 50
    assert 0 < metrics["coverage"] < 1
    errors = sum(metrics[k] for k in ("fixed_point", "imle", "projection"))
    assert metrics["score"] == pytest.approx(errors / metrics["coverage"])
    assert validate(lambda x: 0.05 * x, train, heldout, 2.0, seed=4) == metrics


def test_without_heldout_data_training_data_stand_in():
    train = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    metrics = validate(lambda x: 0.5 * x, train, train[:0], 1.0, seed=4)
    assert metrics["fixed_point"] == pytest.approx((0.5 * train).square().mean().item(), rel=1e-5)


def test_samples_in_one_place_cover_one_row():
    train = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    metrics = validate(lambda x: 0 * x + train[7], train, train, 1.0, seed=4)
    assert metrics["coverage"] == 1 / 50
    errors = sum(metrics[k] for k in ("fixed_point", "imle", "projection"))
    assert metrics["score"] == pytest.approx(50 * errors)


def test_projector_beats_identity_and_collapse():
    dataset = load_dataset("8gaussians")

    def project(x):
        return dataset.modes[torch.cdist(x, dataset.modes).argmin(1)]

    def score(f):
        return validate(f, dataset.train, dataset.heldout, 2.0, seed=0)["score"]

    best = score(project)
    assert best < 0.5 * score(lambda x: x)
    assert best < 0.1 * score(lambda x: dataset.modes[:1].expand(len(x), -1))
    assert best < 0.1 * score(torch.zeros_like)
