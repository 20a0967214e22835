"""IGN: its loss and gradients against a case worked out by hand, the frozen copy, running statistics."""

import math

import pytest
import torch
from torch import nn

from naign_ext.latents import LatentPool
from naign_ext.objectives import Ign, IgnOptions, StepContext
from naign_ext.objectives.ign import apply_again
from naign_ext.transforms.batch import Batch

SEED = 3


class Scale(nn.Module):
    """f(x) = a x."""

    def __init__(self, a):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(float(a)))

    def forward(self, x):
        return self.a * x


def latents(count, shape=(1,), scale=1.0, step=0):
    pool = LatentPool(shape, scale, SEED)
    pool.draw = step
    return pool.chunk(0, count)


def ign(data, **options):
    return Ign(IgnOptions(**options), data, StepContext(SEED))


def loss_of(objective, f, step=0):
    """The loss of all data as one batch."""
    return objective.loss(f, Batch.of(objective.data, torch.arange(len(objective.data))), step)


def by_hand(a, x, z, clamp, through_clamp):
    """Terms and their derivatives in a for f(x) = a x, 0 < a < 1, norm l1, data and latents of one number."""
    terms, slopes = [], []
    terms.append((1 - a) * abs(x))
    slopes.append(-abs(x))
    # |a' a z - a z| = (1 - a') |a z| with a' constant.
    terms.append((1 - a) * a * abs(z))
    slopes.append((1 - a) * abs(z))
    # m = |b y - y| = (1 - b) |y| with y = a z constant and b = a: dm/da = -|y|.
    c, m = clamp * (1 - a) * abs(x), (1 - a) * a * abs(z)
    terms.append(-c * math.tanh(m / c))
    sech2 = 1 - math.tanh(m / c) ** 2
    slope = -sech2 * -a * abs(z)
    if through_clamp:
        slope += (-math.tanh(m / c) + m / c * sech2) * -clamp * abs(x)
    slopes.append(slope)
    return terms, slopes


@pytest.mark.parametrize("through_clamp", [True, False])
def test_loss_and_gradient_are_those_worked_out_by_hand(through_clamp):
    a, data = 0.7, torch.tensor([[2.0], [-0.5], [1.2]])
    f = Scale(a)
    objective = ign(data, tightness_clamp_gradient=through_clamp)
    loss = loss_of(objective, f, 4)
    z = latents(3, step=4)
    rows = [by_hand(a, float(x), float(n), 1.5, through_clamp) for x, n in zip(data, z, strict=True)]
    for i, name in enumerate(("reconstruction", "idempotence", "tightness")):
        expected = sum(terms[i] for terms, _ in rows) / 3
        assert loss.terms[name].item() == pytest.approx(expected, rel=1e-5)
    weights = (20.0, 20.0, 2.5)
    total = sum(w * t / 3 for terms, _ in rows for w, t in zip(weights, terms, strict=True))
    slope = sum(w * s / 3 for _, slopes in rows for w, s in zip(weights, slopes, strict=True))
    assert loss.total.item() == pytest.approx(total, rel=1e-5)
    loss.total.backward()
    assert f.a.grad.item() == pytest.approx(slope, rel=1e-4)
    assert not any(term.requires_grad for term in loss.terms.values())


def test_squares_and_weights():
    data = torch.tensor([[2.0], [-1.0]])
    objective = ign(data, norm="l2", reconstruction_weight=1, idempotence_weight=3, tightness_weight=0)
    loss = loss_of(objective, Scale(0.5), 0)
    z = latents(2)
    assert loss.terms["reconstruction"].item() == pytest.approx(0.25 * (4 + 1) / 2)
    assert loss.terms["idempotence"].item() == pytest.approx(0.0625 * z.square().mean().item(), rel=1e-5)
    total = loss.terms["reconstruction"] + 3 * loss.terms["idempotence"]
    assert loss.total.item() == pytest.approx(total.item(), rel=1e-6)


def test_the_frozen_copy_takes_no_gradient_and_lets_it_through():
    torch.manual_seed(0)
    f = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4))
    y = torch.randn(5, 4, requires_grad=True)
    assert torch.equal(apply_again(f, y, frozen=True), f(y))
    apply_again(f, y, frozen=True).square().sum().backward()
    assert all(p.grad is None for p in f.parameters())
    assert y.grad.abs().sum() > 0
    y.grad = None
    apply_again(f, y.detach(), frozen=False).square().sum().backward()
    assert all(p.grad is not None for p in f.parameters())
    assert y.grad is None


def test_tightness_does_not_reach_f_through_the_sample():
    """With f = B A and the sample made by A and B alike, tightness sees f's second application alone."""
    torch.manual_seed(1)
    data = torch.randn(6, 3)
    f = nn.Linear(3, 3, bias=False)
    only = {"reconstruction_weight": 1e-9, "idempotence_weight": 0, "tightness_weight": 1, "norm": "l2"}
    loss_of(ign(data, **only, tightness_clamp_gradient=False), f, 0).total.backward()
    got = f.weight.grad.clone()
    z = latents(6, (3,))
    w = f.weight.detach()
    y = z @ w.T
    residual = y @ w.T - y
    moved = residual.square().mean(dim=1, keepdim=True)
    clamp = 1.5 * (data @ w.T - data).square().mean(dim=1, keepdim=True)
    sech2 = 1 - torch.tanh(moved / clamp).square()
    expected = -(sech2 * 2 * residual / 3).T @ y / 6
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


def test_tightness_is_at_most_its_clamp():
    data = torch.tensor([[1.0], [1.0]])
    loss = loss_of(ign(data, latent_scale=1e4), Scale(0.9), 0)
    assert loss.terms["tightness"].item() == pytest.approx(-1.5 * 0.1, rel=1e-4)


def test_without_the_clamp_tightness_is_unbounded():
    data = torch.tensor([[1.0], [1.0]])
    loss = loss_of(ign(data, tightness_clamp=0, norm="l2", latent_scale=10), Scale(0.5), 0)
    moved = (0.25 * latents(2, scale=10)).square().mean().item()
    assert loss.terms["tightness"].item() == pytest.approx(-moved, rel=1e-5)


def test_a_perfect_reconstruction_gives_no_nan():
    loss = loss_of(ign(torch.ones(2, 1)), Scale(1.0), 0)
    loss.total.backward()
    assert loss.total.item() == 0.0


def test_running_statistics_are_those_of_the_first_application():
    torch.manual_seed(0)
    data = torch.randn(16, 4)
    f = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
    alone = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
    alone.load_state_dict(f.state_dict())
    loss_of(ign(data), f, 0).total.backward()
    alone(torch.cat([data, latents(16, (4,))]))
    for a, b in zip(f.buffers(), alone.buffers(), strict=True):
        torch.testing.assert_close(a, b)


def test_restoration_terms_count_relative_to_reconstruction():
    torch.manual_seed(0)
    data = torch.randn(12, 1, 8, 8)
    f = nn.Conv2d(1, 1, 3, padding=1)
    plain = loss_of(ign(data), f, 2)
    both = loss_of(ign(data, denoise_weight=0.5, restore_weight=0.25), f, 2)
    assert set(both.terms) - set(plain.terms) == {"denoise", "restore"}
    extra = 20 * (0.5 * both.terms["denoise"] + 0.25 * both.terms["restore"])
    assert both.total.item() == pytest.approx(plain.total.item() + extra.item(), rel=1e-5)


def test_a_step_repeats_and_steps_differ():
    data, f = torch.randn(8, 2), nn.Linear(2, 2)
    losses = [loss_of(ign(data), f, step).total.item() for step in (5, 5, 6)]
    assert losses[0] == losses[1] != losses[2]
