"""Histograms of a detector's scores on data and off the data."""

from pathlib import Path

import numpy as np

from naign_ext.evaluation.projection import multiscale_residual, residual
from naign_ext.evaluation.results import Results
from naign_ext.evaluation.subjects import Detector
from naign_ext.report.plots.style import DATA, OUTSIDE, Array, new_figure, save, styled


def draw_ood(detector: Detector, results: Results, path: Path) -> Path:
    """The residual on held-out data and off the data, for images the multiscale one too, with the AUROC."""
    panels = [("ood_auroc", "residual |f(x) - x|", residual)]
    if detector.context.dataset.kind == "image":
        panels.append(("ood_auroc_multiscale", "multiscale residual (logarithm)", multiscale_residual))
    with styled():
        figure, axes = new_figure(4.2 * len(panels), 2.8, 1, len(panels))
        for axis, (metric, label, measure) in zip(axes, panels, strict=True):
            inside, outside = (scores.cpu().numpy() for scores in detector.scores(measure))
            edges = _bins(np.concatenate([inside, outside]), from_zero=measure is residual)
            for name, values, colour in (
                ("held out", inside, DATA),
                ("out of distribution", outside, OUTSIDE),
            ):
                kept = np.clip(values, edges[0], edges[-1])
                counts = np.histogram(kept, edges)[0] / len(kept)
                axis.stairs(counts, edges, fill=True, color=colour, alpha=0.55, label=name)
            axis.set_xlabel(label)
            axis.set_yticks([])
            axis.spines["left"].set_visible(False)
            auroc = results.find(metric, detector.name)
            axis.set_title("" if auroc is None else f"AUROC {auroc:.3f}")
        axes[0].legend(loc="upper right")
        return save(figure, path)


def _bins(values: Array, *, from_zero: bool) -> Array:
    """41 edges over the values; the most extreme half percent at either end falls into the outermost bins."""
    low, high = (float(v) for v in np.quantile(values, [0.005, 0.995]))
    low = 0.0 if from_zero else low
    return np.linspace(low, max(high, low + 1e-9), 41)
