"""The look of all pictures of a run: colours, fonts, sizes, and the few things that several of them need."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from naign_ext.pictures import MOST_BYTES, save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, np.dtype[np.floating[Any]]]

DATA, ONCE, TWICE, OUTSIDE = "#495867", "#2b6cb0", "#dd7a2b", "#b83b5e"
GOOD, BAD, FAINT = "#2f7d4f", "#b83b5e", "#9aa5b1"
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#5f6b76",
    "axes.labelcolor": "#2d3640",
    "xtick.color": "#5f6b76",
    "ytick.color": "#5f6b76",
    "text.color": "#2d3640",
    "legend.frameon": False,
    "savefig.facecolor": "white",
}
DPI = 192
"""Twice the 96 of a page, which shows pictures at half their size: sharp on screens of one or two pixels a point."""


def styled() -> Any:
    """A context in which figures have the style."""
    import matplotlib

    return matplotlib.rc_context(STYLE)


def new_figure(
    width: float,
    height: float,
    rows: int,
    columns: int,
    *,
    sharex: bool = False,
    widths: Sequence[float] = (),
) -> tuple["Figure", list["Axes"]]:
    """A figure of so many inches with rows x columns axes; widths: of the columns, in proportion."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(wspace=0.06)  # type: ignore[union-attr, call-arg]
    axes = figure.subplots(
        rows,
        columns,
        squeeze=False,
        sharex=sharex,
        gridspec_kw={"width_ratios": widths} if widths else None,
    )
    return figure, list(axes.flat)


def save(figure: "Figure", path: Path, *, tight: bool = True) -> Path:
    """Write a figure as PNG of at most MOST_BYTES, with a palette where it has to be; tight: without the margins."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    drawn = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(drawn, format="png", dpi=DPI, bbox_inches="tight" if tight else None, pad_inches=0.08)
    if drawn.tell() > MOST_BYTES:
        return save_png(Image.open(drawn), path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(drawn.getvalue())
    return path


def box_of(data: Tensor) -> tuple[Tensor, Tensor]:
    """Lowest and highest corner (D,) of the box of data (N, D), a quarter wider on each side."""
    low, high = data.amin(dim=0), data.amax(dim=0)
    margin = 0.25 * (high - low).clamp(min=1e-3)
    return low - margin, high + margin


def fill_plane(axis: "Axes", low: Tensor, high: Tensor) -> None:
    """Limits of a plane, its two axes on one scale."""
    axis.set_xlim(float(low[0]), float(high[0]))
    axis.set_ylim(float(low[1]), float(high[1]))
    axis.set_aspect("equal")
