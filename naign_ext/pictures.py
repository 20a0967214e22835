"""Pictures small enough for a repository: PNG files of at most MOST_BYTES.

``python -m naign_ext.pictures SOURCE TARGET`` does the same to a picture that another command wrote.
"""

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

MOST_BYTES = 150_000
COLOURS = (256, 192, 128, 96)
"""Sizes of the palette that are tried; fewer than the last would show."""

_SMALLER = 0.95


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
        scale *= _SMALLER
        size = (max(1, round(original.width * scale)), max(1, round(original.height * scale)))
        content = _with_palette(original.resize(size, Image.Resampling.HAMMING), COLOURS[-1])
    return content


def _with_palette(image: "Image", colours: int) -> bytes:
    """The colours that cover those of the image, however few pixels have them: a word in red stays red."""
    from PIL import Image

    content = io.BytesIO()
    image.quantize(colours, method=Image.Quantize.MAXCOVERAGE).save(content, "png", optimize=True)
    return content.getvalue()


def main(source: str, target: str) -> None:
    """Write the picture source as the PNG target."""
    from PIL import Image

    with Image.open(source) as picture:
        save_png(picture, Path(target))


if __name__ == "__main__":
    main(*sys.argv[1:])
