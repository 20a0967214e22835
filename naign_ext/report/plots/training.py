"""The course of training: loss terms, and what was measured on validation data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from naign_ext.report.plots.style import DATA, FAINT, GOOD, ONCE, OUTSIDE, TWICE, new_figure, save, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_training(records: Sequence[Mapping[str, Any]], path: Path) -> Path | None:
    """Loss terms and validation scores over the updates; None where nothing was recorded."""
    losses = [r for r in records if r.get("kind") == "train"]
    checks = [r for r in records if r.get("kind") == "validation"]
    if not losses:
        return None
    with styled():
        figure, axes = new_figure(8.4, 2.8, 1, 2)
        terms = {"loss": [r.get("loss") for r in losses]}
        for name in losses[-1].get("terms", {}):
            terms[name] = [r.get("terms", {}).get(name) for r in losses]
        _lines(axes[0], [r["step"] for r in losses], terms, "loss terms, unweighted", logarithmic=True)
        names = ("fixed_point", "imle", "projection")
        validation = {name: [r.get(name) for r in checks] for name in names}
        _lines(axes[1], [r["step"] for r in checks], validation, "validation on held-out data")
        return save(figure, path)


def _lines(
    axis: "Axes",
    steps: Sequence[int],
    series: Mapping[str, Sequence[Any]],
    title: str,
    *,
    logarithmic: bool = False,
) -> None:
    colours = [DATA, ONCE, TWICE, OUTSIDE, GOOD, FAINT]
    marker = "" if len(steps) > 30 else "o"
    for i, (name, values) in enumerate(series.items()):
        numbers = np.array([np.nan if v is None or v <= 0 else v for v in values], dtype=float)
        if np.isfinite(numbers).any():
            label = name.replace("_", " ")
            colour = colours[i % len(colours)]
            axis.plot(steps, numbers, color=colour, label=label, linewidth=1.2, marker=marker, markersize=3)
    if axis.get_lines():
        if logarithmic:
            axis.set_yscale("log")
            _plain_log_ticks(axis)
        else:
            axis.set_ylim(bottom=0)
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    axis.set_xlabel("updates")
    axis.set_title(title)
    axis.grid(axis="y", color="#e6e9ec", linewidth=0.6)


def _plain_log_ticks(axis: "Axes") -> None:
    """Ticks at 1, 2 and 5 times powers of ten, written as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
