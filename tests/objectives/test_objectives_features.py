"""The match and its loss in a space of features: what is matched, what is pulled, what stays as it was."""

import pytest
import torch
from torch import nn

from naign_ext import fused_loss
from naign_ext.config import ConfigError, load_config, resolve_config, save_config, with_absolute_paths
from naign_ext.features import FEATURES
from naign_ext.latents import LatentPool
from naign_ext.objectives import OBJECTIVES, Naign, NaignOptions, StepContext
from naign_ext.objectives import assignment as assignment_module
from naign_ext.objectives import space as space_module
from naign_ext.objectives.matchers import build_matcher, sample_in_evaluation
from naign_ext.objectives.rs_imle import default_reject_below
from naign_ext.transforms.batch import Batch

SEED = 5
SIZE = 6
MATCHES = {
    "batch": {"pool_size": 90},
    "dataset": {"match": "dataset", "pool_size": 90},
    "warm": {"match": "dataset", "pool_size": 60, "warm_start": True},
    "one-to-one": {"match": "one-to-one", "pool_size": 50},
    "adaptive": {"match": "adaptive", "pool_size": 60, "adaptive_patience": 1},
    "pair": {"pool_size": 60, "reject_below": 2.0},
    "sample": {"pool_size": 60, "reject_below": 1.0, "reject": "sample"},
}


class Squares(nn.Module):
    """Features that order distances otherwise than the rows themselves; counts the rows of its calls."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(SIZE, 9)
        self.seen = []

    def forward(self, x):
        self.seen.append(len(x))
        return self.mix(x).square() + 3 * x[:, :1]


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(FEATURES, "_entries", dict(FEATURES._entries))
    FEATURES.register("identity")(lambda shape, weights: nn.Identity())
    FEATURES.register("squares")(lambda shape, weights: Squares())


def points(count=40, seed=1):
    return torch.randn(count, SIZE, generator=torch.Generator().manual_seed(seed))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(SIZE, 16), nn.Tanh(), nn.Linear(16, SIZE))


def matched(data, options, steps=3):
    """Latents and admissible rows of a batch over some steps of a network that changes."""
    f, rows = network(), torch.arange(0, 40, 2)
    matcher = build_matcher(options, data, StepContext(SEED))
    found = []
    for step in range(steps):
        matcher.prepare(f, step)
        found += [t.clone() for t in matcher.latents(f, Batch.of(data, rows))]
        with torch.no_grad():
            f[0].weight += 0.05
    return found


def run_loss(objective, f, rows, step=0):
    objective.prepare(f, step)
    return objective.loss(f, Batch.of(objective.data, rows), step)


@pytest.mark.parametrize("name", MATCHES)
def test_the_match_in_features_that_are_the_data_is_that_of_the_data(name):
    plain = matched(points(), NaignOptions(**MATCHES[name]))
    same = matched(points(), NaignOptions(features="identity", **MATCHES[name]))
    other = matched(points(), NaignOptions(features="squares", **MATCHES[name]))
    assert all(torch.equal(a, b) for a, b in zip(plain, same, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(plain, other, strict=True))


@pytest.mark.parametrize("match", ["batch", "dataset"])
def test_matched_pairs_in_features_are_those_of_brute_force(match):
    f, data = network(), points()
    matcher = build_matcher(
        NaignOptions(match=match, features="squares", pool_size=300, pool_chunk=70), data, StepContext(SEED)
    )
    rows = torch.tensor([3, 3, 17, 39, 0])
    matcher.prepare(f, 0)
    latents, admissible = matcher.latents(f, Batch.of(data, rows))
    phi = matcher.space.phi
    z = LatentPool((SIZE,), 1.0, SEED).chunk(0, 300)
    with torch.no_grad():
        nearest = torch.cdist(phi(data[rows]).double(), phi(f(z)).double()).argmin(1)
        in_pixels = torch.cdist(data[rows].double(), f(z).double()).argmin(1)
    assert torch.equal(latents, z[nearest])
    assert admissible.all()
    assert not torch.equal(nearest, in_pixels)


@pytest.mark.parametrize("name", MATCHES)
def test_never_more_than_a_chunk_of_the_pool_is_in_features(name, monkeypatch):
    monkeypatch.setattr(assignment_module, "COMPLETE_PAIRS", 0)
    data = points()
    for chunk in (7, 64):
        options = NaignOptions(features="squares", pool_chunk=chunk, **MATCHES[name])
        matcher = build_matcher(options, data, StepContext(SEED))
        seen = matcher.space.phi.phi.seen
        seen.clear()
        f, found = network(), []
        for step in range(3):
            matcher.prepare(f, step)
            found.append(matcher.latents(f, Batch.of(data, torch.arange(20)))[0].clone())
        assert max(seen) <= chunk
        assert sum(seen) >= 3 * options.pool_size
        if chunk == 7:
            expected = found
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_the_adaptive_threshold_is_one_of_features():
    data, f = points(), network()
    options = NaignOptions(features="squares", **MATCHES["adaptive"])
    matcher = build_matcher(options, data, StepContext(SEED))
    for step in range(2):
        matcher.prepare(f, step)
        if step == 0:
            held = matcher.latents(f, Batch.of(data, torch.arange(40)))[0].clone()
    phi = matcher.space.phi
    with torch.no_grad():
        distances = (phi(data) - phi(f(held))).square().sum(1)
    torch.testing.assert_close(matcher.state()["match.thresholds"], 0.96 * distances)


@pytest.mark.parametrize("name", ["naign", "imle", "matching", "adaptive-imle", "rs-imle"])
def test_the_feature_term_and_its_gradient(name):
    f, data, rows = network(), points(), torch.arange(0, 30, 2)
    chosen = OBJECTIVES[name].Options(features="squares", feature_weight=0.3, pool_size=64)
    objective = OBJECTIVES[name](chosen, data, StepContext(SEED))
    loss = run_loss(objective, f, rows)
    loss.total.backward()
    got = [p.grad.clone() for p in f.parameters()]
    f.zero_grad()
    latents, admissible = objective.matcher.latents(f, Batch.of(data, rows))
    phi, samples = objective.space.phi, torch.where(admissible[:, None], f(latents), data[rows])
    feature_term = (phi(data[rows]) - phi(samples)).square().sum(dim=1).mean()
    pixels = (samples - data[rows]).square().mean()
    total = pixels + 0.3 * feature_term
    if name in ("naign", "matching"):
        total = total + (f(data[rows]) - data[rows]).square().mean()
    assert loss.terms["imle_features"].item() == pytest.approx(feature_term.item(), rel=1e-5)
    assert loss.terms["imle"].item() == pytest.approx(pixels.item(), rel=1e-5)
    assert loss.total.item() == pytest.approx(total.item(), rel=1e-5)
    total.backward()
    for a, p in zip(got, f.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, rtol=1e-4, atol=1e-5)
    assert all(p.grad is None for p in phi.parameters())


def test_the_gradient_needs_no_more_than_a_chunk_at_a_time(monkeypatch):
    data, rows = points(), torch.arange(30)
    objective = Naign(NaignOptions(features="squares"), data, StepContext(SEED))
    space, samples = objective.space, points(30, seed=2).requires_grad_()
    whole = space.feature_distance(samples, rows)
    (expected,) = torch.autograd.grad(3 * whole, samples)
    space.phi.phi.seen.clear()
    monkeypatch.setattr(space_module, "automatic_chunk", lambda *_: 8)
    parts = space.feature_distance(samples, rows)
    (found,) = torch.autograd.grad(3 * parts, samples)
    assert space.phi.phi.seen == [8, 8, 8, 6]
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(found, expected)
    assert not samples.grad_fn and samples.requires_grad


def test_a_weight_of_nothing_leaves_the_match_alone():
    f, data, rows = network(), points(), torch.arange(8)
    given = {"pool_size": 64, "features": "squares"}
    silent = run_loss(Naign(NaignOptions(feature_weight=0, **given), data, StepContext(SEED)), f, rows)
    heard = run_loss(Naign(NaignOptions(**given), data, StepContext(SEED)), f, rows)
    plain = run_loss(Naign(NaignOptions(pool_size=64), data, StepContext(SEED)), f, rows)
    assert "imle_features" not in silent.terms
    assert torch.equal(silent.terms["imle"], heard.terms["imle"])
    assert silent.terms["imle"] > plain.terms["imle"]


def test_rows_without_an_admissible_match_pull_nothing():
    f, data, rows = network(), points(), torch.arange(10)
    options = NaignOptions(features="squares", pool_size=9, reject_below=1e9, reconstruction_weight=0.0)
    loss = run_loss(Naign(options, data, StepContext(SEED)), f, rows)
    loss.total.backward()
    assert loss.terms["imle_features"].item() == pytest.approx(0, abs=1e-6)
    assert all((p.grad == 0).all() for p in f.parameters())


def test_rs_imle_chooses_its_distance_in_features():
    data = points()
    chosen = OBJECTIVES["rs-imle"].Options(features="squares")
    objective = OBJECTIVES["rs-imle"](chosen, data, StepContext(SEED))
    with torch.no_grad():
        features = objective.space.phi(data)
    found = objective.matcher.options.reject_below
    assert found == pytest.approx(default_reject_below(features), rel=1e-5)
    assert found != pytest.approx(default_reject_below(data), rel=1e-2)


@pytest.mark.parametrize("name", MATCHES)
def test_without_features_a_loss_is_bit_for_bit_that_of_pixels_alone(name):
    """The formula on the latents that the search finds, all in the operations that there were without features."""
    f, data, rows = network(), points(), torch.arange(0, 30, 2)
    options = NaignOptions(features="none", **MATCHES[name])
    objective = Naign(options, data, StepContext(SEED))
    loss = run_loss(objective, f, rows)
    batch = Batch.of(data, rows)
    latents, admissible = objective.matcher.latents(f, batch)
    outputs = f(torch.cat([batch.x, latents]))
    reconstruction, samples = outputs.split([len(rows), len(rows)])
    if options.reject_below is not None:
        samples = torch.where(admissible[:, None], samples, batch.x)
    expected = fused_loss([(reconstruction, batch.x, 1.0), (samples, batch.x, 1.0)])
    assert torch.equal(loss.total, expected.total)
    assert list(loss.terms) == ["reconstruction", "imle"]
    assert objective.space.data.data_ptr() == data.data_ptr()
    assert all(key.startswith("match.") for key in objective.state())
    if name == "batch":
        z = LatentPool((SIZE,), 1.0, SEED).chunk(0, options.pool_size)
        y = sample_in_evaluation(f, z)
        nearest = torch.cdist(batch.x.double(), y.double()).argmin(1)
        assert torch.equal(latents, z[nearest])


def test_a_checkpoint_knows_its_features():
    data = points()

    def objective(seed):
        return Naign(NaignOptions(features="squares", match="dataset"), data, StepContext(seed))

    first, again, other = objective(1), objective(1), objective(2)
    first.prepare(network(), 0)
    state = first.state()
    again.load_state(state)
    assert torch.equal(again.state()["match.indices"], state["match.indices"])
    with pytest.raises(ValueError, match=r"the weights of squares are not those the run began with"):
        other.load_state(state)


def test_wrong_options_are_named():
    with pytest.raises(ConfigError, match=r"objective\.features: expected one of none, vgg16, dinov2.*'vgg'"):
        resolve_config("lfw100", settings=["objective.features=vgg"])
    with pytest.raises(ConfigError, match="feature_weights: expected features other than none"):
        resolve_config("lfw100", settings=["objective.feature_weights=a.pth"])
    with pytest.raises(ConfigError) as caught:
        resolve_config("lfw100", settings=[f"objective.feature_weights={'x' * 100_000}"])
    assert len(str(caught.value)) < 300
    with pytest.raises(ConfigError, match=r"objective\.feature_weight: expected greater than or equal to 0"):
        resolve_config("lfw100", settings=["objective.feature_weight=-1"])
    config = resolve_config("lfw100", settings=["objective.features=vgg16"])
    assert (config.objective.features, config.objective.feature_weight) == ("vgg16", 1.0)


def test_configurations_without_the_options_load_as_without_features(tmp_path):
    config = resolve_config("lfw100")
    file = tmp_path / "config.yaml"
    save_config(config, file)
    lines = [line for line in file.read_text().splitlines() if not line.strip().startswith("feature")]
    assert len(lines) == len(file.read_text().splitlines()) - 3
    file.write_text("\n".join(lines))
    assert load_config(file) == config
    assert config.objective.features == "none"


def test_the_path_of_weights_is_kept_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = ["objective.features=vgg16", "objective.feature_weights=here/a.pth"]
    kept = with_absolute_paths(resolve_config("lfw100", settings=settings))
    assert kept.objective.feature_weights == str(tmp_path / "here" / "a.pth")
