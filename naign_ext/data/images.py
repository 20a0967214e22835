"""Images in and out: files to tensors in [-1, 1], and back to 8-bit PNG."""

import hashlib
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from naign_ext.data.archives import DEFAULT_LIMITS, FolderSource, Source, UnreadableFile
from naign_ext.data.dataset import DataUnavailableError
from naign_ext.data.image_modes import Encoding, UnreadableImageError, eight_bit
from naign_ext.data.skipped import reasons_text, warn_of_skipped
from naign_ext.file_errors import naming
from naign_ext.memory import check_fits
from naign_ext.options import in_a_line
from naign_ext.untrusted import FileTooLargeError, read_regular_file

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

IMAGE_SUFFIXES = (
    ".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff",
    ".webp",
)  # fmt: skip
OTHER_IMAGE_SUFFIXES = (
    ".arw", ".cr2", ".cr3", ".dng", ".exr", ".hdr", ".heic", ".heif", ".ico", ".j2k", ".jp2", ".jxl",
    ".nef", ".orf", ".pbm", ".pcx", ".pnm", ".psd", ".raf", ".raw", ".rw2", ".svg", ".tga",
)  # fmt: skip
"""Names of images that are not read, and are counted among what is left out."""

_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 64_000_000
Size = int | tuple[int, int]
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def is_image_name(name: str) -> bool:
    """Whether a file is taken for an image: a known suffix, and not hidden or an archiver's by-product."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not _is_hidden(name)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def left_out(source: Source) -> list[tuple[str, str]]:
    """(name, reason) of what may hold images in a source and is not read; hidden names apart."""
    found = [(name, reason) for name, reason in source.left_out if not _is_hidden(name)]
    found += [
        (name, f"{PurePosixPath(name).suffix.lower()}, a format that is not read")
        for name in source.names
        if name.lower().endswith(OTHER_IMAGE_SUFFIXES) and not _is_hidden(name)
    ]
    return sorted(found)


def check_channels(channels: int | None) -> int | None:
    """Return 1, 3 or None, or raise ValueError."""
    if channels not in (None, 1, 3):
        raise ValueError(f"channels: expected 1 (grey) or 3 (RGB), got {channels!r}")
    return channels


def _readable_formats() -> list[str]:
    """Those of _FORMATS that this Pillow knows."""
    from PIL import Image

    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _upright(image: "PilImage") -> "PilImage":
    """The image turned as its EXIF says; where the EXIF is damaged, as it is stored."""
    from PIL import Image

    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    # Before the EXIF is looked at: some formats turn the pixels themselves as they load them.
    image.load()
    try:
        turn = turns.get(image.getexif().get(0x0112, 1))
    # The parser meets damage with nearly every exception there is.
    except Exception:
        turn = None
    return image if turn is None else image.transpose(turn)


def _decode(content: bytes, image_size: Size | None, channels: int | None, max_pixels: int) -> Pixels:
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(content), formats=_readable_formats()) as opened:
        width, height = opened.size
        if width * height > max_pixels:
            raise UnreadableImageError(
                f"{width}x{height} pixels are more than the {max_pixels} an image may have"
            )
        encoding = Encoding.of(opened)
        image = eight_bit(_upright(opened), encoding, channels)
    if image_size is not None:
        rows, columns = (image_size, image_size) if isinstance(image_size, int) else image_size
        # Resized by the shorter side, then cropped about the centre.
        image = ImageOps.fit(image, (columns, rows), method=Image.Resampling.LANCZOS)
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def decode_image(
    content: bytes,
    *,
    image_size: Size | None = None,
    channels: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Pixels:
    """Bytes of an image file to uint8 (C, H, W).

    Args:
        content: a BMP, GIF, JPEG, PNG, PPM, TIFF or WebP file; AVIF where Pillow is 11.3 or later. Of several frames
            or pages the first is taken.
        image_size: side, or (H, W), to resize and centre-crop to; None keeps the size.
        channels: 1, 3, or None for 1 where the file is grey and 3 otherwise.
        max_pixels: refuse larger images before their pixels are decoded.

    Raises:
        UnreadableImageError: not an image, damaged, too large, or of values whose white is not known: signed or
            32-bit integers, floats beyond [0, 1], 12 bits that lie unscaled in 16.
    """
    from PIL import UnidentifiedImageError

    check_channels(channels)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _decode(content, image_size, channels, max_pixels)
    except UnreadableImageError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImageError(
            f"no image of a kind that is read ({', '.join(_readable_formats())}), or its start is damaged"
        ) from error
    # Decoders meet damage with nearly every exception there is.
    except Exception as error:
        raise UnreadableImageError(f"{type(error).__name__}: {in_a_line(error)}") from error


def to_network_scale(pixels: Tensor) -> Tensor:
    """uint8 0..255 to float32 -1..1: x / 127.5 - 1."""
    return pixels.to(torch.float32) / 127.5 - 1


def to_pixels(images: Tensor) -> Tensor:
    """-1..1 to uint8 0..255, rounded; values outside are clipped, NaN becomes grey (128)."""
    scaled = (images.detach().cpu().to(torch.float32).clamp(-1, 1) + 1) * 127.5
    return scaled.nan_to_num(nan=128.0).round().to(torch.uint8)


_BYTES_A_VALUE = 6
"""While images are read: as bytes, one by one and together, and as float32."""


@dataclass
class LoadedImages:
    """Images of one size with their names and hashes; (name, reason) of images that could not be read (``damaged``)
    and of what was not looked into (``left_out``)."""

    images: Tensor
    names: list[str]
    sha256: dict[str, str] = field(default_factory=dict)
    damaged: list[tuple[str, str]] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def _stack(decoded: Sequence[Pixels], channels: int | None) -> Tensor:
    depth = channels or max((len(pixels) for pixels in decoded), default=3)
    shapes = sorted({pixels.shape[1:] for pixels in decoded})
    if len(shapes) > 1:
        raise ValueError(
            f"image_size: the images have different sizes (for example {shapes[0]} and {shapes[-1]}); "
            "pass image_size to bring them to one"
        )
    if not decoded:
        return torch.empty(0, depth, 0, 0)
    stacked = np.stack([np.broadcast_to(pixels, (depth, *pixels.shape[1:])) for pixels in decoded])
    return to_network_scale(torch.from_numpy(stacked))


def read_each(
    source: Source, names: Sequence[str], *, image_size: Size | None = None, channels: int | None = None
) -> Iterator[tuple[str, tuple[Pixels, str] | UnreadableFile]]:
    """Of every name its pixels, uint8 (C, H, W), and the file's SHA-256, or why it cannot be read; one at a time."""
    for name, content in source.read(names):
        if isinstance(content, UnreadableFile):
            yield name, content
            continue
        try:
            pixels = decode_image(content, image_size=image_size, channels=channels)
        except UnreadableImageError as error:
            yield name, UnreadableFile(str(error))
        else:
            yield name, (pixels, hashlib.sha256(content).hexdigest())


def load_images(
    source: Source,
    names: Sequence[str],
    *,
    wanted: int | None = None,
    image_size: Size | None = None,
    channels: int | None = None,
) -> LoadedImages:
    """The first ``wanted`` readable images of names (all for None), float32 (N, C, H, W) in [-1, 1].

    Damaged ones are listed and replaced by the next names. Without ``channels``, 3 unless all are grey.
    """
    remaining, limit = list(names), len(names) if wanted is None else wanted
    decoded: dict[str, Pixels] = {}
    hashes: dict[str, str] = {}
    damaged: list[tuple[str, str]] = []
    while remaining and len(decoded) < limit:
        batch = remaining[: limit - len(decoded)]
        remaining = remaining[len(batch) :]
        for name, found in read_each(source, batch, image_size=image_size, channels=channels):
            if isinstance(found, UnreadableFile):
                damaged.append((name, found.reason))
                continue
            decoded[name], hashes[name] = found
            if len(decoded) == 1:
                _check_fits(limit, decoded[name])
    kept = [name for name in names if name in decoded]
    return LoadedImages(
        images=_stack([decoded[name] for name in kept], channels),
        names=kept,
        sha256={name: hashes[name] for name in kept},
        damaged=sorted(damaged),
        left_out=left_out(source),
    )


def _check_fits(count: int, first: Pixels) -> None:
    """NotEnoughMemoryError where so many images like the first would not be held."""
    shape = "x".join(map(str, first.shape))
    check_fits(
        f"reading {count} images of {shape}", _BYTES_A_VALUE * count * first.size, "take a smaller image_size"
    )


def read_image(
    path: str | os.PathLike[str], *, image_size: Size | None = None, channels: int | None = None
) -> Tensor:
    """One image file as float32 (C, H, W) in [-1, 1]; arguments as in `decode_image`.

    Raises:
        DataUnavailableError (a ValueError): no such file, or not a readable image; the text names it.
    """
    file = Path(path)
    try:
        content = read_regular_file(file, DEFAULT_LIMITS.file_bytes)
        pixels = decode_image(content, image_size=image_size, channels=channels)
    except OSError as error:
        raise DataUnavailableError(f"{file}: cannot be opened ({error.strerror or error})") from error
    except FileTooLargeError as error:
        raise DataUnavailableError(f"{file}: {error}; pass a smaller copy of the image") from error
    except UnreadableImageError as error:
        raise DataUnavailableError(f"{file}: not a readable image ({error})") from error
    return to_network_scale(torch.from_numpy(pixels.copy()))


def read_image_folder(
    path: str | os.PathLike[str], *, image_size: Size | None = None, channels: int | None = None
) -> tuple[Tensor, list[str]]:
    """All images below a folder, sorted by name: float32 (N, C, H, W) in [-1, 1], and their relative names.

    Raises:
        DataUnavailableError (a ValueError): no folder, no image in it, or a damaged one; the text names it.
        ValueError: the images have different sizes and ``image_size`` is None.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise DataUnavailableError(f"{folder}: no such folder; pass a folder of images")
    source = FolderSource(folder)
    names = [name for name in source.names if is_image_name(name)]
    loaded = load_images(source, names, image_size=image_size, channels=channels)
    if loaded.damaged:
        name, reason = loaded.damaged[0]
        raise DataUnavailableError(
            f"{folder}: {name} is not a readable image ({reason}); {len(loaded.damaged)} of {len(names)} are "
            "damaged: remove or replace them"
        )
    if not loaded.names:
        others = f"; left out: {reasons_text(loaded.left_out)}" if loaded.left_out else ""
        raise DataUnavailableError(
            f"{folder}: no images in it (looked for {', '.join(IMAGE_SUFFIXES)}){others}"
        )
    warn_of_skipped(source.label, (), loaded.left_out)
    return loaded.images, loaded.names


def _check_images(images: Tensor) -> Tensor:
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images: expected shape (N, C, H, W) with C 1 or 3, got {tuple(images.shape)}")
    return images


def png_bytes(pixels: Tensor) -> bytes:
    """The PNG file of uint8 (C, H, W), C 1 or 3."""
    from PIL import Image

    array = pixels.numpy()
    picture = array[0] if len(array) == 1 else array.transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(file, format="PNG")
    return file.getvalue()


def save_images(
    images: Tensor,
    folder: str | os.PathLike[str],
    *,
    prefix: str = "",
    stems: Sequence[str] | None = None,
) -> list[Path]:
    """Images (N, C, H, W) in [-1, 1] as folder/<prefix><stem>.png; returns the paths.

    stems: N different names without a suffix; None for 00000, 00001, ...
    """
    pixels = to_pixels(_check_images(images))
    stems = [f"{index:05d}" for index in range(len(pixels))] if stems is None else stems
    if len(set(stems)) != len(pixels) or len(stems) != len(pixels):
        raise ValueError(
            f"stems: expected {len(pixels)} different names, got {len(stems)}, {len(set(stems))} of them different"
        )
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    paths = [target / f"{prefix}{stem}.png" for stem in stems]
    for picture, path in zip(pixels, paths, strict=True):
        with naming(path):
            path.write_bytes(png_bytes(picture))
    return paths


def image_grid(images: Tensor, columns: int, *, padding: int = 2, scale: int | None = None) -> Tensor:
    """Images (N, C, H, W) in [-1, 1] side by side, row by row, as uint8 (C, rows, columns) with grey seams.

    ``scale`` repeats each pixel; None makes the tiles at least 64 pixels high.
    """
    pixels = to_pixels(_check_images(images))
    count, channels, height, width = pixels.shape
    if count == 0:
        raise ValueError("images: expected at least one image, got N = 0")
    if columns < 1:
        raise ValueError(f"columns: expected 1 or more, got {columns}")
    factor = max(1, -(-64 // height)) if scale is None else scale
    pixels = pixels.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    height, width = height * factor, width * factor
    columns = min(columns, count)
    rows = -(-count // columns)
    grid = torch.full(
        (channels, rows * (height + padding) + padding, columns * (width + padding) + padding),
        128,
        dtype=torch.uint8,
    )
    for index, picture in enumerate(pixels):
        top = padding + (index // columns) * (height + padding)
        left = padding + (index % columns) * (width + padding)
        grid[:, top : top + height, left : left + width] = picture
    return grid


def save_image_grid(
    images: Tensor,
    path: str | os.PathLike[str],
    columns: int = 8,
    *,
    padding: int = 2,
    scale: int | None = None,
) -> Path:
    """Write images (N, C, H, W) in [-1, 1] as one 8-bit PNG, ``columns`` a row; see `image_grid`."""
    target = Path(path)
    grid = image_grid(images, columns, padding=padding, scale=scale)
    target.parent.mkdir(parents=True, exist_ok=True)
    with naming(target):
        target.write_bytes(png_bytes(grid))
    return target
