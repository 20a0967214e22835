"""Quality and coverage of samples: of f(z), of f(f(z)), and of samplers without a network."""

import math

from naign_ext.evaluation import coverage, distances, fid
from naign_ext.evaluation.classifier import class_coverage
from naign_ext.evaluation.field import REACH, noise_of
from naign_ext.evaluation.registry import metric
from naign_ext.evaluation.subjects import DataSubject, SampleSet


@metric(
    "rows_judged",
    "-",
    "samples",
    of=SampleSet,
    title="rows judged",
    text="number of samples behind these metrics",
)
def _rows_judged(samples: SampleSet) -> float:
    return float(len(samples.rows))


@metric(
    "modes",
    "higher",
    "samples",
    of=SampleSet,
    needs=("modes",),
    total="modes_total",
    title="modes covered",
    text="modes with >= 1/10 of their share of samples",
)
def _modes(samples: SampleSet) -> float:
    return float(samples.modes.covered)


@metric(
    "modes_total",
    "-",
    "samples",
    of=DataSubject,
    needs=("modes",),
    family="modes",
    title="modes of the data",
    text="number of modes of the true distribution",
)
def _modes_total(data: DataSubject) -> float | None:
    modes = data.context.dataset.modes
    return None if modes is None else float(len(modes))


@metric(
    "high_quality",
    "higher",
    "samples",
    of=SampleSet,
    needs=("modes or a support",),
    title="high quality",
    text="share within 3 sigma (2-D modes: 4) of support",
)
def _high_quality(samples: SampleSet) -> float | None:
    dataset = samples.context.dataset
    if dataset.modes is not None and dataset.mode_std is not None:
        return samples.modes.high_quality
    if dataset.support_distance is None:
        return None
    near = REACH / 2 * noise_of(dataset)
    return float((dataset.support_distance(samples.rows.cpu()) <= near).float().mean())


@metric(
    "classes",
    "higher",
    "samples",
    of=SampleSet,
    needs=("labels",),
    total="classes_total",
    title="classes covered",
    text="classes with >= 1/10 of their share of samples",
)
def _classes(samples: SampleSet) -> float:
    return float(class_coverage(samples.probabilities))


@metric(
    "classes_total",
    "-",
    "samples",
    of=DataSubject,
    needs=("labels",),
    family="classes",
    title="classes of the data",
    text="number of classes of the data set",
)
def _classes_total(data: DataSubject) -> float | None:
    classifier = data.context.judges.classifier
    return None if classifier is None else float(classifier.classes)


@metric(
    "confident",
    "higher",
    "samples",
    of=SampleSet,
    needs=("labels",),
    family="classes",
    title="confident samples",
    text="share classified with probability > 0.9",
)
def _confident(samples: SampleSet) -> float:
    return float((samples.probabilities.amax(dim=1) > 0.9).float().mean())


# Held-out images judged against themselves have a distance of zero by construction.
_NOT_HELD_OUT = ("half", "copies", "blur", "pca", "mean")


@metric(
    "fld",
    "lower",
    "samples",
    of=SampleSet,
    needs=("held-out images that differ", "other features than pixels"),
    baselines=_NOT_HELD_OUT,
    title="FLD",
    text="feature likelihood divergence, hundredths of a nat",
)
def _fld(samples: SampleSet) -> float | None:
    return None if samples.context.fld is None else samples.context.fld(samples.features)


@metric(
    "fld_pixels",
    "lower",
    "samples",
    of=SampleSet,
    needs=("held-out images that differ", "pixels as features"),
    baselines=_NOT_HELD_OUT,
    family="fld",
    title="FLD, pixels",
    text="feature likelihood divergence; unsteady for few images",
)
def _fld_pixels(samples: SampleSet) -> float | None:
    return _fld(samples)


@metric(
    "fid",
    "lower",
    "samples",
    of=SampleSet,
    needs=("images", "2 training rows"),
    title="FID",
    text="Frechet distance to the training set, these features",
)
def _fid(samples: SampleSet) -> float:
    return fid.fid(samples.compared_with, samples.features)


@metric(
    "kid",
    "lower",
    "samples",
    of=SampleSet,
    needs=("images", "2 training rows"),
    title="KID",
    text="kernel distance to the training set, these features",
)
def _kid(samples: SampleSet) -> float:
    return fid.kid(samples.compared_with, samples.features)


@metric(
    "energy_distance",
    "lower",
    "samples",
    of=SampleSet,
    needs=("data to compare with",),
    title="energy distance",
    text="2 E|X-Y| - E|X-X'| - E|Y-Y'|, Y data",
)
def _energy_distance(samples: SampleSet) -> float:
    return distances.energy_distance(samples.features, samples.compared_with, seed=samples.context.seed)


@metric(
    "w2",
    "lower",
    "samples",
    of=SampleSet,
    needs=("data to compare with",),
    title="W2",
    text="2-Wasserstein distance, at most 1000 points",
)
def _w2(samples: SampleSet) -> float:
    return distances.wasserstein2(samples.features, samples.compared_with, seed=samples.context.seed)


@metric(
    "sliced_w2",
    "lower",
    "samples",
    of=SampleSet,
    needs=("data to compare with",),
    title="sliced W2",
    text="root mean square of W2 over 128 directions",
)
def _sliced_w2(samples: SampleSet) -> float:
    return distances.sliced_wasserstein2(samples.features, samples.compared_with, seed=samples.context.seed)


@metric(
    "precision",
    "higher",
    "samples",
    of=SampleSet,
    needs=("images", "6 training rows"),
    family="prdc",
    title="precision",
    text="share of samples in the data's 5-NN balls",
)
def _precision(samples: SampleSet) -> float:
    return samples.prdc.precision


@metric(
    "recall",
    "higher",
    "samples",
    of=SampleSet,
    needs=("images", "6 training rows"),
    family="prdc",
    title="recall",
    text="share of data in the samples' 5-NN balls",
)
def _recall(samples: SampleSet) -> float:
    return samples.prdc.recall


@metric(
    "density",
    "higher",
    "samples",
    of=SampleSet,
    needs=("images", "6 training rows"),
    family="prdc",
    title="density",
    text="samples per 5-NN ball of the data, over 5",
)
def _density(samples: SampleSet) -> float:
    return samples.prdc.density


@metric(
    "coverage",
    "higher",
    "samples",
    of=SampleSet,
    needs=("images", "6 training rows"),
    family="prdc",
    title="coverage",
    text="share of the data's 5-NN balls with a sample",
)
def _coverage(samples: SampleSet) -> float:
    return samples.prdc.coverage


@metric(
    "authenticity",
    "higher",
    "samples",
    of=SampleSet,
    needs=("images", "2 training rows"),
    title="authenticity",
    text="AuthPct; low for copies, and for blur",
)
def _authenticity(samples: SampleSet) -> float:
    return coverage.authenticity(samples.context.train, samples.rows)


@metric(
    "near_copies",
    "lower",
    "samples",
    of=SampleSet,
    needs=("images", "2 training rows"),
    title="near copies",
    text="share thrice as near to one training image as to any other",
)
def _near_copies(samples: SampleSet) -> float:
    return coverage.near_copies(samples.context.train, samples.rows)


@metric(
    "variance_ratio",
    "closer",
    "samples",
    of=SampleSet,
    needs=("images", "2 training rows"),
    title="variance ratio",
    text="variance over the data's; blur is < 1",
)
def _variance_ratio(samples: SampleSet) -> float:
    ours, data = (
        float(t.flatten(1).double().var(dim=0).sum()) for t in (samples.rows, samples.context.train)
    )
    return ours / data if data > 0 else math.nan


@metric(
    "train_coverage",
    "higher",
    "samples",
    of=SampleSet,
    title="train coverage",
    text="share of training data nearest to some sample",
)
def _train_coverage(samples: SampleSet) -> float:
    return coverage.train_coverage(samples.context.train, samples.rows)
