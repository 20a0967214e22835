"""What each figure of :func:`naign_ext.evaluation.evaluate` means, for tables and reports."""

import re
from dataclasses import dataclass
from typing import Literal, cast

Better = Literal["lower", "higher", "closer", "-"]


@dataclass(frozen=True)
class Figure:
    """title: a few words; better: which way is good (closer: to 1; -: it only explains); text: a sentence."""

    key: str
    title: str
    better: Better
    group: str
    text: str


# group: key | title | better | text
_TABLE = """
projection
  fixed_point_train    | fixed-point error, train    | lower  | mean |f(x) - x|^2 over the training set
  fixed_point_heldout  | fixed-point error, held out | lower  | mean |f(x) - x|^2 over held-out data
  idempotence          | idempotence error           | lower  | mean |f(f(z)) - f(z)|^2 over latents z
  non_identity         | non-identity                | -      | mean |f(z) - z|^2; near 0, f is the identity
samples
  samples              | rows judged                 | -      | number of samples behind these figures
  modes                | modes covered               | higher | modes with >= 1/10 of their share of samples
  modes_total          | modes of the data           | -      | number of modes of the true distribution
  high_quality         | high quality                | higher | share within 3 sigma (2-D modes: 4) of support
  classes              | classes covered             | higher | classes with >= 1/10 of their share of samples
  classes_total        | classes of the data         | -      | number of classes of the data set
  confident            | confident samples           | higher | share classified with probability > 0.9
  fld_features         | FLD                         | lower  | feature likelihood divergence, hundredths of a nat
  fld_pixels           | FLD, pixels                 | lower  | feature likelihood divergence; unsteady for few images
  fid                  | FID                         | lower  | Frechet distance to the training set, these features
  kid                  | KID                         | lower  | kernel distance to the training set, these features
  energy_distance      | energy distance             | lower  | 2 E|X-Y| - E|X-X'| - E|Y-Y'|, Y data
  w2                   | W2                          | lower  | 2-Wasserstein distance, at most 1000 points
  sliced_w2            | sliced W2                   | lower  | root mean square of W2 over 128 directions
  precision            | precision                   | higher | share of samples in the data's 5-NN balls
  recall               | recall                      | higher | share of data in the samples' 5-NN balls
  density              | density                     | higher | samples per 5-NN ball of the data, over 5
  coverage             | coverage                    | higher | share of the data's 5-NN balls with a sample
  train_coverage       | train coverage              | higher | share of training data nearest to some sample
  authenticity         | authenticity                | higher | AuthPct; low for copies, and for blur
  variance_ratio       | variance ratio              | closer | variance over the data's; blur is < 1
out of distribution
  ood_auroc            | OOD AUROC                   | higher | chance that |f(x) - x| is larger off data
  ood_auroc_normalised | OOD AUROC, normalised       | higher | the same for the residual over image variance
  ood_auroc_multiscale | OOD AUROC, multiscale       | higher | normalised, mean log over blurs of 0, 1, 2 pixels
  residual_spearman    | distance, near: Spearman    | higher | |f(x) - x| against true distance, within 6 sigma
  residual_pearson     | distance, near: Pearson     | higher | |f(x) - x| against true distance, within 6 sigma
  residual_spearman_far | distance, far: Spearman    | higher | beyond 6 sigma, uniform in 1.5 times the data's box
  residual_pearson_far | distance, far: Pearson      | higher | beyond 6 sigma, uniform in 1.5 times the data's box
energy density exp(-E/T)/Z
  temperature          | temperature T               | -      | fitted to every other held-out point
  log_likelihood       | log-likelihood              | higher | mean log density of the other held-out points, nats
  total_variation      | total variation             | lower  | half the integral of |density - truth|, in [0, 1]
"""

_RESTORED = {
    "psnr_before": ("PSNR before, dB", "-", "of the corrupted held-out images"),
    "psnr_after": ("PSNR after, dB", "higher", "of f(corrupted)"),
    "gain": ("gain, dB", "higher", "PSNR of f(corrupted) minus PSNR of the corrupted images"),
    "gain_clipped": ("gain over clipping, dB", "higher", "the same, all values clipped to [-1, 1] first"),
    "ssim_before": ("SSIM before", "-", "of the corrupted held-out images"),
    "ssim_after": ("SSIM after", "higher", "of f(corrupted)"),
    "accuracy_before": ("accuracy before", "-", "of a classifier on the corrupted images"),
    "accuracy_after": ("accuracy after", "higher", "of a classifier on f(corrupted)"),
    "filter_gain": ("Gaussian filter, dB", "-", "anchor: gain of the Gaussian filter best on training data"),
}
_RESTORED_KEY = re.compile(r"restore_([a-z]+(?:_[0-9.]+|_known)?)_(" + "|".join(_RESTORED) + ")")
# Baselines: a short name for a column, and what it is.
BASELINES = {
    "prior": ("latents", "the latents themselves"),
    "gaussian": ("Gaussian", "draws of the Gaussian with the training mean and covariance"),
    "truth": ("true draw", "fresh draws of the true distribution"),
    "heldout": ("held out", "held-out images as if they were samples"),
    "half": ("half", "half of the training images as samples, the other half as the training set"),
    "copies": ("copies", "training data drawn with replacement"),
    "blur": ("blur", "copies under a Gaussian blur of .7 pixel"),
    "pca": ("PCA", "a Gaussian of 8 principal components"),
    "mean": ("mean", "the training mean, repeated, or in place of f(x)"),
    "nearest": ("nearest", "the nearest training row in place of f(x)"),
    "variance": ("variance", "a small variance of the image counts as not being data"),
    "kde": ("kernel", "kernel density estimate of the training set, bandwidth fitted as T is"),
    "classifier": ("clean", "the clean images"),
}


def _parse(table: str) -> dict[str, Figure]:
    found, group = {}, ""
    for line in table.strip().splitlines():
        if not line.startswith(" "):
            group = line
            continue
        key, title, better, text = (cell.strip() for cell in line.split(" | ", 3))
        found[key] = Figure(key, title, cast(Better, better), group, text)
    return found


_FIGURES = _parse(_TABLE)


def describe(key: str) -> Figure:
    """The meaning of one key of evaluate's answer; an unknown key describes itself."""
    if key.startswith("anchor_"):
        return _describe_anchor(key)
    restored = _RESTORED_KEY.fullmatch(key)
    if restored:
        title, better, text = _RESTORED[restored[2]]
        what = restored[1].replace("_known", ", known kept").replace("_", " ")
        return Figure(key, f"{what}: {title}", cast(Better, better), "restoration", text)
    base = _FIGURES.get(key.removesuffix("_twice"))
    if base is None:
        return Figure(key, key.replace("_", " "), "-", "other", "")
    if key.endswith("_twice"):
        return Figure(key, f"{base.title}, f(f(z))", base.better, base.group, f"{base.text}; of f(f(z))")
    return base


def _describe_anchor(key: str) -> Figure:
    """Keys anchor_FIGURE_BASELINE: the figure that something without a network gets."""
    figure, _, baseline = key.removeprefix("anchor_").rpartition("_")
    base = describe(figure)
    name, what = BASELINES.get(baseline, (baseline, baseline))
    return Figure(key, f"{base.title}: {name}", "-", "anchors", f"{what}; {base.text}")
