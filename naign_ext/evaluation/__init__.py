"""Figures that say how good a trained f is, each beside what something trivial would score."""

from naign_ext.evaluation.classifier import dataset_classifier
from naign_ext.evaluation.correlation import pearson, spearman
from naign_ext.evaluation.coverage import (
    ModeCoverage,
    Prdc,
    authenticity,
    mode_coverage,
    prdc,
    train_coverage,
)
from naign_ext.evaluation.descriptions import Figure, describe
from naign_ext.evaluation.distances import energy_distance, sliced_wasserstein2, wasserstein2
from naign_ext.evaluation.evaluate import PARTS, SINGLE, evaluate
from naign_ext.evaluation.features import SPACES, FeaturesUnavailableError, feature_space
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
from naign_ext.evaluation.restoration import compare, restoration

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
