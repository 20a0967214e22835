"""The density exp(-|f(x) - x|^2 / T) / Z."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from naign_ext.evaluation import Key
from naign_ext.evaluation.results import MAP
from naign_ext.reproduce import drawing
from naign_ext.reproduce.claims.base import Claim, Result
from naign_ext.reproduce.methods import IGN, METHODS, NAIGN
from naign_ext.reproduce.runs import Run, judged_data
from naign_ext.reproduce.study import Evidence, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TEMPERATURE, TOTAL_VARIATION = Key("temperature", MAP), Key("total_variation", MAP)
_LINE = torch.linspace(-6.5, 6.5, 1301)
_EXTENT = (-drawing.EDGE, drawing.EDGE, -drawing.EDGE, drawing.EDGE)


def draw(study: Study, evidence: Evidence, result: Result, path: Path) -> None:
    """The density of each method's first seed beside the true one: a row for the line, a row for each plane."""
    columns = [*NAIGN, IGN]
    with drawing.page(path, len(evidence.runs), 1 + len(columns), height=1.75 * len(evidence.runs) + 0.5) as (
        figure,
        axes,
    ):
        for row, dataset in zip(axes, evidence.runs, strict=True):
            runs = evidence.runs[dataset]
            first = runs[columns[0]][0]
            _true(row[0], first)
            drawing.side_label(row[0], dataset)
            for method, axis in zip(columns, row[1:], strict=True):
                run = runs[method][0]
                drawing.bare(axis)
                if TEMPERATURE in run.results:
                    _density(axis, run, method)
                distances = result["metrics"][dataset][method].get(TOTAL_VARIATION, [])
                axis.set_xlabel(drawing.mean_note("total variation", distances), fontsize=7)
        for axis, title in zip(axes[0], ["truth", *(METHODS[m].label for m in columns)], strict=True):
            axis.set_title(title)
        drawing.footnote(
            figure,
            f"{study.note}, the first shown; T makes one half of the held-out points most likely; numbers: total "
            "variation to the truth (0 equal, 1 disjoint), means",
        )


def _true(axis: "Axes", run: Run) -> None:
    dataset = judged_data(run.config)
    assert dataset.sample_truth is not None
    draws = dataset.sample_truth(200_000, 3)
    if draws.shape[1] == 1:
        axis.hist(
            draws[:, 0].numpy(), bins=260, range=(-6.5, 6.5), color=drawing.FAINT, density=True,
            histtype="stepfilled",
        )  # fmt: skip
        axis.set_xlim(-6.5, 6.5)
    else:
        counts = torch.histogramdd(draws, [drawing.SIDE, drawing.SIDE], range=[*_EXTENT]).hist
        _picture(axis, counts.T)
    drawing.bare(axis)


def _density(axis: "Axes", run: Run, method: str) -> None:
    projector, temperature = run.projector(), run.results[TEMPERATURE]
    if projector.sample_shape == (1,):
        energy = projector.score(_LINE[:, None]).energy.double()
        shares = (-energy / temperature).softmax(dim=0)
        density = shares / float(_LINE[1] - _LINE[0])
        axis.fill_between(_LINE, density, color=drawing.COLOURS[method], linewidth=0, alpha=0.9)
        axis.set_xlim(-6.5, 6.5)
        axis.set_ylim(bottom=0)
        return
    energy = projector.score(drawing.plane()[1]).energy.double()
    _picture(axis, (-energy / temperature).softmax(dim=0).view(drawing.SIDE, drawing.SIDE))


def _picture(axis: "Axes", values: torch.Tensor) -> None:
    """Root of the density, so that what is faint is seen; each on its own scale."""
    axis.imshow(values.sqrt().numpy(), origin="lower", extent=_EXTENT, cmap="Greys", interpolation="bilinear")


CLAIM = Claim(
    name="energy-density",
    source="Section 3, energy-based model",
    title="The residual is an energy",
    sentence="exp(-|f(x) - x|^2 / T) / Z of NAIGN is close to the density of the data.",
    datasets=("trimodal1d", "8gaussians", "moons"),
    compared=(TOTAL_VARIATION, Key("log_likelihood", MAP)),
    shown=(TEMPERATURE,),
    caption="Densities exp(-|f(x) - x|^2 / T) / Z, T fitted to held-out points, never to the truth (planes: root of "
    "the density).",
    draw=draw,
)
