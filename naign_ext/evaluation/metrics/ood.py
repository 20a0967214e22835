"""Does |f(x) - x| tell data from what is not data, and grow with the distance from the data?"""

from collections.abc import Callable

from torch import Tensor

from naign_ext.evaluation.correlation import pearson, spearman
from naign_ext.evaluation.field import FieldPoints
from naign_ext.evaluation.ood import auroc
from naign_ext.evaluation.projection import multiscale_residual, normalised_residual
from naign_ext.evaluation.registry import metric
from naign_ext.evaluation.subjects import Detector

Correlation = Callable[[Tensor, Tensor], float]

_NEAREST = ("nearest",)
_OOD = ("an out-of-distribution set", "held-out data")


@metric(
    "ood_auroc",
    "higher",
    "ood",
    of=Detector,
    needs=_OOD,
    family="auroc",
    baselines=("nearest", "variance"),
    title="OOD AUROC",
    text="chance that |f(x) - x| is larger off data",
)
def _ood_auroc(detector: Detector) -> float:
    return auroc(*detector.scores())


@metric(
    "ood_auroc_normalised",
    "higher",
    "ood",
    of=Detector,
    needs=("images", *_OOD),
    family="auroc",
    baselines=_NEAREST,
    title="OOD AUROC, normalised",
    text="the same for the residual over image variance",
)
def _ood_auroc_normalised(detector: Detector) -> float:
    return auroc(*detector.scores(normalised_residual))


@metric(
    "ood_auroc_multiscale",
    "higher",
    "ood",
    of=Detector,
    needs=("images", *_OOD),
    family="auroc",
    baselines=_NEAREST,
    title="OOD AUROC, multiscale",
    text="normalised, mean log over blurs of 0, 1, 2 pixels",
)
def _ood_auroc_multiscale(detector: Detector) -> float:
    return auroc(*detector.scores(multiscale_residual))


def _with_distance(measure: Correlation, residuals: Tensor | None, field: FieldPoints) -> float | None:
    """The correlation; None where the region holds too few points for one."""
    return None if residuals is None else measure(residuals, field.distance)


@metric(
    "residual_spearman",
    "higher",
    "ood",
    of=Detector,
    needs=("a support",),
    family="distance_field",
    baselines=_NEAREST,
    title="distance, near: Spearman",
    text="|f(x) - x| against true distance, within 6 sigma",
)
def _residual_spearman(detector: Detector) -> float | None:
    return _with_distance(spearman, detector.near, detector.context.near)


@metric(
    "residual_pearson",
    "higher",
    "ood",
    of=Detector,
    needs=("a support",),
    family="distance_field",
    baselines=_NEAREST,
    title="distance, near: Pearson",
    text="|f(x) - x| against true distance, within 6 sigma",
)
def _residual_pearson(detector: Detector) -> float | None:
    return _with_distance(pearson, detector.near, detector.context.near)


@metric(
    "residual_spearman_far",
    "higher",
    "ood",
    of=Detector,
    needs=("a support",),
    family="distance_field",
    baselines=_NEAREST,
    title="distance, far: Spearman",
    text="beyond 6 sigma, uniform in 1.5 times the data's box",
)
def _residual_spearman_far(detector: Detector) -> float | None:
    return _with_distance(spearman, detector.far, detector.context.far)


@metric(
    "residual_pearson_far",
    "higher",
    "ood",
    of=Detector,
    needs=("a support",),
    family="distance_field",
    baselines=_NEAREST,
    title="distance, far: Pearson",
    text="beyond 6 sigma, uniform in 1.5 times the data's box",
)
def _residual_pearson_far(detector: Detector) -> float | None:
    return _with_distance(pearson, detector.far, detector.context.far)
