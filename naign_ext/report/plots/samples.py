"""Training data beside samples: mosaics of images, histograms on a line, scatter plots of vectors."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from naign_ext.report.plots.sheet import Sheet, enlargement, is_small, mosaic, spread
from naign_ext.report.plots.style import DATA, ONCE, TWICE, box_of, fill_plane, new_figure, save, styled

TRAINING = "training data"
_COLOURS = {TRAINING: DATA, "f(z)": ONCE, "f(f(z))": TWICE}
_POINTS = 2000
_PANEL, _TITLE, _SPACE = 600, 44, 28


def draw_samples(train: Tensor, samples: Mapping[str, Tensor], path: Path) -> Path:
    """Training data (N, ...) beside sets of samples (M, ...) by name, "f(z)" and "f(f(z))"; some of each."""
    sets = {TRAINING: train, **samples}
    if train.dim() == 4:
        return _draw_mosaics(sets, path)
    sets = {name: rows[:_POINTS] for name, rows in sets.items()}
    return _draw_histograms(sets, path) if train.shape[1] == 1 else _draw_scatter(sets, train, path)


def _draw_mosaics(sets: Mapping[str, Tensor], path: Path) -> Path:
    """Squares of 25 small images or 16 larger ones; of training data, which may be sorted, some from everywhere."""
    side = 5 if is_small(sets[TRAINING]) else 4
    times = enlargement(sets[TRAINING], _PANEL // side)
    panels = {}
    for name, images in sets.items():
        some = spread(images, side**2) if name == TRAINING else images[: side**2]
        panels[name] = mosaic(some, side, times=times)
    height, width, _ = next(iter(panels.values())).shape
    sheet = Sheet(len(panels) * (width + _SPACE) - _SPACE, _TITLE + height)
    with styled():
        for i, (name, picture) in enumerate(panels.items()):
            left = i * (width + _SPACE)
            sheet.put(picture, left, _TITLE)
            sheet.write(name, left + width / 2, 0.7 * _TITLE, ha="center", va="baseline", fontsize=10)
        return sheet.save(path)


def _draw_histograms(sets: Mapping[str, Tensor], path: Path) -> Path:
    data = sets[TRAINING]
    low, high = box_of(data)
    bins = np.linspace(float(low[0]), float(high[0]), 161)
    with styled():
        figure, axes = new_figure(8.4, 1.35 * len(sets), len(sets), 1, sharex=True)
        for axis, (name, values) in zip(axes, sets.items(), strict=True):
            counts = np.histogram(values[:, 0].numpy(), bins)[0] / (len(values) * (bins[1] - bins[0]))
            axis.stairs(counts, bins, fill=True, color=_COLOURS[name], alpha=0.75)
            reference = np.histogram(data[:, 0].numpy(), bins)[0] / (len(data) * (bins[1] - bins[0]))
            if name != TRAINING:
                axis.stairs(reference, bins, color=DATA, linewidth=0.7)
            axis.set_ylabel(name)
            axis.set_yticks([])
            axis.spines["left"].set_visible(False)
        axes[-1].set_xlabel("x")
        return save(figure, path)


def _draw_scatter(sets: Mapping[str, Tensor], train: Tensor, path: Path) -> Path:
    """Scatter plots; beyond two dimensions along the data's first two principal components."""
    label = ""
    if train.shape[1] > 2:
        centre = train.mean(dim=0)
        axes_of = torch.linalg.svd(train - centre, full_matrices=False).Vh[:2].T
        sets = {name: (points - centre) @ axes_of for name, points in sets.items()}
        label = "principal component"
    low, high = box_of(sets[TRAINING])
    with styled():
        figure, axes = new_figure(3.0 * len(sets), 3.25, 1, len(sets))
        for axis, (name, points) in zip(axes, sets.items(), strict=True):
            inside = ((points >= low) & (points <= high)).all(dim=1)
            axis.scatter(
                points[inside, 0], points[inside, 1], s=2.5, color=_COLOURS[name], alpha=0.5, linewidths=0
            )
            outside = int((~inside).sum())
            axis.set_title(name + (f"  ({outside} of {len(points)} outside)" if outside else ""))
            fill_plane(axis, low, high)
            if label:
                axis.set_xlabel(f"{label} 1")
                axis.set_ylabel(f"{label} 2")
        return save(figure, path)
