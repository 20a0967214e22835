"""Images on a sheet: every pixel of theirs a square of whole pixels of the picture, so that small ones stay crisp."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from naign_ext.report.plots.style import DPI, Array, save

SMALL = 40
"""Images up to this side in pixels are shown many to a row."""

_LARGEST = 72
_CELL = {True: 160, False: 260}


class Sheet:
    """A white page of width x height pixels; places are counted from its upper left corner."""

    def __init__(self, width: int, height: int) -> None:
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        # A hundredth of a pixel more, as matplotlib rounds down.
        self.figure = Figure(figsize=((width + 0.01) / DPI, (height + 0.01) / DPI), dpi=DPI)

    def put(self, picture: Array, left: int, top: int) -> None:
        """A picture (rows, columns, 3) in [0, 1], pixel upon pixel."""
        self.figure.figimage(picture, left, self.height - top - picture.shape[0], origin="upper")

    def write(self, text: str, x: float, y: float, **style: Any) -> None:
        """Text at a place; style as matplotlib's."""
        self.figure.text(x / self.width, 1 - y / self.height, text, **style)

    def save(self, path: Path) -> Path:
        """Write it as PNG."""
        return save(self.figure, path, tight=False)


def is_small(images: Tensor) -> bool:
    """Whether images (N, C, H, W) are shown many to a row."""
    return max(images.shape[-2:]) <= SMALL


def reduction(images: Tensor) -> int:
    """By what whole number the sides of images (N, C, H, W) are divided before they are shown."""
    return -(-max(images.shape[-2:]) // _LARGEST)


def enlargement(images: Tensor, cell: int | None = None) -> int:
    """How many pixels wide a pixel of images (N, C, H, W) is shown, in cells of about so many (of a usual size).

    Even where there are many: a page at half size shows whole pixels too.
    """
    side = -(-max(images.shape[-2:]) // reduction(images)) + 1
    times = max(1, (cell or _CELL[is_small(images)]) // side)
    return times if times < 4 else times // 2 * 2


def mosaic(images: Tensor, columns: int, *, gap: int = 1, times: int = 1) -> Array:
    """Images (N, C, H, W) in [-1, 1] side by side on white, (rows, columns, 3) in [0, 1], each pixel ``times`` wide.

    Large images are reduced first, see :func:`reduction`.
    """
    pixels = (images.detach().cpu().float().clamp(-1, 1) + 1) / 2
    if reduction(images) > 1:
        pixels = F.avg_pool2d(pixels, reduction(images), ceil_mode=True)
    count, _, height, width = pixels.shape
    rows = -(-count // columns)
    page = torch.ones(3, rows * (height + gap) - gap, columns * (width + gap) - gap)
    for i, picture in enumerate(pixels):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        page[:, top : top + height, left : left + width] = picture
    large = page.repeat_interleave(times, 1).repeat_interleave(times, 2)
    array: Array = large.permute(1, 2, 0).numpy()
    return array


def spread(images: Tensor, count: int) -> Tensor:
    """``count`` of images (N, ...), or all, at even distances: sets are often sorted."""
    if len(images) <= count:
        return images
    return images[torch.linspace(0, len(images) - 1, count).round().long().to(images.device)]
