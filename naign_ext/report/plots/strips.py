"""Rows of images, one under another: samples and their nearest training images, corrupted images and f of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from naign_ext.evaluation.ood import nearest_row
from naign_ext.evaluation.results import BEST, Condition, Results
from naign_ext.evaluation.subjects import Restored
from naign_ext.report.plots.sheet import Sheet, enlargement, is_small, mosaic, spread
from naign_ext.report.plots.style import BAD, GOOD, styled

_LEFT, _RIGHT, _SPACE = 200, 140, 24
# By whether images are small; of larger ones in colour a file holds no more with colours enough.
_TALLEST = {True: 2700, False: 1400}

K = TypeVar("K")


@dataclass(frozen=True)
class Strip:
    """A row of images (N, C, H, W), its label at the left, and at the right a note and a gain in dB."""

    label: str
    images: Tensor
    note: str = ""
    gain: float | None = None


def columns(images: Tensor) -> int:
    """How many images (N, C, H, W) of their size are shown in a row."""
    return 8 if is_small(images) else 5


def draw_neighbours(samples: Tensor, train: Tensor, path: Path) -> Path:
    """Samples (M, C, H, W) above their nearest training images (N, C, H, W), two rows of each."""
    groups = []
    for some in torch.split(samples[: 2 * columns(samples)], columns(samples)):
        groups.append([Strip("f(z)", some), Strip("nearest in\ntraining set", nearest_row(train, some))])
    return draw_strips(groups, path)


def draw_interpolations(
    between: Sequence[Tensor], fades: Sequence[tuple[Tensor, Tensor]], path: Path
) -> Path:
    """f between two latents, (N, C, H, W) each; and cross-fades of two images above f of them."""
    groups = [[Strip("between\ntwo latents", images) for images in between]]
    groups += [[Strip("two images,\nmixed", mixed), Strip("f of that", after)] for mixed, after in fades]
    return draw_strips(groups, path)


def draw_restored(restored: Sequence[Restored], results: Results, path: Path) -> dict[Path, str]:
    """Held-out images, each corruption of them, and f of that; at the right the means over all held-out images.

    What is too tall for one picture goes on in more, "NAME-2.png" and so on, which begin with the images again. The
    answer has what is shown beside each file: corruptions, in words.
    """
    count = columns(restored[0].clean)
    groups: dict[tuple[str, float | None], list[Strip]] = {}
    for images in restored:
        condition = images.condition
        assert condition is not None
        group = groups.setdefault((condition.corruption, condition.strength), [])
        if not group:
            before = _decibel(results, "corrupted", condition)
            group.append(Strip(_words(condition), spread(images.corrupted, count).cpu(), before))
        label = "known part\nkept" if condition.known else "f of that"
        label = "f at its best" if images.name == BEST else label
        after, gain = _decibel(results, images.name, condition), results.find("gain", images.name, condition)
        group.append(Strip(label, spread(images.restored, count).cpu(), after, gain))
    original = Strip("original", spread(restored[0].clean, count).cpu())
    tallest = _TALLEST[is_small(original.images)]
    drawn: dict[Path, str] = {}
    for keys in _pages(_pitch(original), {key: len(group) for key, group in groups.items()}, tallest):
        file = path.with_stem(f"{path.stem}-{len(drawn) + 1}") if drawn else path
        draw_strips([[original], *(groups[key] for key in keys)], file)
        drawn[file] = ", ".join(Condition(*key).words for key in keys)
    return drawn


def _pages(pitch: int, rows: Mapping[K, int], tallest: int) -> list[list[K]]:
    """Those groups, of so many rows, that one picture has room for below a row of its own; and those of the next."""
    pages: list[list[K]] = []
    left = 0
    for key, count in rows.items():
        height = count * pitch + _SPACE
        if height > left:
            pages.append([])
            left = tallest - pitch
        pages[-1].append(key)
        left -= height
    return pages


def _words(condition: Condition) -> str:
    """With the deviation of noise below it."""
    if condition.corruption == "noise":
        return f"noise\n$\\sigma$ = {condition.strength}"
    return condition.words


def _decibel(results: Results, subject: str, condition: Condition) -> str:
    """The mean PSNR; empty where it was not measured."""
    value = results.find("psnr", subject, condition)
    return "" if value is None else f"{value:.1f} dB"


def _pitch(strip: Strip) -> int:
    """From the top of a strip to the top of the next."""
    times = enlargement(strip.images)
    height: int = mosaic(strip.images[:1], 1).shape[0]
    return (height + 1) * times


def draw_strips(groups: Sequence[Sequence[Strip]], path: Path) -> Path:
    """The strips one under another; a little space between groups."""
    first = groups[0][0]
    times, pitch = enlargement(first.images), _pitch(first)
    width = mosaic(first.images, len(first.images), times=times).shape[1]
    count = sum(len(group) for group in groups)
    right = _RIGHT if any(strip.note for group in groups for strip in group) else 0
    sheet = Sheet(_LEFT + width + right, count * pitch - times + (len(groups) - 1) * _SPACE)
    top = 0
    with styled():
        for group in groups:
            for strip in group:
                sheet.put(mosaic(strip.images, len(strip.images), times=times), _LEFT, top)
                middle = top + (pitch - times) / 2
                sheet.write(strip.label, _LEFT - 16, middle, ha="right", va="center")
                _write_note(sheet, strip, _LEFT + width + 16, middle)
                top += pitch
            top += _SPACE
        return sheet.save(path)


def _write_note(sheet: Sheet, strip: Strip, x: int, y: float) -> None:
    """The note at the right of a strip, and below it the gain, green or red."""
    if strip.gain is None:
        sheet.write(strip.note, x, y, va="center", fontsize=8)
        return
    sheet.write(strip.note, x, y - 4, va="bottom", fontsize=8)
    colour = GOOD if strip.gain >= 0 else BAD
    sheet.write(f"{strip.gain:+.1f} dB", x, y + 4, va="top", fontsize=8, color=colour)
