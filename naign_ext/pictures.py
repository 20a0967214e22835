"""Pictures small enough for a repository: PNG files of at most MOST_BYTES.

``python -m naign_ext.pictures SOURCE TARGET`` does the same to a picture that another command wrote.
"""

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image, Quantize

Colours = np.ndarray[Any, np.dtype[np.uint8]]

MOST_BYTES = 150_000
COLOURS = (256, 192, 128, 96)
"""Sizes of the palette that are tried; fewer than the last would show."""

_SMALLER = 0.95
_COMMONEST, _COVERING = 8, 24


ENDINGS = (".png", ".svg", ".pdf")


def check_picture_name(path: Path) -> None:
    """ValueError unless the path ends as pictures do that can be written."""
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"picture: expected a name that ends in {', '.join(ENDINGS)}, got {path.name!r}")


def save_figure(figure: "Figure", path: Path, dpi: int) -> Path:
    """Write a matplotlib figure in the format that path's ending names; a PNG in at most MOST_BYTES."""
    from PIL import Image

    check_picture_name(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() != ".png":
        metadata: dict[str, Any] = {"CreationDate": None} if path.suffix.lower() == ".pdf" else {}
        figure.savefig(path, dpi=dpi, metadata=metadata)
        return path
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=dpi, format="png")
    return save_png(Image.open(drawn), path)


def save_png(image: "Image", path: Path) -> Path:
    """Write an image as a PNG of at most MOST_BYTES: with a palette, of fewer colours and then of fewer pixels until
    it fits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_encoded(image))
    return path


def _encoded(image: "Image") -> bytes:
    from PIL import Image

    image = image.convert("RGB")
    for colours in COLOURS:
        content = _with_palette(image, colours)
        if len(content) <= MOST_BYTES:
            return content
    original, scale = image, 1.0
    while len(content) > MOST_BYTES:
        scale *= min(_SMALLER, (MOST_BYTES / len(content)) ** 0.5)
        size = (max(1, round(original.width * scale)), max(1, round(original.height * scale)))
        content = _with_palette(original.resize(size, Image.Resampling.HAMMING), COLOURS[-1])
    return content


def _with_palette(image: "Image", colours: int) -> bytes:
    """The commonest colours as they are (white stays white), some that cover all there are, however few pixels have
    them (a word in red stays red), and the rest where the image has most pixels."""
    from PIL import Image

    pixels = np.asarray(image).reshape(-1, 3).astype(np.uint32)
    packed, where, counts = np.unique(
        pixels @ np.array([1 << 16, 1 << 8, 1], np.uint32), return_inverse=True, return_counts=True
    )
    found = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=1).astype(np.uint8)
    if len(found) <= colours:
        palette = found
    else:
        commonest = found[np.argsort(counts, kind="stable")[-_COMMONEST:]]
        covering = _palette_of(image, _COVERING, Image.Quantize.MAXCOVERAGE)
        rest = _palette_of(image, colours - _COMMONEST - _COVERING, Image.Quantize.MEDIANCUT)
        palette = np.concatenate([commonest, covering, rest])
    index = _nearest(found, palette)[where.reshape(-1)].reshape(image.height, image.width)
    reduced = Image.fromarray(index, mode="P")
    reduced.putpalette(palette.tobytes())
    content = io.BytesIO()
    reduced.save(content, "png", optimize=True)
    return content.getvalue()


def _palette_of(image: "Image", colours: int, method: "Quantize") -> Colours:
    """(n, 3) colours by one of Pillow's methods, n <= colours."""
    entries = image.quantize(colours, method=method).getpalette() or []
    return np.array(entries[: 3 * colours], dtype=np.uint8).reshape(-1, 3)


def _nearest(colours: Colours, palette: Colours, block: int = 1 << 14) -> Colours:
    """(N,) the palette's index of the colour nearest to each of (N, 3)."""
    wanted = palette.astype(np.float32)
    offset = (wanted**2).sum(1)
    parts = np.array_split(colours.astype(np.float32), max(1, len(colours) // block))
    nearest = [(offset - 2 * part @ wanted.T).argmin(1) for part in parts]
    return np.concatenate(nearest).astype(np.uint8)


def main(source: str, target: str) -> None:
    """Write the picture source as the PNG target."""
    from PIL import Image

    with Image.open(source) as picture:
        save_png(picture, Path(target))


if __name__ == "__main__":
    main(*sys.argv[1:])
