"""evaluate: the right metrics for each kind of data, judged with networks whose answers are known."""

import math

import pytest
import torch
from torch import nn

from naign_ext.data import Dataset, load_dataset
from naign_ext.evaluation import (
    METRICS,
    Condition,
    EvalContext,
    Key,
    describe,
    evaluate,
    gain,
    gain_clipped,
    metric,
)
from naign_ext.evaluation.evaluate import measure
from naign_ext.evaluation.registry import chosen_metrics, selectable
from naign_ext.evaluation.restoration import mean_psnr
from naign_ext.evaluation.subjects import RECOGNISED, RESTORATIONS, Restored, SampleSet


class Snap(nn.Module):
    """Projects onto the nearest row of a set: idempotent, and everything lands on data."""

    def __init__(self, rows):
        super().__init__()
        self.register_buffer("rows", rows.flatten(1))
        self.shape = rows.shape[1:]

    def forward(self, x):
        nearest = torch.cdist(x.flatten(1), self.rows).argmin(1)
        return self.rows[nearest].view(-1, *self.shape)


def tiny_images(labels=False):
    rng = torch.Generator().manual_seed(0)
    smooth = nn.functional.interpolate(torch.randn(90, 1, 3, 3, generator=rng), size=(8, 8), mode="bilinear")
    data = smooth.clamp(-1, 1)
    classes = (data.mean((1, 2, 3)) > 0).long()
    return Dataset(
        name="tiny",
        kind="image",
        train=data[:60],
        heldout=data[60:],
        ood=torch.rand(20, 1, 8, 8, generator=rng) * 2 - 1,
        train_labels=classes[:60] if labels else None,
        heldout_labels=classes[60:] if labels else None,
    )


def test_identity_on_a_toy_is_exposed_by_non_identity():
    dataset = load_dataset("trimodal1d")
    found = evaluate(nn.Identity(), dataset, samples=500)
    for name in ("fixed_point_train", "idempotence", "non_identity"):
        assert found.value(name, "f") == 0.0
    for name in ("high_quality", "energy_distance", "w2", "sliced_w2"):
        assert found.value(name, "f(z)") == found.value(name, "f(f(z))") == found.value(name, "prior")
    assert found.value("modes_total", "data") == 3
    assert found.value("ood_auroc", "f") == 0.5
    assert found.value("high_quality", "truth") > 0.98
    assert found.value("energy_distance", "truth") < 0.05


def test_projection_onto_the_modes_scores_perfectly():
    dataset = load_dataset("8gaussians")
    found = evaluate(Snap(dataset.modes), dataset, latent_scale=3.0)
    assert found.value("modes") == found.value("modes_total") == 8
    assert found.value("high_quality") == 1.0
    assert found.value("idempotence") == 0.0
    assert found.value("non_identity") > 0.5
    assert found.value("residual_spearman") > 0.9
    assert found.value("ood_auroc") > 0.95
    assert found.value("energy_distance") < found.value("energy_distance", "gaussian")


def test_latent_scale_is_the_priors_deviation():
    dataset = load_dataset("moons")
    small, large = (
        evaluate(lambda x: 0 * x, dataset, latent_scale=s, metrics=["projection"]).value("non_identity")
        for s in (1.0, 3.0)
    )
    assert small == pytest.approx(1.0, rel=0.1)
    assert large == pytest.approx(9 * small, rel=1e-5)


@pytest.mark.parametrize("name", ["moons", "rings", "checkerboard"])
def test_curves_have_high_quality_without_modes(name):
    dataset = load_dataset(name)
    typical = dataset.train[dataset.support_distance(dataset.train) < 0.1]
    found = evaluate(Snap(typical), dataset, latent_scale=2.0, samples=500)
    assert found.value("high_quality") == 1.0
    assert found.value("high_quality", "truth") > 0.98
    assert "modes" not in found.metrics
    assert found.value("high_quality") > found.value("high_quality", "prior") + 0.3


def test_images_get_images_metrics():
    dataset = tiny_images()
    found = evaluate(Snap(dataset.train), dataset, samples=200)
    assert found.value("fixed_point_train") < 1e-12
    assert found.value("idempotence") < 1e-12
    assert found.value("fld_pixels") > 1e3
    assert found.value("authenticity") == 0.0
    assert 0 < found.value("train_coverage") <= 1
    assert found.value("ood_auroc") > 0.95
    strong = Condition("noise", 1.0)
    assert found.value("gain", "f", strong) > 3
    assert found.value("psnr", "corrupted", strong) == pytest.approx(20 * math.log10(2), abs=0.5)
    for condition in RESTORATIONS:
        difference = found.value("psnr", "f", condition) - found.value("psnr", "corrupted", condition)
        assert found.value("gain", "f", condition) == pytest.approx(difference)
        assert Key("gain", "filter", condition) in found
    assert found.value("train_coverage", "mean") == pytest.approx(1 / 60)
    assert "fld" not in found.metrics


def test_labels_bring_a_classifiers_metrics():
    dataset = tiny_images(labels=True)
    found = evaluate(Snap(dataset.train), dataset, samples=200)
    assert found.value("classes") == found.value("classes_total") == 2
    assert found.value("confident") > 0.5
    assert "fld" in found.metrics
    assert "fld_pixels" not in found.metrics
    assert 0 <= found.value("accuracy", "corrupted", RECOGNISED) <= 1
    assert 0 <= found.value("accuracy", "f", RECOGNISED) <= 1
    assert found.value("accuracy", "clean") > 0.8


def test_all_rows_are_finite_reproducible_and_described():
    for dataset in (tiny_images(labels=True), load_dataset("grid25")):
        f = Snap(dataset.train[:40])
        first, second = (evaluate(f, dataset, seed=5, samples=100) for _ in range(2))
        assert first == second
        assert all(math.isfinite(row.value) for row in first.rows)
        assert all(isinstance(row.value, float) for row in first.rows)
        assert all(describe(row.key).text for row in first.rows)


def test_nothing_held_out_leaves_those_metrics_out():
    full = tiny_images()
    dataset = Dataset(name="tiny", kind="image", train=full.train, heldout=full.heldout[:0], ood=full.ood)
    found = evaluate(Snap(dataset.train), dataset, samples=50)
    assert "fixed_point_train" in found.metrics
    assert "train_coverage" in found.metrics
    groups = {METRICS[name].group for name in found.metrics}
    assert groups == {"projection", "samples"}
    assert not {"fld", "fld_pixels", "fixed_point_heldout"} & set(found.metrics)


def test_groups_choose_the_metrics():
    dataset = load_dataset("trimodal1d")
    found = evaluate(nn.Identity(), dataset, samples=100, metrics=["projection"], baselines=False)
    names = ["fixed_point_train", "fixed_point_heldout", "idempotence", "non_identity"]
    assert [row.key for row in found.rows] == [Key(name, "f") for name in names]
    with pytest.raises(ValueError, match=r"metrics: expected some of projection.*got figures"):
        evaluate(nn.Identity(), dataset, metrics=["figures"])


def test_families_and_single_metrics_can_be_asked_for():
    f, chosen = Snap(tiny_images().train), ["fid", "auroc"]
    found = evaluate(f, tiny_images(), samples=60, metrics=chosen, baselines=False)
    assert {row.key for row in found.rows} == {
        *(Key(name, subject) for name in ("rows_judged", "fid") for subject in ("f(z)", "f(f(z))")),
        *(Key(f"ood_auroc{kind}", "f") for kind in ("", "_normalised", "_multiscale")),
    }
    beside = evaluate(f, tiny_images(), samples=60, metrics=chosen)
    assert set(found.rows) <= set(beside.rows)
    assert Key("fid", "blur") in beside
    assert not beside.of("fld_pixels")
    single = evaluate(f, tiny_images(), samples=60, metrics=["recall"], baselines=False)
    assert single.metrics == ["rows_judged", "recall"]


def test_a_choice_says_the_same_as_what_it_chose():
    for name in selectable():
        chosen = chosen_metrics([name])
        assert chosen and chosen_metrics(chosen) == chosen, name
    assert chosen_metrics(None) == chosen_metrics(selectable()) == set(METRICS)


def test_baselines_are_ordered_as_they_must_be():
    dataset = tiny_images()
    found = evaluate(Snap(dataset.train), dataset, samples=200)
    fid = found.baselines("fid")
    assert fid["copies"] < fid["pca"] < fid["mean"]
    assert found.value("variance_ratio", "mean") == pytest.approx(0, abs=1e-9)
    assert found.value("variance_ratio", "blur") < found.value("variance_ratio", "copies")
    assert found.value("fld_pixels", "copies") > 1e6
    assert found.value("rows_judged", "half") == 30
    assert found.value("authenticity", "copies") == 0
    assert found.value("near_copies", "copies") == 1
    # f maps to the nearest training row, and so does the baseline.
    for name in ("ood_auroc", "ood_auroc_normalised", "ood_auroc_multiscale"):
        assert found.value(name, "f") == found.value(name, "nearest")
    for name in ("fixed_point_train", "fixed_point_heldout", "idempotence"):
        assert found.value(name, "f") == pytest.approx(found.value(name, "nearest"), abs=1e-9)


def test_the_feature_space_is_the_callers():
    dataset = tiny_images(labels=True)
    f = Snap(dataset.train)
    chosen = ["fid", "fld"]
    pixels = evaluate(f, dataset, samples=100, metrics=chosen, features="pixels")
    components = evaluate(f, dataset, samples=100, metrics=chosen, features="pca")
    assert "fld_pixels" in pixels.metrics
    assert "fld" in components.metrics
    # A rotation changes no Frechet distance.
    assert components.value("fid") == pytest.approx(pixels.value("fid"), rel=1e-3)
    with pytest.raises(ValueError, match="features: expected one of"):
        evaluate(f, dataset, samples=100, features="vgg")


class ToModes(nn.Module):
    """To the nearest mode: the residual is the distance to the modes."""

    def __init__(self, modes):
        super().__init__()
        self.register_buffer("modes", modes)

    def forward(self, x):
        return self.modes[torch.cdist(x, self.modes).argmin(1)]


@pytest.mark.parametrize("name", ["trimodal1d", "8gaussians"])
def test_an_exact_distance_gives_the_true_density(name):
    dataset = load_dataset(name)
    found = evaluate(ToModes(dataset.modes), dataset, samples=200, metrics=["likelihood"])
    # exp(-d^2 / T) with T = 2 sigma^2 is the mixture itself.
    assert found.value("temperature") == pytest.approx(2 * dataset.noise_std**2, rel=0.1)
    assert found.value("total_variation") < 0.03
    assert found.value("log_likelihood") == pytest.approx(found.value("log_likelihood", "truth"), abs=0.02)
    assert found.value("total_variation", "gaussian") > 0.3
    assert found.value("total_variation") < found.value("total_variation", "kde")


def test_the_truth_chooses_no_temperature():
    dataset = load_dataset("trimodal1d")
    blind = Dataset(name="unknown", kind="vector", train=dataset.train, heldout=dataset.heldout)
    f = ToModes(dataset.modes)
    first, second = (evaluate(f, d, samples=100, metrics=["likelihood"]) for d in (dataset, blind))
    assert first.value("temperature") == second.value("temperature")
    assert "total_variation" in first.metrics
    assert "total_variation" not in second.metrics


def test_modules_are_judged_in_eval_mode_and_put_back():
    dataset = load_dataset("trimodal1d")
    network = nn.Sequential(nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
    network[1].eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    evaluate(network, dataset, samples=50, metrics=["projection"])
    assert network.training
    assert not network[1].training
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_bad_networks_are_named():
    dataset = load_dataset("trimodal1d")
    with pytest.raises(ValueError, match=r"f: expected finite answers, got NaN or Inf in 50 of 50 f\(z\)"):
        evaluate(lambda x: x * torch.nan, dataset, samples=50)
    with pytest.raises(ValueError, match="f: expected it to keep the shape"):
        evaluate(lambda x: x.repeat(1, 2), dataset, samples=50)
    with pytest.raises(ValueError, match="samples: expected at least 6"):
        evaluate(nn.Identity(), dataset, samples=2)


@pytest.mark.parametrize("samples", [10**13, 2**63, 10**40])
def test_more_samples_than_memory_holds_are_refused_before_any_is_drawn(samples):
    with pytest.raises(
        MemoryError, match=rf"^memory: judging {samples} samples takes at least .*ask for fewer"
    ):
        evaluate(nn.Identity(), load_dataset("trimodal1d"), samples=samples)


def test_psnr_is_capped_and_gain_can_clip():
    clean = torch.zeros(2, 1, 8, 8)
    assert mean_psnr(clean, clean) == 100.0
    assert mean_psnr(clean, clean + 2.0) == pytest.approx(0.0)
    assert gain(clean, clean + 2.0, clean) == pytest.approx(100.0)
    assert gain_clipped(clean, clean + 2.0, clean) == pytest.approx(100 - 10 * math.log10(4))


def test_a_context_draws_once_what_all_metrics_judge():
    calls = []

    def f(x):
        calls.append(len(x))
        return x.clamp(-1, 1) * 0.5

    dataset = tiny_images()
    context = EvalContext.prepare(f, dataset, samples=50)
    assert calls == [50, 50]
    torch.testing.assert_close(context.once, f(context.latents), rtol=0, atol=0)
    calls.clear()
    measure(context, chosen_metrics(["samples", "restoration"]))
    restorations = len(calls)
    assert restorations == len(RESTORATIONS)
    measure(context, chosen_metrics(["samples", "restoration"]))
    context.subjects(Restored.own)
    assert len(calls) == restorations


def test_a_metric_is_one_decorated_function():
    @metric(
        "brightness", "closer", "samples", of=SampleSet, needs=("images",), title="brightness", text="mean"
    )
    def _brightness(samples):
        return float(samples.rows.mean())

    try:
        assert "brightness" in selectable()
        found = evaluate(torch.ones_like, tiny_images(), samples=20, metrics=["brightness"])
        assert found.value("brightness", "f(z)") == 1.0
        assert set(found.baselines("brightness")) == {"heldout", "half", "copies", "blur", "pca", "mean"}
        moons = load_dataset("moons")
        assert evaluate(nn.Identity(), moons, samples=20, metrics=["brightness"]).metrics == ["rows_judged"]
        with pytest.raises(ValueError, match="'brightness' is registered already"):
            metric("brightness", "-", "samples", of=SampleSet, title="", text="")(_brightness)
        with pytest.raises(ValueError, match=r"needs: expected some of images, .*got sound"):
            metric("loudness", "-", "samples", of=SampleSet, needs=("sound",), title="", text="")(_brightness)
    finally:
        del METRICS._entries["brightness"]
