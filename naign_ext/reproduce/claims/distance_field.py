"""The residual as the distance to the data."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from naign_ext.evaluation import Key
from naign_ext.evaluation.results import MAP
from naign_ext.reproduce import drawing
from naign_ext.reproduce.claims.base import Claim, Result
from naign_ext.reproduce.methods import IGN, METHODS, NAIGN
from naign_ext.reproduce.runs import judged_data
from naign_ext.reproduce.study import Evidence, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CORRELATION = Key("residual_spearman", MAP)
_HIGHEST = 1.2


def draw(study: Study, evidence: Evidence, result: Result, path: Path) -> None:
    """True distance and |f(x) - x| over the plane, on one scale."""
    axis_values, grid = drawing.plane()
    columns = [*NAIGN, IGN]
    with drawing.page(path, len(evidence.runs), 1 + len(columns), height=1.62 * len(evidence.runs) + 0.5) as (
        figure,
        axes,
    ):
        for row, dataset in zip(axes, evidence.runs, strict=True):
            runs = evidence.runs[dataset]
            truth = judged_data(runs[columns[0]][0].config).support_distance
            assert truth is not None
            shown = _field(row[0], axis_values, truth(grid))
            drawing.side_label(row[0], dataset)
            for method, axis in zip(columns, row[1:], strict=True):
                run = runs[method][0]
                if run.status == "completed":
                    _field(axis, axis_values, run.projector().score(grid).residual)
                drawing.bare(axis)
                correlations = result["metrics"][dataset][method].get(CORRELATION, [])
                axis.set_xlabel(drawing.mean_note("correlation", correlations), fontsize=7)
        for axis, title in zip(axes[0], ["true distance", *(METHODS[m].label for m in columns)], strict=True):
            axis.set_title(title)
        bar = figure.colorbar(
            shown, ax=[a for row in axes for a in row], fraction=0.025, pad=0.01, extend="max"
        )
        bar.set_label("distance, |f(x) - x|")
        drawing.footnote(
            figure,
            f"{study.note}, the first shown; lines every 0.2; numbers: rank correlation with the true distance near "
            "the data, means",
        )


def _field(axis: "Axes", line: torch.Tensor, values: torch.Tensor) -> Any:
    field = values.view(drawing.SIDE, drawing.SIDE).clamp(max=_HIGHEST).numpy()
    shown = axis.pcolormesh(
        line.numpy(),
        line.numpy(),
        field,
        cmap="magma",
        vmin=0,
        vmax=_HIGHEST,
        shading="gouraud",
        rasterized=True,
    )
    levels = [0.2 * i for i in range(1, 6)]
    axis.contour(line.numpy(), line.numpy(), field, levels=levels, colors="white", linewidths=0.35, alpha=0.7)
    axis.set_aspect("equal")
    drawing.bare(axis)
    return shown


CLAIM = Claim(
    name="distance-field",
    source="Section 3, distance field",
    title="The residual is a distance field",
    sentence="|f(x) - x| of NAIGN follows the distance to the data, and better than that of IGN.",
    datasets=("moons", "rings", "grid25"),
    compared=(
        CORRELATION,
        Key("residual_pearson", MAP),
        Key("residual_spearman_far", MAP),
        Key("residual_pearson_far", MAP),
    ),
    caption="Distance to the noise-free support, and the residual |f(x) - x| of each method.",
    draw=draw,
)
