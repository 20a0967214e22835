"""Pictures of what a trained f does, as PNG files: matplotlib figures, images in [-1, 1] shown pixel by
pixel."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from naign_ext.data import Dataset
from naign_ext.evaluation.projection import multiscale_residual, residual
from naign_ext.evaluation.restoration import RESTORATIONS, with_known
from naign_ext.ops import imle_knn
from naign_ext.transforms import corrupt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Map = Callable[[Tensor], Tensor]
Array = np.ndarray[Any, np.dtype[np.floating[Any]]]

DATA, ONCE, TWICE, OUTSIDE = "#495867", "#2b6cb0", "#dd7a2b", "#b83b5e"
GOOD, BAD, FAINT = "#2f7d4f", "#b83b5e", "#9aa5b1"
TITLES = {"data": "training data", "once": "f(z)", "twice": "f(f(z))"}
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
_SHOWN = 2000


def draw_samples(f: Map, latents: Tensor, dataset: Dataset, path: Path, *, steps: int = 2) -> Path:
    """Training data beside f(z) and, for steps = 2, f(f(z)): mosaics, histograms (1-D) or scatter plots."""
    count = 36 if dataset.kind == "image" else _SHOWN
    kinds = ["data", "once", "twice"][: 1 + steps]
    sets = [dataset.train[:count]]
    y = latents[:count]
    for _ in range(steps):
        y = f(y)
        sets.append(y)
    if dataset.kind == "image":
        return _draw_mosaics(dict(zip(kinds, sets, strict=True)), path)
    if dataset.sample_shape == (1,):
        return _draw_histograms(dict(zip(kinds, sets, strict=True)), path)
    return _draw_scatter(dict(zip(kinds, sets, strict=True)), dataset, path)


def draw_neighbours(samples: Tensor, dataset: Dataset, path: Path) -> Path:
    """Samples above their nearest training images: how much is memorised."""
    samples = samples[:12]
    nearest = imle_knn(samples.flatten(1), dataset.train.flatten(1)).indices[:, 0]
    strips = [("f(z)", samples, ""), ("nearest in\ntraining set", dataset.train[nearest], "")]
    return _draw_strips([strips], path)


def draw_restored(
    f: Map,
    dataset: Dataset,
    path: Path,
    seed: int,
    figures: Mapping[str, float],
    *,
    columns: int = 10,
) -> Path:
    """Held-out images, each corruption of them, and f of that; at the right the means over all held-out
    images."""
    clean = dataset.heldout[:columns]
    groups: list[list[tuple[str, Tensor, str]]] = [[("original", clean, "")]]
    for name, kind, strength in RESTORATIONS:
        corrupted, lost = corrupt(clean, kind, seed=seed, strength=strength)
        title = name.replace("noise_", "noise\n$\\sigma$ = ")
        group = [(title, corrupted, _decibel(figures, name, "before"))]
        restored = f(corrupted)
        group.append(("restored", restored, _decibel(figures, name, "after")))
        if (kept := with_known(restored, corrupted, kind, strength, lost)) is not None:
            group.append(("known part\nkept", kept, _decibel(figures, f"{name}_known", "after")))
        groups.append(group)
    return _draw_strips(groups, path)


def _decibel(figures: Mapping[str, float], name: str, when: str) -> str:
    """The mean PSNR, and below it the gain; empty where it was not measured."""
    key = f"restore_{name}_psnr_{when}"
    if key not in figures:
        return ""
    gain = f"\n{figures[f'restore_{name}_gain']:+.1f}" if when == "after" else ""
    return f"{figures[key]:.1f} dB{gain}"


def draw_ood(f: Map, dataset: Dataset, path: Path, figures: Mapping[str, float]) -> Path:
    """Histograms of the residual on held-out data and off the data, with the AUROC."""
    assert dataset.ood is not None
    sets = {"held out": (dataset.heldout, DATA), "out of distribution": (dataset.ood, OUTSIDE)}
    measures = [("ood_auroc", "residual |f(x) - x|", residual)]
    if dataset.kind == "image":
        measures.append(("ood_auroc_multiscale", "multiscale residual (logarithm)", multiscale_residual))
    with _styled():
        figure, axes = _figure(4.2 * len(measures), 2.8, 1, len(measures))
        for axis, (key, label, measure) in zip(axes, measures, strict=True):
            values = {name: measure(x, f(x)).numpy() for name, (x, _) in sets.items()}
            edges = _bins(np.concatenate(list(values.values())), from_zero=key == "ood_auroc")
            for name, (_, colour) in sets.items():
                kept = np.clip(values[name], edges[0], edges[-1])
                counts = np.histogram(kept, edges)[0] / len(kept)
                axis.stairs(counts, edges, fill=True, color=colour, alpha=0.55, label=name)
            axis.set_xlabel(label)
            axis.set_yticks([])
            axis.spines["left"].set_visible(False)
            axis.set_title(f"AUROC {figures[key]:.3f}" if key in figures else "")
        axes[0].legend(loc="upper right")
        return _save(figure, path)


def _bins(values: Array, *, from_zero: bool) -> Array:
    """41 edges over the values; the most extreme half percent at either end falls into the outermost bins."""
    low, high = (float(v) for v in np.quantile(values, [0.005, 0.995]))
    low = 0.0 if from_zero else low
    return np.linspace(low, max(high, low + 1e-9), 41)


def draw_landscape(f: Map, dataset: Dataset, path: Path) -> Path:
    """1-D: f and its energy over the line. 2-D: the residual over the plane, and where f sends a grid."""
    if dataset.sample_shape == (1,):
        return _draw_line(f, dataset, path)
    return _draw_plane(f, dataset, path)


def draw_training(records: Sequence[Mapping[str, Any]], path: Path) -> Path | None:
    """Loss terms and validation figures over the updates; None where nothing was recorded."""
    losses = [r for r in records if r.get("kind") == "train"]
    checks = [r for r in records if r.get("kind") == "validation"]
    if not losses:
        return None
    with _styled():
        figure, axes = _figure(8.4, 2.8, 1, 2)
        terms = {"loss": [r.get("loss") for r in losses]}
        for name in losses[-1].get("terms", {}):
            terms[name] = [r.get("terms", {}).get(name) for r in losses]
        _lines(axes[0], [r["step"] for r in losses], terms, "loss terms, unweighted", logarithmic=True)
        names = ("fixed_point", "imle", "projection")
        validation = {name: [r.get(name) for r in checks] for name in names}
        _lines(axes[1], [r["step"] for r in checks], validation, "validation on held-out data")
        return _save(figure, path)


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


def _draw_mosaics(sets: Mapping[str, Tensor], path: Path) -> Path:
    with _styled():
        figure, axes = _figure(3.0 * len(sets), 3.25, 1, len(sets))
        for axis, (name, images) in zip(axes, sets.items(), strict=True):
            _show(axis, mosaic(images, 6))
            axis.set_title(TITLES[name])
        return _save(figure, path)


def _draw_strips(groups: Sequence[Sequence[tuple[str, Tensor, str]]], path: Path) -> Path:
    """Rows of images, each with a label at its left and a note at its right; a little space between
    groups."""
    rows = [(i, *strip) for i, group in enumerate(groups) for strip in group]
    picture = mosaic(rows[0][2], len(rows[0][2]))
    left, share = 0.125, 0.785 if any(note for *_, note in rows) else 0.865
    height = WIDTH * share * picture.shape[0] / picture.shape[1]
    pitch, space = 1.04 * height, 0.28 * height
    total = len(rows) * pitch + (len(groups) - 1) * space + 0.1
    with _styled():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, total))
        top = total - 0.05
        for i, (group, label, images, note) in enumerate(rows):
            if i and group != rows[i - 1][0]:
                top -= space
            axis = figure.add_axes((left, (top - height) / total, share, height / total))
            _show(axis, mosaic(images, len(images)))
            axis.text(-0.012, 0.5, label, transform=axis.transAxes, ha="right", va="center")
            _write_note(axis, note)
            top -= pitch
        return _save(figure, path, tight=False)


def _write_note(axis: "Axes", note: str) -> None:
    """A line at the right of a strip, and a gain below it, green or red."""
    first, _, gain = note.partition("\n")
    place: Any = {"transform": axis.transAxes, "va": "center", "fontsize": 8}
    axis.text(1.012, 0.64 if gain else 0.5, first, **place)
    if gain:
        axis.text(1.012, 0.33, f"{gain} dB", color=GOOD if gain.startswith("+") else BAD, **place)


def _draw_histograms(sets: Mapping[str, Tensor], path: Path) -> Path:
    colours = {"data": DATA, "once": ONCE, "twice": TWICE}
    data = sets["data"]
    low, high = _range(data)
    bins = np.linspace(float(low[0]), float(high[0]), 161)
    with _styled():
        figure, axes = _figure(8.4, 1.35 * len(sets), len(sets), 1, sharex=True)
        for axis, (name, values) in zip(axes, sets.items(), strict=True):
            counts = np.histogram(values[:, 0].numpy(), bins)[0] / (len(values) * (bins[1] - bins[0]))
            axis.stairs(counts, bins, fill=True, color=colours[name], alpha=0.75)
            reference = np.histogram(data[:, 0].numpy(), bins)[0] / (len(data) * (bins[1] - bins[0]))
            if name != "data":
                axis.stairs(reference, bins, color=DATA, linewidth=0.7)
            axis.set_ylabel(TITLES[name])
            axis.set_yticks([])
            axis.spines["left"].set_visible(False)
        axes[-1].set_xlabel("x")
        return _save(figure, path)


def _draw_scatter(sets: Mapping[str, Tensor], dataset: Dataset, path: Path) -> Path:
    """Scatter plots; beyond two dimensions along the data's first two principal components."""
    sets = dict(sets)
    label = ""
    if dataset.sample_shape[0] > 2:
        centre = dataset.train.mean(dim=0)
        axes_of = torch.linalg.svd(dataset.train - centre, full_matrices=False).Vh[:2].T
        sets = {name: (points - centre) @ axes_of for name, points in sets.items()}
        label = "principal component"
    low, high = _range(sets["data"])
    colours = {"data": DATA, "once": ONCE, "twice": TWICE}
    with _styled():
        figure, axes = _figure(3.0 * len(sets), 3.25, 1, len(sets))
        for axis, (name, points) in zip(axes, sets.items(), strict=True):
            inside = ((points >= low) & (points <= high)).all(dim=1)
            axis.scatter(
                points[inside, 0], points[inside, 1], s=2.5, color=colours[name], alpha=0.5, linewidths=0
            )
            outside = int((~inside).sum())
            axis.set_title(TITLES[name] + (f"  ({outside} of {len(points)} outside)" if outside else ""))
            _plane_axis(axis, low, high)
            if label:
                axis.set_xlabel(f"{label} 1")
                axis.set_ylabel(f"{label} 2")
        return _save(figure, path)


def _draw_line(f: Map, dataset: Dataset, path: Path) -> Path:
    low, high = (float(edge[0]) for edge in _range(dataset.train))
    x = torch.linspace(low, high, 1201)[:, None]
    y = f(x)
    energy = residual(x, y).square().numpy()
    line = x[:, 0].numpy()
    with _styled():
        figure, axes = _figure(8.4, 3.0, 1, 2)
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
        points = dataset.train[:500, 0].numpy()
        axes[1].plot(points, np.full(len(points), height), "|", color=DATA, alpha=0.3, markersize=5)
        return _save(figure, path)


def _draw_plane(f: Map, dataset: Dataset, path: Path) -> Path:
    low, high = _range(dataset.train)
    some = dataset.train[:600].numpy()
    with _styled():
        figure, axes = _figure(8.8, 4.0, 1, 2, widths=(1.18, 1))
        horizontal, vertical = (
            torch.linspace(float(a), float(b), 241) for a, b in zip(low, high, strict=True)
        )
        grid = torch.stack(torch.meshgrid(horizontal, vertical, indexing="xy"), dim=-1).flatten(0, 1)
        distance = residual(grid, f(grid)).view(241, 241).numpy()
        shown = axes[0].pcolormesh(
            horizontal.numpy(), vertical.numpy(), distance, cmap="magma", shading="gouraud", rasterized=True
        )
        axes[0].scatter(some[:, 0], some[:, 1], s=1.2, color="white", alpha=0.55, linewidths=0)
        _plane_axis(axes[0], low, high)
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
        _plane_axis(axes[1], low, high)
        axes[1].set_title("where f sends a grid of points")
        return _save(figure, path)


def _plane_axis(axis: "Axes", low: Tensor, high: Tensor) -> None:
    axis.set_xlim(float(low[0]), float(high[0]))
    axis.set_ylim(float(low[1]), float(high[1]))
    axis.set_aspect("equal")


def _range(data: Tensor) -> tuple[Tensor, Tensor]:
    """The data's box, a quarter wider on each side."""
    low, high = data.amin(dim=0), data.amax(dim=0)
    margin = 0.25 * (high - low).clamp(min=1e-3)
    return low - margin, high + margin


def _show(axis: "Axes", picture: Array) -> None:
    axis.imshow(picture, interpolation="nearest", vmin=0, vmax=1)
    axis.set_axis_off()


def _styled() -> Any:
    import matplotlib

    return matplotlib.rc_context(STYLE)


def _figure(
    width: float,
    height: float,
    rows: int,
    columns: int,
    *,
    sharex: bool = False,
    widths: Sequence[float] = (),
) -> tuple["Figure", list["Axes"]]:
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


def _save(figure: "Figure", path: Path, *, tight: bool = True) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=DPI, bbox_inches="tight" if tight else None, pad_inches=0.08)
    return path
