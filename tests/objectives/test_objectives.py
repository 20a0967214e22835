"""The NAIGN objective: matches, terms, gradients, memory."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from naign_ext import fused_loss
from naign_ext.latents import LatentPool
from naign_ext.objectives import OBJECTIVES, Imle, ImleOptions, Naign, NaignOptions, StepContext, restoration
from naign_ext.objectives import naign as naign_module
from naign_ext.objectives.matchers import build_matcher, sample_in_evaluation
from naign_ext.objectives.naign import nearest_data
from naign_ext.objectives.restoration import add_noise
from naign_ext.seeds import derive_seed
from naign_ext.transforms.batch import Batch

SEED = 5


def network(size=6, normalise=False):
    torch.manual_seed(0)
    middle = nn.BatchNorm1d(16) if normalise else nn.Identity()
    return nn.Sequential(nn.Linear(size, 16), middle, nn.Tanh(), nn.Linear(16, size))


def points(count=40, size=6):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(1))


def naign(data, **options):
    return Naign(NaignOptions(**options), data, StepContext(SEED))


def run_loss(objective, f, rows, step=0):
    objective.prepare(f, step)
    return objective.loss(f, Batch.of(objective.data, rows), step)


def brute_force(f, data, options, draw):
    pool = LatentPool(data.shape[1:], options.latent_scale, SEED)
    pool.draw = draw
    z = pool.chunk(0, options.pool_size)
    y = sample_in_evaluation(f, z).double()
    return z, torch.cdist(data.double(), y, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)


@pytest.mark.parametrize("match", ["batch", "dataset"])
@pytest.mark.parametrize("normalise", [False, True])
def test_matched_pairs_are_those_of_brute_force(match, normalise):
    f, data = network(normalise=normalise), points()
    options = NaignOptions(match=match, pool_size=300, pool_chunk=70, latent_scale=1.5, resample_every=3)
    matcher = build_matcher(options, data, StepContext(SEED))
    rows = torch.tensor([3, 3, 17, 39, 0])
    for step in (0, 2, 3, 7):
        matcher.prepare(f, step)
        latents, admissible = matcher.latents(f, Batch.of(data, rows))
        z, nearest = brute_force(f, data, options, step // 3)
        assert torch.equal(latents, z[nearest[rows]])
        assert admissible.all()


@pytest.mark.parametrize("match", ["batch", "dataset"])
def test_chunk_size_does_not_change_a_bit(match):
    data, rows = points(), torch.arange(0, 40, 3)
    results = []
    for chunk in (1000, 64, 50, 7):
        f = network(normalise=True)
        loss = run_loss(naign(data, match=match, pool_size=200, pool_chunk=chunk), f, rows)
        loss.total.backward()
        results.append([loss.total.detach(), *[p.grad for p in f.parameters()], *f.buffers()])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_whole_set_match_is_kept_until_it_is_due():
    f, data = network(), points()
    objective = naign(data, match="dataset", pool_size=128, resample_every=4)
    objective.prepare(f, 0)
    first = objective.matcher.latents(f, Batch.of(data, torch.arange(40)))[0]
    with torch.no_grad():
        f[0].weight += 1.0
    objective.prepare(f, 3)
    assert torch.equal(objective.matcher.latents(f, Batch.of(data, torch.arange(40)))[0], first)
    objective.prepare(f, 4)
    assert (
        not torch.isclose(objective.matcher.latents(f, Batch.of(data, torch.arange(40)))[0], first)
        .all(dim=1)
        .any()
    )


def test_state_restores_a_match_that_the_network_has_left_behind():
    f, data, rows = network(), points(), torch.arange(40)
    objective = naign(data, match="dataset", pool_size=128, resample_every=10)
    objective.prepare(f, 20)
    kept = objective.matcher.latents(f, Batch.of(data, rows))[0]
    state = objective.state()
    with torch.no_grad():
        f[0].weight += 1.0
    restored = naign(data, match="dataset", pool_size=128, resample_every=10)
    restored.load_state(state)
    restored.prepare(f, 25)
    assert torch.equal(restored.matcher.latents(f, Batch.of(data, rows))[0], kept)


def test_terms_are_what_they_say():
    f, data = network(), points()
    objective = naign(
        data,
        pool_size=64,
        reconstruction_weight=2.0,
        imle_weight=3.0,
        projection_weight=0.3,
        projection_samples=20,
        denoise_weight=0.7,
        denoise_sigma=0.4,
        restore_weight=0.9,
        restore_kinds=("mask", "noise"),
        idempotence_weight=0.5,
        idempotence_ramp=10,
        foreign_weight=0.6,
        foreign_samples=12,
    )
    rows = torch.arange(10, 30)
    loss = run_loss(objective, f, rows, step=4)
    x = data[rows]
    z, nearest = brute_force(f, x, objective.options, draw=4)
    y = f(z[nearest])
    samples = f(z[:20])
    neighbours = data[torch.cdist(samples, data).argmin(1)]
    moved = f(objective.foreign.inputs(4))
    home = data[torch.cdist(moved, data).argmin(1)]
    expected = {
        "reconstruction": (f(x) - x).square().mean(),
        "imle": (y - x).square().mean(),
        "idempotence": (f(y) - y).square().mean(),
        "projection": (samples - neighbours).square().mean(),
        "foreign": (moved - home).square().mean(),
    }
    assert len(moved) == 12
    for name, value in expected.items():
        torch.testing.assert_close(loss.terms[name].double(), value.detach().double(), rtol=1e-5, atol=1e-7)
    weights = {"reconstruction": 2, "imle": 3, "projection": 0.3, "denoise": 0.7, "restore": 0.9}
    weights |= {"idempotence": 0.5 * 0.4, "foreign": 0.6}
    assert set(loss.terms) == set(weights)
    total = sum(weights[name] * loss.terms[name].item() for name in weights)
    assert loss.total.item() == pytest.approx(total, rel=1e-5)
    assert not any(t.requires_grad for t in [*loss.terms.values(), *loss.metrics().values()])
    assert loss.metrics()["non_identity"].item() == pytest.approx(
        (y - z[nearest]).square().mean().item(), 1e-5
    )


def test_all_terms_are_one_pass_over_memory(monkeypatch):
    weights = {
        f"{name}_weight": 0.5 for name in ("projection", "denoise", "restore", "idempotence", "foreign")
    }
    objective = naign(points(), pool_size=64, restore_kinds=("mask", "noise"), **weights)
    passes = []
    monkeypatch.setattr(
        naign_module,
        "fused_loss",
        lambda terms, **rest: passes.append(len(terms)) or fused_loss(terms, **rest),
    )
    assert len(run_loss(objective, network(), torch.arange(8), step=1).terms) == 7
    assert passes == [7]


def test_foreign_inputs_are_new_at_every_step_and_the_same_again_at_the_same():
    def wide():
        return naign(points(), pool_size=64, foreign_weight=1.0, foreign_kinds=("wide",))

    objective = wide()
    first, second = objective.foreign.inputs(1), objective.foreign.inputs(2)
    assert not torch.equal(first, second)
    assert torch.equal(
        first, naign(points(), pool_size=64, foreign_weight=1.0, foreign_kinds=("wide",)).foreign.inputs(1)
    )
    with pytest.raises(ValueError, match=r"foreign_kinds: expected of box, wide for vectors, got 'turned'"):
        naign(points(), pool_size=64, foreign_weight=1.0, foreign_kinds=("turned",))


def test_without_optional_terms_it_is_the_papers_objective():
    loss = run_loss(naign(points(), pool_size=64), network(), torch.arange(8))
    assert set(loss.terms) == {"reconstruction", "imle"}
    assert loss.total.item() == pytest.approx(sum(t.item() for t in loss.terms.values()), rel=1e-6)


def test_norm_l1_is_the_mean_absolute_error():
    f, data = network(), points()
    loss = run_loss(naign(data, pool_size=64, norm="l1"), f, torch.arange(8))
    assert loss.terms["reconstruction"].item() == pytest.approx(
        (f(data[:8]) - data[:8]).abs().mean().item(), rel=1e-5
    )


def test_projection_gradient_does_not_flow_into_the_neighbour():
    data = points().requires_grad_()
    samples = (points(9) * 0.5).requires_grad_()
    neighbours = nearest_data(samples, data)
    assert not neighbours.requires_grad
    (samples - neighbours).square().mean().backward()
    assert data.grad is None
    torch.testing.assert_close(samples.grad, 2 * (samples - neighbours).detach() / samples.numel())


def test_gradient_reaches_f_through_the_matched_samples_only_once():
    f, data = network(), points()
    objective = naign(data, pool_size=64, reconstruction_weight=0.0)
    rows = torch.arange(12)
    run_loss(objective, f, rows).total.backward()
    got = [p.grad.clone() for p in f.parameters()]
    z, nearest = brute_force(f, data[rows], objective.options, 0)
    f.zero_grad()
    (f(z[nearest]) - data[rows]).square().mean().backward()
    for a, p in zip(got, f.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, rtol=1e-4, atol=1e-6)


def test_pool_does_not_touch_running_statistics_or_mode():
    f, data = network(normalise=True), points()
    f.train()
    matcher = build_matcher(NaignOptions(pool_size=500), data, StepContext(SEED))
    before = [b.clone() for b in f.buffers()]
    matcher.prepare(f, 0)
    matcher.latents(f, Batch.of(data, torch.arange(10)))
    assert f.training
    assert all(torch.equal(a, b) for a, b in zip(before, f.buffers(), strict=True))


def test_rejected_rows_contribute_nothing():
    f, data = network(), points()
    objective = naign(data, pool_size=16, reject_below=1e6, reconstruction_weight=0.0)
    loss = run_loss(objective, f, torch.arange(10))
    assert loss.total.item() == 0.0
    loss.total.backward()
    assert all((p.grad == 0).all() for p in f.parameters())


def test_reject_below_takes_the_nearest_sample_that_is_far_enough():
    f, data = network(), points()
    options = NaignOptions(pool_size=100, reject_below=4.0)
    matcher = build_matcher(options, data, StepContext(SEED))
    matcher.prepare(f, 0)
    latents, admissible = matcher.latents(f, Batch.of(data, torch.arange(40)))
    z, _ = brute_force(f, data, options, 0)
    squared = (data.double()[:, None] - sample_in_evaluation(f, z).double()[None]).square().sum(-1)
    nearest = squared.masked_fill(squared < 4.0, torch.inf).min(1)
    assert torch.equal(admissible, nearest.values.isfinite())
    assert 0 < admissible.sum() < 40
    assert torch.equal(latents[admissible], z[nearest.indices][admissible])
    assert (latents[~admissible] == 0).all()


class LargestTensor(TorchDispatchMode):
    """Records the most elements any operator returned."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        sizes = [t.numel() for t in tree_leaves(result) if isinstance(t, torch.Tensor)]
        self.elements = max([self.elements, *sizes])
        return result


def test_memory_is_that_of_a_chunk_not_of_the_pool():
    f, data = network(size=32), points(64, 32)
    largest = {}
    for pool_size in (2048, 16384):
        options = NaignOptions(pool_size=pool_size, pool_chunk=256)
        matcher = build_matcher(options, data, StepContext(SEED))
        with LargestTensor() as seen:
            matcher.prepare(f, 0)
            matcher.latents(f, Batch.of(data, torch.arange(64)))
        largest[pool_size] = seen.elements
    assert largest[16384] == largest[2048] < 2048 * 32


def test_noise_has_one_sigma_a_row_and_repeats_with_its_seed():
    x = torch.zeros(2000, 1, 8, 8)
    noisy = add_noise(x, 0.6, 3)
    sigmas = noisy.flatten(1).std(dim=1)
    assert abs(sigmas.mean().item() - 0.3) < 0.02 and sigmas.max() < 0.75 and sigmas.min() < 0.01
    assert torch.equal(noisy, add_noise(x, 0.6, 3))
    parts = [add_noise(x[first : first + 500], 0.6, 3, (first, 2000)) for first in range(0, 2000, 500)]
    assert torch.equal(torch.cat(parts), noisy)
    assert not torch.isclose(noisy, add_noise(x, 0.6, 4), rtol=1e-3, atol=0).flatten(1).all(dim=1).any()


def test_corruptions_take_turns_and_repeat_with_the_step(monkeypatch):
    seen = []

    def record(x, kind, *, seed, offset):
        assert offset == (0, len(x))
        seen.append((kind, len(x), seed))
        return torch.zeros_like(x), None

    monkeypatch.setattr(restoration, "corrupt", record)
    objective = naign(points(), pool_size=16, restore_weight=1.0, restore_kinds=("mask", "noise"))
    f = network()
    for step in (3, 3, 4):
        run_loss(objective, f, torch.arange(7), step)
    assert [s[:2] for s in seen] == [("mask", 4), ("noise", 3)] * 3
    assert seen[:2] == seen[2:4] and seen[4][2] != seen[0][2]


def test_augmented_data_are_kept_and_restored_while_the_match_stays_with_the_data():
    f, data, rows = network(), points(), torch.arange(8)
    options = NaignOptions(pool_size=64, denoise_weight=1.0, denoise_sigma=1e-6)
    objective = Naign(options, data, StepContext(SEED))
    x = data[rows] + torch.rand(8, 6, generator=torch.Generator().manual_seed(2))
    expected = run_loss(objective, f, rows, 3)
    loss = objective.loss(f, replace(Batch.of(data, rows), augmented=x), 3)
    error = (f(x) - x).square().mean().item()
    assert loss.terms["imle"].item() == pytest.approx(expected.terms["imle"].item(), rel=1e-6)
    assert loss.terms["reconstruction"].item() == pytest.approx(error, rel=1e-5)
    assert loss.terms["denoise"].item() == pytest.approx(error, rel=1e-4)
    assert error != pytest.approx(expected.terms["reconstruction"].item(), rel=1e-2)
    loss.total.backward()
    got = [p.grad.clone() for p in f.parameters()]
    f.zero_grad()
    z, nearest = brute_force(f, data[rows], options, 3)
    noisy = add_noise(x, 1e-6, derive_seed(SEED, "denoise", 3))
    parts = ((f(x), x), (f(z[nearest]), data[rows]), (f(noisy), x))
    sum((a - b).square().mean() for a, b in parts).backward()
    for a, p in zip(got, f.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, rtol=1e-4, atol=1e-6)


def test_idempotence_ramp_starts_at_nothing():
    f, data = network(), points()
    plain = run_loss(naign(data, pool_size=32), f, torch.arange(8))
    ramped = run_loss(
        naign(data, pool_size=32, idempotence_weight=1.0, idempotence_ramp=5), f, torch.arange(8)
    )
    assert ramped.total.item() == pytest.approx(plain.total.item(), rel=1e-6)
    assert ramped.terms["idempotence"] > 0


def test_imle_is_the_match_alone():
    f, data = network(), points()
    objective = Imle(ImleOptions(pool_size=64), data, StepContext(SEED))
    loss = run_loss(objective, f, torch.arange(8))
    both = run_loss(naign(data, pool_size=64), f, torch.arange(8))
    assert set(loss.terms) == {"imle"}
    assert loss.total.item() == pytest.approx(both.terms["imle"].item(), rel=1e-6)


def test_registry_names_its_objectives():
    for name, objective in OBJECTIVES.items():
        assert objective.Options.model_fields["name"].default == name


def test_errors_name_what_is_missing():
    data = points()
    matcher = build_matcher(NaignOptions(match="dataset"), data, StepContext())
    with pytest.raises(RuntimeError, match="prepare"):
        matcher.latents(network(), Batch.of(data, torch.arange(2)))
