"""Pixels of every kind that image files hold, as 8-bit grey or RGB: right, or refused with the reason."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
"""A tag of TIFF, and its value where grey is stored as a negative."""
_GREY = ("1", "L", "LA", "La", "F", "I", "I;16", "I;16B", "I;16L", "I;16N")
_UNSCALED = 4095
"""The largest number of 12 bits: what ends here in 16 bits was hardly scaled to them, and looks black."""


class UnreadableImageError(ValueError):
    """The bytes are no image that can be decoded, it has too many pixels, or its values have no known white."""


@dataclass(frozen=True)
class Encoding:
    """How a file stores its numbers, as Pillow knows before it loads them: its name for the layout, such as "I;12"
    or "RGB;16B"; whether 0 is white; and whether white is known at all."""

    layout: str
    white_is_zero: bool
    has_white: bool

    @classmethod
    def of(cls, opened: "PilImage") -> "Encoding":
        """That of an image which is open and not loaded."""
        tiles = getattr(opened, "tile", None)
        arguments = tiles[0][3] if tiles else ""
        layout = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
        tags: Any = getattr(opened, "tag_v2", {})
        return cls(
            layout=layout if isinstance(layout, str) else "",
            white_is_zero=tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO,
            # Pillow's I of a TIFF: signed integers, and those of 32 bits.
            has_white=not (opened.mode == "I" and opened.format == "TIFF"),
        )

    @property
    def is_deep(self) -> bool:
        """Whether Pillow has cut numbers of 16 bits, in several channels, to their upper 8."""
        return ";16" in self.layout and not self.layout.startswith("I")


def eight_bit(image: "PilImage", encoding: Encoding, channels: int | None) -> "PilImage":
    """An L or RGB image of a loaded one: deeper values are scaled to 8 bit, transparency is laid on white.

    channels: 1, 3, or None for 1 where the file is grey.

    Raises:
        UnreadableImageError: what the values stand for cannot be told; the text says why and what to do.
    """
    grey = channels == 1 if channels else image.mode in _GREY or encoding.layout.startswith("LA;")
    if image.mode.startswith(("I", "F")):
        image = _scaled(image, encoding)
    elif encoding.is_deep:
        _check_deep(image)
    if image.has_transparency_data:
        image = _on_white(image)
    if image.mode == "LAB":
        # Which Pillow takes to RGB alone.
        image = image.convert("RGB")
    return image.convert("L" if grey else "RGB")


def _scaled(image: "PilImage", encoding: Encoding) -> "PilImage":
    """Grey of integers or floats as L."""
    from PIL import Image

    values = np.asarray(image, dtype=np.float64)
    white = _white(values, encoding, is_float=image.mode.startswith("F"))
    transparent = values == image.info.get("transparency", np.nan)
    shares = np.clip(values / white, 0, 1)
    if encoding.white_is_zero:
        shares = 1 - shares
    return Image.fromarray((np.where(transparent, 1, shares) * 255).round().astype(np.uint8))


def _white(values: np.ndarray[Any, np.dtype[np.float64]], encoding: Encoding, *, is_float: bool) -> float:
    """The number that stands for white."""
    if not encoding.has_white:
        raise UnreadableImageError(
            "signed integers and those of 32 bits have no number that is white; save it with 8 or 16 unsigned bits"
        )
    low, high = values.min(), values.max()
    if is_float:
        # Half a level of 8 bits beyond black and white, as resizing leaves it.
        if not (low >= -1 / 510 and high <= 1 + 1 / 510):
            raise UnreadableImageError(
                f"its floats lie in [{low:g}, {high:g}], expected black at 0 and white at 1; scale them, or save 8 bits"
            )
        return 1.0
    if encoding.layout == "I;12":
        return float(_UNSCALED)
    if 0 < high <= _UNSCALED:
        raise _unscaled(int(high))
    return 65535.0


def _check_deep(image: "PilImage") -> None:
    """Raise where the upper 8 of 16 bits say that the lower 12 were used alone; black under transparency may be."""
    colours = [band for name, band in zip(image.getbands(), image.split(), strict=True) if name not in "Aa"]
    highest = max(int(band.getextrema()[1]) for band in colours)  # type: ignore[arg-type]
    if highest <= _UNSCALED >> 8 and (highest > 0 or not image.has_transparency_data):
        raise _unscaled(256 * highest + 255)


def _unscaled(highest: int) -> UnreadableImageError:
    return UnreadableImageError(
        f"its 16-bit values end at or below {highest}, as those of 12 bits do that were not scaled to 65535; "
        "scale them, or save 8 bits"
    )


def _on_white(image: "PilImage") -> "PilImage":
    from PIL import Image

    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
