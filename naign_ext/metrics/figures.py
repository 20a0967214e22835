"""What each figure of :func:`naign_ext.metrics.evaluate` means, for tables and reports."""

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
  samples              | samples judged              | -      | number of samples behind these figures
  modes                | modes covered               | higher | modes with >= 1/10 of their share of samples
  modes_total          | modes of the data           | -      | number of modes of the true distribution
  classes              | classes covered             | higher | classes with >= 1/10 of their share of samples
  classes_total        | classes of the data         | -      | number of classes of the data set
  high_quality         | high quality                | higher | share within 3 sigma (2-D modes: 4) of support
  confident            | confident samples           | higher | share classified with probability > 0.9
  energy_distance      | energy distance             | lower  | 2 E|X-Y| - E|X-X'| - E|Y-Y'|, Y true
  w2                   | W2                          | lower  | 2-Wasserstein distance, at most 1000 points
  sliced_w2            | sliced W2                   | lower  | root mean square of W2 over 128 directions
  fld_features         | FLD                         | lower  | likelihood divergence, classifier's features
  fld_pixels           | FLD, pixels                 | lower  | likelihood divergence; unsteady for few images
  train_coverage       | train coverage              | higher | share of training data nearest to some sample
  precision            | precision                   | higher | share of samples in the data's 5-NN balls
  recall               | recall                      | higher | share of data in the samples' 5-NN balls
  density              | density                     | higher | samples per 5-NN ball of the data, over 5
  coverage             | coverage                    | higher | share of the data's 5-NN balls with a sample
  authenticity         | authenticity                | higher | AuthPct; low for copies, and for blur
  variance_ratio       | variance ratio              | closer | variance over the data's; blur is < 1
out of distribution
  ood_auroc            | OOD AUROC                   | higher | chance that |f(x) - x| is larger off data
  ood_auroc_normalised | OOD AUROC, normalised       | higher | the same for the residual over image variance
  residual_spearman    | residual against distance   | higher | rank correlation with the distance, near field
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
_RESTORED_KEY = re.compile(r"restore_([a-z]+(?:_[0-9.]+)?)_(" + "|".join(_RESTORED) + ")")
_BASELINES = {
    "prior": "latents themselves",
    "gaussian": "fitted Gaussian",
    "pca": "8-component PCA Gaussian",
    "mean": "mean image",
    "heldout": "held-out data",
    "truth": "fresh true draw",
    "nearest": "nearest training distance",
    "variance": "small image variance",
    "classifier": "clean images",
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
        what = restored[1].replace("_", " ")
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
    who = _BASELINES.get(baseline, baseline)
    return Figure(key, f"{base.title}: {who}", "-", "anchors", f"to judge '{base.title}' by: {base.text}")
