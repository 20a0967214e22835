"""Rows of images, one under another: samples and their nearest training images, corrupted images and f of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from naign_ext.evaluation.ood import nearest_row
from naign_ext.evaluation.results import Condition, Results
from naign_ext.evaluation.subjects import Restored
from naign_ext.report.plots.style import BAD, GOOD, WIDTH, mosaic, save, show, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 10
_NEIGHBOURS = 12


@dataclass(frozen=True)
class Strip:
    """A row of images (N, C, H, W), its label at the left, and at the right a note and a gain in dB."""

    label: str
    images: Tensor
    note: str = ""
    gain: float | None = None


def draw_neighbours(samples: Tensor, train: Tensor, path: Path) -> Path:
    """Samples (M, C, H, W) above their nearest training images (N, C, H, W): how much is memorised."""
    samples = samples[:_NEIGHBOURS]
    nearest = nearest_row(train, samples)
    return draw_strips([[Strip("f(z)", samples), Strip("nearest in\ntraining set", nearest)]], path)


def draw_restored(restored: Sequence[Restored], results: Results, path: Path) -> Path:
    """Held-out images, each corruption of them, and f of that; at the right the means over all held-out images."""
    groups: dict[tuple[str, float | None], list[Strip]] = {}
    for images in restored:
        condition = images.condition
        assert condition is not None
        group = groups.setdefault((condition.corruption, condition.strength), [])
        if not group:
            before = _decibel(results, "corrupted", condition)
            group.append(Strip(_words(condition), images.corrupted[:_COLUMNS].cpu(), before))
        label = "known part\nkept" if condition.known else "restored"
        after, gain = _decibel(results, images.name, condition), results.find("gain", images.name, condition)
        group.append(Strip(label, images.restored[:_COLUMNS].cpu(), after, gain))
    original = Strip("original", restored[0].clean[:_COLUMNS].cpu())
    return draw_strips([[original], *groups.values()], path)


def _words(condition: Condition) -> str:
    """With the deviation of noise below it."""
    if condition.corruption == "noise":
        return f"noise\n$\\sigma$ = {condition.strength}"
    return condition.words


def _decibel(results: Results, subject: str, condition: Condition) -> str:
    """The mean PSNR; empty where it was not measured."""
    value = results.find("psnr", subject, condition)
    return "" if value is None else f"{value:.1f} dB"


def draw_strips(groups: Sequence[Sequence[Strip]], path: Path) -> Path:
    """The strips one under another; a little space between groups."""
    strips = [(i, strip) for i, group in enumerate(groups) for strip in group]
    columns = len(strips[0][1].images)
    picture = mosaic(strips[0][1].images, columns)
    left, share = 0.125, 0.785 if any(strip.note for _, strip in strips) else 0.865
    height = WIDTH * share * picture.shape[0] / picture.shape[1]
    pitch, space = 1.04 * height, 0.28 * height
    total = len(strips) * pitch + (len(groups) - 1) * space + 0.1
    with styled():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, total))
        top = total - 0.05
        for i, (group, strip) in enumerate(strips):
            if i and group != strips[i - 1][0]:
                top -= space
            axis = figure.add_axes((left, (top - height) / total, share, height / total))
            show(axis, mosaic(strip.images, len(strip.images)))
            axis.text(-0.012, 0.5, strip.label, transform=axis.transAxes, ha="right", va="center")
            _write_note(axis, strip)
            top -= pitch
        return save(figure, path, tight=False)


def _write_note(axis: "Axes", strip: Strip) -> None:
    """The note at the right of a strip, and below it the gain, green or red."""
    place: Any = {"transform": axis.transAxes, "va": "center", "fontsize": 8}
    axis.text(1.012, 0.5 if strip.gain is None else 0.64, strip.note, **place)
    if strip.gain is not None:
        axis.text(1.012, 0.33, f"{strip.gain:+.1f} dB", color=GOOD if strip.gain >= 0 else BAD, **place)
