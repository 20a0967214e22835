"""Figures that say how good a trained f is, each beside what something trivial would score."""

from naign_ext.metrics.classifier import dataset_classifier
from naign_ext.metrics.correlation import pearson, spearman
from naign_ext.metrics.coverage import (
    ModeCoverage,
    Prdc,
    authenticity,
    mode_coverage,
    prdc,
    train_coverage,
)
from naign_ext.metrics.distances import energy_distance, sliced_wasserstein2, wasserstein2
from naign_ext.metrics.evaluate import PARTS, SINGLE, evaluate
from naign_ext.metrics.features import SPACES, FeaturesUnavailableError, feature_space
from naign_ext.metrics.fid import fid, kid
from naign_ext.metrics.figures import Figure, describe
from naign_ext.metrics.fld import fld
from naign_ext.metrics.image_quality import psnr, ssim
from naign_ext.metrics.ood import auroc, nearest_distance
from naign_ext.metrics.projection import (
    fixed_point_error,
    idempotence_error,
    multiscale_residual,
    non_identity,
    normalised_residual,
    residual,
)
from naign_ext.metrics.restoration import compare, restoration

__all__ = [
    "PARTS",
    "SINGLE",
    "SPACES",
    "FeaturesUnavailableError",
    "Figure",
    "ModeCoverage",
    "Prdc",
    "auroc",
    "authenticity",
    "compare",
    "dataset_classifier",
    "describe",
    "energy_distance",
    "evaluate",
    "feature_space",
    "fid",
    "fixed_point_error",
    "fld",
    "idempotence_error",
    "kid",
    "mode_coverage",
    "multiscale_residual",
    "nearest_distance",
    "non_identity",
    "normalised_residual",
    "pearson",
    "prdc",
    "psnr",
    "residual",
    "restoration",
    "sliced_wasserstein2",
    "spearman",
    "ssim",
    "train_coverage",
    "wasserstein2",
]
