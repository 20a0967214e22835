"""The map f itself, in one and two dimensions."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from naign_ext.evaluation.projection import residual
from naign_ext.report.plots.style import (
    DATA,
    FAINT,
    ONCE,
    OUTSIDE,
    box_of,
    fill_plane,
    new_figure,
    save,
    styled,
)

Map = Callable[[Tensor], Tensor]


def draw_landscape(f: Map, train: Tensor, path: Path) -> Path:
    """1-D: f and its energy over the line. 2-D: the residual over the plane, and where f sends a grid.

    f: of points (N, D) on the CPU to the same; train: (N, D), D = 1 or 2.
    """
    return _draw_line(f, train, path) if train.shape[1] == 1 else _draw_plane(f, train, path)


def _draw_line(f: Map, train: Tensor, path: Path) -> Path:
    low, high = (float(edge[0]) for edge in box_of(train))
    x = torch.linspace(low, high, 1201)[:, None]
    y = f(x)
    energy = residual(x, y).square().numpy()
    line = x[:, 0].numpy()
    with styled():
        figure, axes = new_figure(8.4, 3.0, 1, 2)
        axes[0].plot(line, line, color=FAINT, linewidth=0.8, linestyle="--", label="identity")
        axes[0].plot(line, y[:, 0].numpy(), color=ONCE, linewidth=1.4, label="f")
        axes[0].set_xlabel("x")
        axes[0].set_ylabel("f(x)")
        axes[0].set_title("the map f")
        axes[0].legend(loc="upper left")
        axes[1].plot(line, energy, color=OUTSIDE, linewidth=1.4)
        axes[1].set_xlabel("x")
        axes[1].set_title("energy |f(x) - x|$^2$, and the training data")
        axes[1].set_ylim(bottom=-0.06 * float(energy.max()))
        height = -0.03 * float(energy.max())
        points = train[:500, 0].numpy()
        axes[1].plot(points, np.full(len(points), height), "|", color=DATA, alpha=0.3, markersize=5)
        return save(figure, path)


def _draw_plane(f: Map, train: Tensor, path: Path) -> Path:
    low, high = box_of(train)
    some = train[:600].numpy()
    with styled():
        figure, axes = new_figure(8.8, 4.0, 1, 2, widths=(1.18, 1))
        horizontal, vertical = (
            torch.linspace(float(a), float(b), 241) for a, b in zip(low, high, strict=True)
        )
        grid = torch.stack(torch.meshgrid(horizontal, vertical, indexing="xy"), dim=-1).flatten(0, 1)
        distance = residual(grid, f(grid)).view(241, 241).numpy()
        shown = axes[0].pcolormesh(
            horizontal.numpy(), vertical.numpy(), distance, cmap="magma", shading="gouraud", rasterized=True
        )
        axes[0].scatter(some[:, 0], some[:, 1], s=1.2, color="white", alpha=0.55, linewidths=0)
        fill_plane(axes[0], low, high)
        axes[0].set_title("residual |f(x) - x|, and training data")
        figure.colorbar(shown, ax=axes[0], fraction=0.046, pad=0.03)
        coarse = [torch.linspace(float(a), float(b), 26) for a, b in zip(low, high, strict=True)]
        start = torch.stack(torch.meshgrid(*coarse, indexing="xy"), dim=-1).flatten(0, 1)
        move = f(start) - start
        axes[1].quiver(
            *start.T.numpy(),
            *move.T.numpy(),
            angles="xy",
            scale_units="xy",
            scale=1,
            width=0.0022,
            headwidth=4,
            color=ONCE,
            alpha=0.7,
        )
        axes[1].scatter(some[:, 0], some[:, 1], s=1.5, color=DATA, alpha=0.35, linewidths=0)
        fill_plane(axes[1], low, high)
        axes[1].set_title("where f sends a grid of points")
        return save(figure, path)
