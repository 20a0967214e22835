"""One-to-one, adaptive and rejecting matches, and that every objective learns."""

import itertools

import pytest
import torch
from torch import nn

from naign_ext.config import resolve_config
from naign_ext.data import load_dataset
from naign_ext.latents import LatentPool
from naign_ext.objectives import (
    OBJECTIVES,
    AdaptiveImle,
    AdaptiveImleOptions,
    Matching,
    MatchingOptions,
    NaignOptions,
    RsImle,
    RsImleOptions,
    StepContext,
)
from naign_ext.objectives import assignment as assignment_module
from naign_ext.objectives.assignment import assign, assign_some
from naign_ext.objectives.matchers import AdaptiveMatcher, build_matcher, reject_near, sample_in_evaluation
from naign_ext.objectives.rs_imle import default_reject_below
from naign_ext.transforms.batch import Batch

SEED = 5


def assign_chunks(data, parts):
    firsts = itertools.accumulate((len(part) for part in parts), initial=0)
    return assign(data, list(zip(firsts, parts, strict=False)), sum(len(part) for part in parts))


def points(count=40, size=6, seed=1):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


def network(size=6):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(size, 16), nn.Tanh(), nn.Linear(16, size))


def cost(data, pool, chosen):
    return (data.double() - pool.double()[chosen]).square().sum().item()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("complete", [0, 1 << 20])
def test_assignment_is_the_cheapest_of_all(monkeypatch, seed, complete):
    monkeypatch.setattr(assignment_module, "COMPLETE_PAIRS", complete)
    data, pool = points(5, 2, seed), points(7, 2, seed + 100)
    found = assign_chunks(data, pool.split(3))
    assert len(set(found.tolist())) == 5
    best = min(cost(data, pool, list(p)) for p in itertools.permutations(range(7), 5))
    assert cost(data, pool, found) == pytest.approx(best, rel=1e-6)


def test_more_neighbours_are_taken_where_few_allow_no_assignment(monkeypatch):
    monkeypatch.setattr(assignment_module, "COMPLETE_PAIRS", 0)
    monkeypatch.setattr(assignment_module, "FIRST_NEIGHBOURS", 2)
    data = torch.zeros(9, 2) + 0.01 * points(9, 2)
    pool = torch.cat([torch.zeros(2, 2), 5 + points(10, 2)])
    assert assign_some(*first_neighbours(data, pool, 2), 12) is None
    found = assign_chunks(data, [pool])
    assert len(set(found.tolist())) == 9
    assert {0, 1} <= set(found.tolist())


def first_neighbours(data, pool, k):
    squared = torch.cdist(data, pool).square()
    nearest = squared.topk(k, largest=False)
    return nearest.values, nearest.indices


def test_equal_points_cost_nothing_and_are_matched():
    data = points(30, 3)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    assert torch.equal(data[order][assign_chunks(data, [data[order]])], data)
    assert assign_some(*first_neighbours(data, data[order], 4), 30) is not None


def test_samples_that_are_not_finite_are_never_assigned():
    pool = torch.cat([torch.full((3, 2), torch.nan), points(4, 2)])
    found = assign_chunks(points(4, 2, 9), [pool])
    assert sorted(found.tolist()) == [3, 4, 5, 6]
    found = assign_chunks(points(6, 2, 9), [pool])
    assert sorted(found[found >= 0].tolist()) == [3, 4, 5, 6] and (found < 0).sum() == 2


def test_matching_objective_pairs_one_to_one():
    f, data, rows = network(), points(), torch.arange(20)
    objective = Matching(MatchingOptions(pool_size=24), data, StepContext(SEED))
    objective.prepare(f, 0)
    loss = objective.loss(f, Batch.of(data, rows), 0)
    z = LatentPool((6,), 1.0, SEED).chunk(0, 24)
    y = sample_in_evaluation(f, z)
    chosen = assign_chunks(data[rows], [y])
    expected = (y[chosen] - data[rows]).square().mean().item()
    assert loss.terms["imle"].item() == pytest.approx(expected, rel=1e-5)
    nearest = torch.cdist(data[rows], y).square().amin(1).mean().item() / 6
    assert nearest < expected


def test_one_to_one_needs_a_pool_and_rejects_nothing():
    objective = Matching(MatchingOptions(pool_size=8), points(), StepContext(SEED))
    objective.prepare(network(), 0)
    with pytest.raises(ValueError, match="pool_size"):
        objective.loss(network(), Batch.of(points(), torch.arange(9)), 0)
    with pytest.raises(ValueError, match="reject_below"):
        NaignOptions(match="one-to-one", reject_below=0.5)


def adaptive(data, **options):
    given = {"pool_size": 64, "resample_every": 1, "adaptive_patience": 1, "adaptive_limit": 100}
    return build_matcher(AdaptiveImleOptions(**(given | options)), data, StepContext(SEED))


def test_adaptive_keeps_a_latent_until_its_sample_is_near():
    data = points()
    f, batch = network(), Batch.of(data, torch.arange(40))
    matcher = adaptive(data, adaptive_decay=0.1)
    assert isinstance(matcher, AdaptiveMatcher)
    matcher.prepare(f, 0)
    first = matcher.latents(f, batch)[0].clone()
    matcher.prepare(f, 1)
    second = matcher.latents(f, batch)[0].clone()
    assert not torch.equal(first, second), "the first thresholds are infinite"
    was = (data - sample_in_evaluation(f, first)).square().sum(1)
    # The samples of some rows come nearer than .9 of that, those of others do not.
    with torch.no_grad():
        f[2].weight *= 1.5
    at = (data - sample_in_evaluation(f, second)).square().sum(1)
    due = at < 0.9 * was
    assert 0 < due.sum() < 40
    matcher.prepare(f, 2)
    third = matcher.latents(f, batch)[0]
    assert torch.equal(third[~due], second[~due])
    assert not (third[due] == second[due]).all(dim=1).any()


def test_adaptive_waits_and_loses_patience():
    data, f = points(), network()
    batch = Batch.of(data, torch.arange(40))
    matcher = adaptive(data, adaptive_patience=3, adaptive_limit=5, adaptive_decay=0.99)
    held = []
    for step in range(10):
        matcher.prepare(f, step)
        held.append(matcher.latents(f, batch)[0].clone())
    changes = [step for step in range(1, 10) if not torch.equal(held[step], held[step - 1])]
    assert changes == [3, 8], "infinite thresholds after 3 matches, then the limit after 5 more"


def test_adaptive_state_restores_latents_and_thresholds():
    data, f = points(), network()
    batch = Batch.of(data, torch.arange(40))
    whole, broken = adaptive(data), adaptive(data)
    for step in range(3):
        whole.prepare(f, step)
        broken.prepare(f, step)
    resumed = adaptive(data)
    resumed.load_state(broken.state())
    for step in range(2, 6):
        for matcher in (whole, resumed):
            matcher.prepare(f, step)
        assert torch.equal(whole.latents(f, batch)[0], resumed.latents(f, batch)[0])
    with pytest.raises(RuntimeError, match="prepare"):
        adaptive(data).latents(f, batch)


def test_a_sample_near_any_row_serves_none():
    data = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    samples = torch.tensor([[0.1, 0.0], [9.8, 0.0], [4.0, 0.0], [6.0, 0.0]])
    kept = reject_near(samples, data, 1.0)
    assert kept.isnan().all(dim=1).tolist() == [True, True, False, False]


def test_rs_imle_rejects_samples_and_naign_pairs():
    data = points(30, 2)
    f = nn.Identity()
    below = 0.3
    for options, objective_rejects in (
        (RsImleOptions(pool_size=200, reject_below=below), True),
        (NaignOptions(pool_size=200, reject_below=below), False),
    ):
        matcher = build_matcher(options, data, StepContext(SEED))
        matcher.prepare(f, 0)
        latents, admissible = matcher.latents(f, Batch.of(data, torch.arange(30)))
        z = LatentPool((2,), 1.0, SEED).chunk(0, 200)
        squared = torch.cdist(data.double(), z.double()).square()
        allowed = squared >= below
        if objective_rejects:
            allowed = allowed.all(dim=0).expand(30, -1)
        best = squared.masked_fill(~allowed, torch.inf).argmin(1)
        assert admissible.all()
        assert torch.equal(latents, z[best])


def test_rs_imle_chooses_epsilon_from_the_data():
    line = torch.arange(50.0)[:, None] * 3
    assert default_reject_below(line) == pytest.approx(9 / 4)
    objective = RsImle(RsImleOptions(pool_size=16), line, StepContext())
    assert objective.options.reject_below == pytest.approx(9 / 4)
    assert objective.matcher.options.reject_below == pytest.approx(9 / 4)


def test_presets_do_not_undo_what_an_objective_is():
    adaptive_options = resolve_config("lfw100", flags={"objective": "adaptive-imle"}).objective
    assert (adaptive_options.match, adaptive_options.pool_size) == ("adaptive", 1440)
    matching_options = resolve_config("trimodal1d", flags={"objective": "matching"})
    assert matching_options.objective.pool_size >= matching_options.batch_size
    assert resolve_config("moons", flags={"objective": "ign"}).objective.latent_scale == 2.0
    assert AdaptiveImle(adaptive_options, points(), StepContext()).matcher.options.adaptive_decay == 0.04


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_every_objective_learns_a_toy(name):
    dataset = load_dataset("8gaussians")
    kind = OBJECTIVES[name]
    changes = {"pool_size": 128} if "pool_size" in kind.Options.model_fields else {}
    objective = kind(kind.Options(**changes), dataset.train, StepContext())
    torch.manual_seed(0)
    f = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    optimiser = torch.optim.AdamW(f.parameters(), lr=3e-3)
    losses = []
    for step in range(150):
        objective.prepare(f, step)
        rows = torch.randint(2000, (96,), generator=torch.Generator().manual_seed(step))
        loss = objective.loss(f, Batch.of(dataset.train, rows), step)
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        losses.append(loss.total.item())
    assert sum(losses[-20:]) < 0.6 * sum(losses[:20])
    stages = objective.timer.take()
    assert stages["generation"] > 0 and objective.timer.take() == {}
    assert ("search" in stages) == (name != "ign")


def warm(**options):
    data = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
    options = NaignOptions(match="dataset", pool_size=128, resample_every=2, warm_start=True, **options)
    return data, build_matcher(options, data, StepContext(SEED))


def distances(f, data, latents):
    return (data - sample_in_evaluation(f, latents)).square().sum(1)


def test_a_warm_start_keeps_winners_that_are_still_the_nearest():
    torch.manual_seed(0)
    f, (data, matcher) = nn.Linear(6, 6), warm()
    cold = build_matcher(matcher.options.model_copy(update={"warm_start": False}), data, StepContext(SEED))
    batch = Batch.of(data, torch.arange(40))
    kept = 0
    for step in range(0, 10, 2):
        before = matcher.latents(f, batch)[0].clone() if step else None
        matcher.prepare(f, step)
        cold.prepare(f, step)
        new, fresh = matcher.latents(f, batch)[0], cold.latents(f, batch)[0]
        assert (distances(f, data, new) <= distances(f, data, fresh)).all()
        if before is None:
            assert torch.equal(new, fresh)
            continue
        # The best of the new pool and of all last winners, each winner for any row.
        candidates = torch.cat([matcher.pool.chunk(0, 128), before])
        nearest = torch.cdist(data.double(), sample_in_evaluation(f, candidates).double()).argmin(1)
        assert torch.equal(new, candidates[nearest])
        kept += int((nearest >= 128).sum())
    assert kept > 40


def test_a_warm_match_is_restored_with_the_latents_of_older_pools():
    torch.manual_seed(0)
    f, (data, matcher) = nn.Linear(6, 6), warm()
    batch = Batch.of(data, torch.arange(40))
    for step in range(6):
        matcher.prepare(f, step)
    state = {name: value.clone() for name, value in matcher.state().items()}
    _, restored = warm()
    restored.load_state(state)
    restored.prepare(f, 5)
    assert torch.equal(restored.latents(f, batch)[0], matcher.latents(f, batch)[0])
    for m in (matcher, restored):
        m.prepare(f, 6)
    assert torch.equal(restored.latents(f, batch)[0], matcher.latents(f, batch)[0])


def test_a_warm_start_needs_a_match_of_the_whole_set():
    with pytest.raises(ValueError, match="warm_start: expected match dataset"):
        NaignOptions(warm_start=True)
