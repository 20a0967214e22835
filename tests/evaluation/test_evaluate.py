"""evaluate: the right figures for each kind of data, judged with networks whose answers are known."""

import math

import pytest
import torch
from torch import nn

from naign_ext.data import Dataset, load_dataset
from naign_ext.evaluation import compare, describe, evaluate


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
    assert found["fixed_point_train"] == found["idempotence"] == found["non_identity"] == 0.0
    for key in ("high_quality", "energy_distance", "w2", "sliced_w2"):
        assert found[key] == found[f"{key}_twice"] == found[f"anchor_{key}_prior"]
    assert found["modes_total"] == 3
    assert found["ood_auroc"] == 0.5
    assert found["anchor_high_quality_truth"] > 0.98
    assert found["anchor_energy_distance_truth"] < 0.05


def test_projection_onto_the_modes_scores_perfectly():
    dataset = load_dataset("8gaussians")
    found = evaluate(Snap(dataset.modes), dataset, latent_scale=3.0)
    assert found["modes"] == found["modes_total"] == 8
    assert found["high_quality"] == 1.0
    assert found["idempotence"] == 0.0
    assert found["non_identity"] > 0.5
    assert found["residual_spearman"] > 0.9
    assert found["ood_auroc"] > 0.95
    assert found["energy_distance"] < found["anchor_energy_distance_gaussian"]


def test_latent_scale_is_the_priors_deviation():
    dataset = load_dataset("moons")
    small, large = (
        evaluate(lambda x: 0 * x, dataset, latent_scale=s, parts=["projection"])["non_identity"]
        for s in (1.0, 3.0)
    )
    assert small == pytest.approx(1.0, rel=0.1)
    assert large == pytest.approx(9 * small, rel=1e-5)


@pytest.mark.parametrize("name", ["moons", "rings", "checkerboard"])
def test_curves_have_high_quality_without_modes(name):
    dataset = load_dataset(name)
    typical = dataset.train[dataset.support_distance(dataset.train) < 0.1]
    found = evaluate(Snap(typical), dataset, latent_scale=2.0, samples=500)
    assert found["high_quality"] == 1.0
    assert found["anchor_high_quality_truth"] > 0.98
    assert "modes" not in found
    assert found["high_quality"] > found["anchor_high_quality_prior"] + 0.3


def test_images_get_images_figures():
    dataset = tiny_images()
    found = evaluate(Snap(dataset.train), dataset, samples=200)
    assert found["fixed_point_train"] < 1e-12
    assert found["idempotence"] < 1e-12
    assert found["fld_pixels"] > 1e3
    assert found["authenticity"] == 0.0
    assert 0 < found["train_coverage"] <= 1
    assert found["ood_auroc"] > 0.95
    assert found["restore_noise_1.0_gain"] > 3
    assert found["restore_noise_1.0_psnr_before"] == pytest.approx(20 * math.log10(2), abs=0.5)
    for kind in ("noise_0.5", "mask", "blur", "downsample"):
        gain = found[f"restore_{kind}_psnr_after"] - found[f"restore_{kind}_psnr_before"]
        assert found[f"restore_{kind}_gain"] == pytest.approx(gain)
        assert f"restore_{kind}_filter_gain" in found
    assert found["anchor_train_coverage_mean"] == pytest.approx(1 / 60)
    assert "fld_features" not in found


def test_labels_bring_a_classifiers_figures():
    dataset = tiny_images(labels=True)
    found = evaluate(Snap(dataset.train), dataset, samples=200)
    assert found["classes"] == found["classes_total"] == 2
    assert found["confident"] > 0.5
    assert "fld_features" in found
    assert "fld_pixels" not in found
    assert 0 <= found["restore_noise_1.0_accuracy_before"] <= 1
    assert found["anchor_accuracy_classifier"] > 0.8


def test_all_figures_are_finite_reproducible_and_described():
    for dataset in (tiny_images(labels=True), load_dataset("grid25")):
        f = Snap(dataset.train[:40])
        first, second = (evaluate(f, dataset, seed=5, samples=100) for _ in range(2))
        assert first == second
        assert all(math.isfinite(value) for value in first.values())
        assert all(isinstance(value, float) for value in first.values())
        unknown = [key for key in first if describe(key).group == "other"]
        assert unknown == []


def test_nothing_held_out_leaves_those_figures_out():
    full = tiny_images()
    dataset = Dataset(name="tiny", kind="image", train=full.train, heldout=full.heldout[:0], ood=full.ood)
    found = evaluate(Snap(dataset.train), dataset, samples=50)
    assert "fixed_point_train" in found
    assert "train_coverage" in found
    for key in found:
        assert not key.startswith(("restore", "ood", "fld"))
    assert "fixed_point_heldout" not in found


def test_parts_choose_the_figures():
    dataset = load_dataset("trimodal1d")
    found = evaluate(nn.Identity(), dataset, samples=100, parts=["projection"])
    assert set(found) == {"fixed_point_train", "fixed_point_heldout", "idempotence", "non_identity"}
    with pytest.raises(ValueError, match=r"parts: expected some of projection.*got figures"):
        evaluate(nn.Identity(), dataset, parts=["figures"])


def test_single_figures_can_be_asked_for():
    found = evaluate(Snap(tiny_images().train), tiny_images(), samples=60, parts=["fid", "auroc"])
    assert set(found) == {"samples", "samples_twice", "fid", "fid_twice"} | {
        f"ood_auroc{kind}" for kind in ("", "_normalised", "_multiscale")
    }
    with_anchors = evaluate(
        Snap(tiny_images().train), tiny_images(), samples=60, parts=["fid", "auroc", "anchors"]
    )
    assert found.items() <= with_anchors.items()
    assert "anchor_fid_blur" in with_anchors
    assert "anchor_fld_pixels_blur" not in with_anchors


def test_anchors_are_ordered_as_they_must_be():
    dataset = tiny_images()
    found = evaluate(Snap(dataset.train), dataset, samples=200)
    assert found["anchor_fid_copies"] < found["anchor_fid_pca"] < found["anchor_fid_mean"]
    assert found["anchor_variance_ratio_mean"] == pytest.approx(0, abs=1e-9)
    assert found["anchor_variance_ratio_blur"] < found["anchor_variance_ratio_copies"]
    assert found["anchor_fld_pixels_copies"] > 1e6
    assert found["anchor_samples_half"] == 30
    assert found["anchor_authenticity_copies"] == 0
    # f maps to the nearest training row, and so does the anchor.
    for key in ("ood_auroc", "ood_auroc_normalised", "ood_auroc_multiscale"):
        assert found[key] == found[f"anchor_{key}_nearest"]
    for key in ("fixed_point_train", "fixed_point_heldout", "idempotence"):
        assert found[key] == pytest.approx(found[f"anchor_{key}_nearest"], abs=1e-9)


def test_the_feature_space_is_the_callers():
    dataset = tiny_images(labels=True)
    f = Snap(dataset.train)
    parts = ["fid", "fld"]
    pixels = evaluate(f, dataset, samples=100, parts=parts, features="pixels")
    components = evaluate(f, dataset, samples=100, parts=parts, features="pca")
    assert "fld_pixels" in pixels
    assert "fld_features" in components
    # A rotation changes no Frechet distance.
    assert components["fid"] == pytest.approx(pixels["fid"], rel=1e-3)
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
    found = evaluate(ToModes(dataset.modes), dataset, samples=200, parts=["likelihood", "anchors"])
    # exp(-d^2 / T) with T = 2 sigma^2 is the mixture itself.
    assert found["temperature"] == pytest.approx(2 * dataset.noise_std**2, rel=0.1)
    assert found["total_variation"] < 0.03
    assert found["log_likelihood"] == pytest.approx(found["anchor_log_likelihood_truth"], abs=0.02)
    assert found["anchor_total_variation_gaussian"] > 0.3
    assert found["total_variation"] < found["anchor_total_variation_kde"]


def test_the_truth_chooses_no_temperature():
    dataset = load_dataset("trimodal1d")
    blind = Dataset(name="unknown", kind="vector", train=dataset.train, heldout=dataset.heldout)
    f = ToModes(dataset.modes)
    first, second = (evaluate(f, d, samples=100, parts=["likelihood"]) for d in (dataset, blind))
    assert first["temperature"] == second["temperature"]
    assert "total_variation" in first
    assert "total_variation" not in second


def test_modules_are_judged_in_eval_mode_and_put_back():
    dataset = load_dataset("trimodal1d")
    network = nn.Sequential(nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
    network[1].eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    evaluate(network, dataset, samples=50, parts=["projection"])
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


def test_compare_caps_equal_images_and_clips():
    clean = torch.zeros(2, 1, 8, 8)
    perfect = compare(clean, clean + 2.0, clean)
    assert perfect["psnr_after"] == 100.0
    assert perfect["psnr_before"] == pytest.approx(0.0)
    assert perfect["gain_clipped"] == pytest.approx(100 - 10 * math.log10(4))
