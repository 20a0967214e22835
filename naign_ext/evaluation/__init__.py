"""Metrics that say how good a trained f is, each beside what has no network in it would score."""

from naign_ext.evaluation import metrics
from naign_ext.evaluation.classifier import dataset_classifier
from naign_ext.evaluation.context import EvalContext
from naign_ext.evaluation.correlation import pearson, spearman
from naign_ext.evaluation.coverage import (
    ModeCoverage,
    Prdc,
    authenticity,
    mode_coverage,
    near_copies,
    prdc,
    train_coverage,
)
from naign_ext.evaluation.distances import energy_distance, sliced_wasserstein2, wasserstein2
from naign_ext.evaluation.evaluate import evaluate
from naign_ext.evaluation.features import SPACES, feature_space
from naign_ext.evaluation.fid import fid, kid
from naign_ext.evaluation.fld import fld
from naign_ext.evaluation.image_quality import psnr, ssim
from naign_ext.evaluation.ood import auroc, nearest_distance
from naign_ext.evaluation.projection import (
    fixed_point_error,
    idempotence_error,
    multiscale_residual,
    non_identity,
    normalised_residual,
    residual,
)
from naign_ext.evaluation.registry import METRICS, Metric, describe, metric
from naign_ext.evaluation.restoration import gain, gain_clipped
from naign_ext.evaluation.results import Condition, Key, Results, Row
from naign_ext.features import FeaturesUnavailableError

__all__ = [
    "METRICS",
    "SPACES",
    "Condition",
    "EvalContext",
    "FeaturesUnavailableError",
    "Key",
    "Metric",
    "ModeCoverage",
    "Prdc",
    "Results",
    "Row",
    "auroc",
    "authenticity",
    "dataset_classifier",
    "describe",
    "energy_distance",
    "evaluate",
    "feature_space",
    "fid",
    "fixed_point_error",
    "fld",
    "gain",
    "gain_clipped",
    "idempotence_error",
    "kid",
    "metric",
    "metrics",
    "mode_coverage",
    "multiscale_residual",
    "near_copies",
    "nearest_distance",
    "non_identity",
    "normalised_residual",
    "pearson",
    "prdc",
    "psnr",
    "residual",
    "sliced_wasserstein2",
    "spearman",
    "ssim",
    "train_coverage",
    "wasserstein2",
]
