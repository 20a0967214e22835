"""The look of all pictures of a reproduction, and the plots that several claims share.

Colours differ in lightness as well as in hue, and every method has its own marker and line, so that the figures
can be read in grey.
"""

import statistics
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from naign_ext.pictures import save_figure
from naign_ext.report.plots.sheet import mosaic
from naign_ext.report.plots.style import STYLE
from naign_ext.reproduce.methods import BEST, IGN, IGN_SECONDS, METHODS, PLAIN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

COLOURS = {PLAIN: "#6fa8dc", BEST: "#0b3c6f", IGN: "#d96c1e", IGN_SECONDS: "#e8b04a"}
MARKERS = {PLAIN: "o", BEST: "D", IGN: "s", IGN_SECONDS: "v"}
LINES: dict[str, Any] = {
    PLAIN: (0, (5, 1.5)),
    BEST: "-",
    IGN: (0, (1.2, 1.2)),
    IGN_SECONDS: (0, (4, 1.5, 1, 1.5)),
}
INK, FAINT, TRUE = "#2d3640", "#9aa5b1", "#495867"
WIDTH = 7.2
EDGE, SIDE = 3.0, 161
DPI = 200
_LOOK = {
    **STYLE,
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "legend.fontsize": 7.5,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "pdf.fonttype": 42,
}


def label(method: str) -> str:
    """A method's name in figures."""
    return METHODS[method].label


@contextmanager
def page(
    path: Path, rows: int, columns: int, *, height: float, width: float = WIDTH, **grid: Any
) -> Iterator[tuple["Figure", list[list["Axes"]]]]:
    """A figure with rows x columns axes, written to path when the block ends."""
    with sheet(path, height=height, width=width) as figure:
        axes = figure.subplots(rows, columns, squeeze=False, **grid)
        yield figure, [list(row) for row in axes]


@contextmanager
def sheet(path: Path, *, height: float, width: float = WIDTH) -> Iterator["Figure"]:
    """An empty figure, written to path in the format of its ending when the block ends."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_LOOK):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        save_figure(figure, path, DPI)


def footnote(figure: "FigureBase", text: str) -> None:
    """Lines below the figure: seeds, and what the shading is."""
    figure.supxlabel(textwrap.fill(text, 118), fontsize=7, color=TRUE)


def band(
    axis: "Axes", x: Sequence[float], rows: Sequence[Sequence[float]], method: str, **options: Any
) -> None:
    """The mean of several runs over x as a line, their least and largest value shaded."""
    values = np.asarray(rows, dtype=float)
    axis.fill_between(
        x, values.min(axis=0), values.max(axis=0), color=COLOURS[method], alpha=0.22, linewidth=0
    )
    marker = MARKERS[method] if len(x) <= 16 else ""
    given: dict[str, Any] = {"label": label(method), "marker": marker, "markersize": 3.5, **options}
    axis.plot(x, values.mean(axis=0), color=COLOURS[method], linestyle=LINES[method], linewidth=1.5, **given)


def dots(
    axis: "Axes",
    rows: Sequence[str],
    values: Mapping[str, Sequence[Sequence[float]]],
    baselines: Sequence[Mapping[str, Sequence[float]]] = (),
) -> None:
    """A row for each name: the mean of each method as its marker on a line from its least to its largest value.

    values: by method, for each row the seeds' values (empty: nothing drawn). baselines: for each row theirs,
    drawn as crosses.
    """
    offsets = np.linspace(-0.28, 0.28, len(values)) if len(values) > 1 else [0.0]
    for offset, (method, of_rows) in zip(offsets, values.items(), strict=True):
        for i, seeds in enumerate(of_rows):
            if not seeds:
                continue
            axis.plot(
                [min(seeds), max(seeds)], [i + offset] * 2, color=COLOURS[method], linewidth=1.6, zorder=2
            )
            mean = statistics.fmean(seeds)
            shown = label(method) if i == _first(of_rows) else None
            axis.plot(
                mean, i + offset, MARKERS[method], color=COLOURS[method], markersize=4.5, label=shown, zorder=3,
                markeredgecolor="white", markeredgewidth=0.5, linestyle="none",
            )  # fmt: skip
    for i, of_row in enumerate(baselines):
        means = [statistics.fmean(v) for v in of_row.values() if v]
        axis.plot(
            means, [i] * len(means), "x", color=TRUE, markersize=4.5, markeredgewidth=1.1, zorder=1,
            label="trivial baselines" if i == 0 and means else None,
        )  # fmt: skip
    axis.set_yticks(range(len(rows)), rows)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", color="#e6e9ec", linewidth=0.6)
    for i in range(1, len(rows)):
        axis.axhline(i - 0.5, color="#eef0f2", linewidth=0.8, zorder=0)


def _first(of_rows: Sequence[Sequence[float]]) -> int:
    return next((i for i, seeds in enumerate(of_rows) if seeds), -1)


def plane() -> tuple[Tensor, Tensor]:
    """The square [-EDGE, EDGE]^2: the SIDE coordinates of an axis, and all points of the grid (SIDE^2, 2), by rows."""
    line = torch.linspace(-EDGE, EDGE, SIDE)
    return line, torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1).flatten(0, 1)


def mean_note(words: str, values: Sequence[float | None]) -> str:
    """words and the mean over the seeds that have a value, in two decimals; a dash where none has."""
    present = [v for v in values if v is not None]
    return f"{words} {statistics.fmean(present):.2f}" if present else "-"


def images(axis: "Axes", pictures: Tensor, columns: int, *, gap: int = 1) -> None:
    """Images (N, C, H, W) in [-1, 1] in rows of columns."""
    axis.imshow(mosaic(pictures, columns, gap=gap), interpolation="nearest", vmin=0, vmax=1)
    bare(axis)


def bare(axis: "Axes") -> None:
    """No ticks, no frame; titles and labels stay."""
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)


def side_label(axis: "Axes", text: str) -> None:
    """Text at the left of an axis, upright."""
    axis.set_ylabel(text, rotation=0, ha="right", va="center", labelpad=6)
