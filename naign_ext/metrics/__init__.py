"""Figures that say how good a trained f is, each beside what something trivial would score."""

from naign_ext.metrics.coverage import (
    ModeCoverage,
    Prdc,
    authenticity,
    mode_coverage,
    prdc,
    train_coverage,
)
from naign_ext.metrics.distances import energy_distance, sliced_wasserstein2, wasserstein2
from naign_ext.metrics.evaluate import PARTS, compare, evaluate
from naign_ext.metrics.figures import Figure, describe
from naign_ext.metrics.fld import fld
from naign_ext.metrics.image_quality import psnr, ssim
from naign_ext.metrics.ood import auroc, nearest_distance
from naign_ext.metrics.projection import (
    fixed_point_error,
    idempotence_error,
    non_identity,
    normalised_residual,
    residual,
)

__all__ = [
    "PARTS",
    "Figure",
    "ModeCoverage",
    "Prdc",
    "auroc",
    "authenticity",
    "compare",
    "describe",
    "energy_distance",
    "evaluate",
    "fixed_point_error",
    "fld",
    "idempotence_error",
    "mode_coverage",
    "nearest_distance",
    "non_identity",
    "normalised_residual",
    "prdc",
    "psnr",
    "residual",
    "sliced_wasserstein2",
    "ssim",
    "train_coverage",
    "wasserstein2",
]
