"""Restorers without a network, and their place among the baselines."""

import torch

from naign_ext.data import load_dataset
from naign_ext.evaluation import Condition, evaluate, gain
from naign_ext.evaluation.classical import best_tv_weight, denoise_tv, inpaint
from naign_ext.transforms import corrupt


def test_total_variation_removes_noise():
    data = load_dataset("digits")
    clean = data.heldout[:40]
    noisy = corrupt(clean, "noise", seed=0, strength=0.5)[0]
    assert torch.equal(denoise_tv(noisy, 0.0), noisy)
    train = data.train[:30]
    weight = best_tv_weight(train, corrupt(train, "noise", seed=1, strength=0.5)[0])
    assert gain(clean, noisy, denoise_tv(noisy, weight)) > 1.0
    assert best_tv_weight(train, train) == 0.0


def test_inpainting_fills_a_ramp_and_changes_nothing_else():
    ramp = torch.linspace(-0.8, 0.8, 16).expand(2, 3, 16, 16).contiguous()
    lost = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    lost[:, :, 5:9, 6:11] = True
    filled = inpaint(ramp.masked_fill(lost, 0.0), lost)
    torch.testing.assert_close(filled, ramp, atol=1e-3, rtol=0)
    assert torch.equal(filled[~lost.expand_as(ramp)], ramp[~lost.expand_as(ramp)])


def test_evaluation_measures_them_beside_f():
    found = evaluate(torch.nn.Identity(), load_dataset("digits").for_test(), metrics=["gain"], samples=200)
    noise, strong, blurred = Condition("noise", 0.5), Condition("noise", 1.0), Condition("blur")
    assert found.value("gain", "tv", noise) > 1.0
    assert found.value("gain", "nearest", strong) > found.value("gain", "nearest", blurred)
    assert set(found.baselines("gain", blurred)) == {"filter", "nearest"}
    assert set(found.baselines("gain", Condition("mask", known=True))) == {"inpaint"}
    assert found.value("gain", "f", noise) == 0.0
    # The mean over shifts, at whose edges pixels are repeated, is a filter of its own.
    assert 0.0 <= found.value("gain", "f at its best", noise) < 1.0
