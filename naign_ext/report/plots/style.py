"""The look of all pictures of a run: colours, fonts, sizes, and the few things that several of them need."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

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
DPI = 160
WIDTH = 8.4


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
    """Write a figure as PNG; tight: without the margins."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=DPI, bbox_inches="tight" if tight else None, pad_inches=0.08)
    return path


def mosaic(images: Tensor, columns: int, *, gap: int = 1) -> Array:
    """Images (N, C, H, W) in [-1, 1] side by side on white, (rows, columns, 3) in [0, 1]."""
    pixels = (images.detach().cpu().float().clamp(-1, 1) + 1) / 2
    count, _, height, width = pixels.shape
    rows = -(-count // columns)
    page = torch.ones(3, rows * (height + gap) - gap, columns * (width + gap) - gap)
    for i, picture in enumerate(pixels):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        page[:, top : top + height, left : left + width] = picture
    array: Array = page.permute(1, 2, 0).numpy()
    return array


def show(axis: "Axes", picture: Array) -> None:
    """A picture without frame, pixel by pixel."""
    axis.imshow(picture, interpolation="nearest", vmin=0, vmax=1)
    axis.set_axis_off()


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
