"""Pictures of what a trained f does, one file for each kind: matplotlib figures as PNG, images shown pixel by pixel."""

from naign_ext.report.plots.landscape import draw_landscape
from naign_ext.report.plots.ood import draw_ood
from naign_ext.report.plots.samples import draw_samples
from naign_ext.report.plots.sheet import reduction, spread
from naign_ext.report.plots.strips import columns, draw_interpolations, draw_neighbours, draw_restored
from naign_ext.report.plots.training import draw_training

__all__ = [
    "columns",
    "draw_interpolations",
    "draw_landscape",
    "draw_neighbours",
    "draw_ood",
    "draw_restored",
    "draw_samples",
    "draw_training",
    "reduction",
    "spread",
]
