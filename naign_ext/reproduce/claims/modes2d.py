"""Fig. 3: distributions in the plane."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from naign_ext.evaluation import Key
from naign_ext.evaluation.results import MAP, ONCE
from naign_ext.reproduce import drawing
from naign_ext.reproduce.claims.base import Claim, Result
from naign_ext.reproduce.runs import judged_data
from naign_ext.reproduce.study import Evidence, Series, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MODES, QUALITY = Key("modes", ONCE), Key("high_quality", ONCE)
_SHOWN = 2000


def draw(study: Study, evidence: Evidence, result: Result, path: Path) -> None:
    """Data and samples of each method's first seed, a column for each data set."""
    metrics = result["metrics"]
    methods = list(evidence.runs[next(iter(evidence.runs))])
    rows = len(methods) + 1
    with drawing.page(path, rows, len(evidence.runs), height=1.78 * rows + 0.3) as (figure, axes):
        for column, dataset in enumerate(evidence.runs):
            runs = evidence.runs[dataset]
            data = judged_data(runs[methods[0]][0].config).train
            axes[0][column].set_title(dataset)
            _scatter(axes[0][column], data, drawing.TRUE, "")
            for row, method in enumerate(methods, start=1):
                run = runs[method][0]
                samples = run.projector().sample(_SHOWN, seed=1) if run.status == "completed" else data[:0]
                _scatter(axes[row][column], samples, drawing.COLOURS[method], _note(metrics[dataset][method]))
        drawing.side_label(axes[0][0], "data")
        for row, method in enumerate(methods, start=1):
            drawing.side_label(axes[row][0], drawing.label(method).replace(", ", ",\n"))
        drawing.footnote(
            figure,
            f"{study.note}; 2000 samples f(z) of the first; numbers: means over all (good: within 4 sigma of a mode or "
            "3 of a curve)",
        )


def _scatter(axis: "Axes", points: Tensor, colour: str, note: str) -> None:
    inside = (points.abs() <= drawing.EDGE).all(dim=1)
    shown = points[inside]
    axis.scatter(shown[:, 0], shown[:, 1], s=1.1, color=colour, alpha=0.55, linewidths=0, rasterized=True)
    axis.set_xlim(-drawing.EDGE, drawing.EDGE)
    axis.set_ylim(-drawing.EDGE, drawing.EDGE)
    axis.set_aspect("equal")
    drawing.bare(axis)
    for spine in axis.spines.values():
        spine.set_visible(True)
        spine.set_color("#dfe3e6")
    if note:
        axis.text(0.5, -0.03, note, transform=axis.transAxes, ha="center", va="top", fontsize=7)


def _note(series: Series) -> str:
    """Means over the seeds of modes covered and of the share of good samples."""
    parts = []
    for key, text in ((MODES, "{:.3g} modes"), (QUALITY, "{:.0%} good")):
        values = [v for v in series.get(key, []) if v is not None]
        if values:
            parts.append(text.format(torch.tensor(values).mean().item()))
    return ", ".join(parts)


CLAIM = Claim(
    name="modes2d",
    source="Fig. 3",
    title="Modes and curves in the plane",
    sentence="NAIGN covers every mode and curve of two-dimensional distributions; IGN drops some.",
    datasets=("8gaussians", "grid25", "moons", "rings"),
    compared=(MODES, QUALITY, Key("energy_distance", ONCE)),
    shown=(Key("w2", ONCE), Key("idempotence", MAP), Key("non_identity", MAP)),
    caption="Data above, samples f(z) of each method below.",
    draw=draw,
)
