"""Images of every kind of pixel: the right values, or an error that says what they might mean."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, features

from naign_ext.data import DataUnavailableError, load_dataset, read_image
from naign_ext.data.image_modes import UnreadableImageError
from naign_ext.data.images import decode_image

RAMP = np.linspace(0, 1, 64).reshape(8, 8)
LEVELS = np.round(RAMP * 255).astype(np.uint8)
COLOURS = np.stack([LEVELS, LEVELS[::-1], LEVELS.T], axis=-1)


def pillow(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, format=options.pop("format", "PNG"), **options)
    return buffer.getvalue()


def tiff(values, *, bits=None, kind="u", photometric=1, order="<", extra=None):
    """An uncompressed TIFF of one strip; values (H, W) or (H, W, C), or bytes already packed with their shape."""
    shape = values.shape
    samples = shape[2] if len(shape) == 3 else 1
    bits = bits or values.itemsize * 8
    data = packed12(values) if bits == 12 else values.astype(values.dtype.newbyteorder(order)).tobytes()
    kinds = {"u": 1, "i": 2, "f": 3}
    tags = [
        (256, [shape[1]]), (257, [shape[0]]), (258, [bits] * samples), (259, [1]), (262, [photometric]), (273, [8]),
        (277, [samples]), (278, [shape[0]]), (279, [len(data)]), (339, [kinds[kind]] * samples),
    ]  # fmt: skip
    tags += [(338, [extra])] if extra is not None else []
    tags.sort()
    after = 8 + len(data) + 2 + 12 * len(tags) + 4
    entries, outside = b"", b""
    for tag, numbers in tags:
        body = struct.pack(f"{order}{len(numbers)}H", *numbers)
        if len(body) > 4:
            body, outside = struct.pack(order + "I", after + len(outside)), outside + body
        entries += struct.pack(order + "HHI", tag, 3, len(numbers)) + body.ljust(4, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8 + len(data))
    return head + data + struct.pack(order + "H", len(tags)) + entries + bytes(4) + outside


def packed12(values):
    pairs = values.reshape(-1, 2).astype(int)
    triples = [pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255]
    return np.stack(triples, axis=1).astype(np.uint8).tobytes()


def png(values, colour, transparent=None):
    """A 16-bit PNG; colour: 0 grey, 2 RGB, 4 grey and alpha, 6 RGB and alpha."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour, 0, 0, 0)
    see_through = (
        b"" if transparent is None else chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent))
    )
    body = chunk(b"IHDR", head) + see_through + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def deep(values, top=65535):
    return np.round(values * top).astype(np.uint16)


def with_alpha(levels, top=255):
    """Levels (H, W) or (H, W, C) of which the right half is transparent."""
    alpha = np.full(levels.shape[:2], top, dtype=levels.dtype)
    alpha[:, 4:] = 0
    return np.dstack([levels, alpha])


def on_white(levels):
    levels = levels.copy()
    levels[:, 4:] = 255
    return levels


GREY, COLOUR = LEVELS, COLOURS
ONE_WHITE = np.where(np.arange(64).reshape(8, 8) == 19, 255, LEVELS)
GENTLE = (COLOURS // 4 + 96).astype(np.uint8)
PALETTE = Image.fromarray(COLOURS).quantize(16)
THROUGH = PALETTE.copy()
THROUGH.info["transparency"] = 3

RIGHT = {
    "1": (pillow(Image.fromarray(LEVELS).point(lambda v: 255 * (v > 99), "1")), 255 * (LEVELS > 99), 0),
    "1, TIFF": (pillow(Image.fromarray(LEVELS > 99), format="TIFF"), 255 * (LEVELS > 99), 0),
    "L": (pillow(Image.fromarray(LEVELS)), GREY, 0),
    "L, white is 0": (tiff(LEVELS, photometric=0), 255 - GREY, 0),
    "LA": (pillow(Image.fromarray(with_alpha(LEVELS))), on_white(GREY), 0),
    "L, one level transparent": (pillow(Image.fromarray(LEVELS), transparency=int(LEVELS[2, 3])), ONE_WHITE, 0),
    "P": (pillow(PALETTE), np.asarray(PALETTE.convert("RGB")), 0),
    "P, GIF": (pillow(PALETTE, format="GIF"), np.asarray(PALETTE.convert("RGB")), 0),
    "P, transparent": (
        pillow(THROUGH, transparency=3),
        np.where((np.asarray(PALETTE) == 3)[..., None], 255, np.asarray(PALETTE.convert("RGB"))),
        0,
    ),
    "PA": (
        pillow(Image.fromarray(with_alpha(COLOURS)).convert("PA"), format="TIFF"),
        on_white(np.asarray(Image.fromarray(with_alpha(COLOURS)).convert("PA").convert("RGB"))),
        0,
    ),
    "RGB": (pillow(Image.fromarray(COLOURS)), COLOUR, 0),
    "RGBA": (pillow(Image.fromarray(with_alpha(COLOURS))), on_white(COLOUR), 0),
    "RGBa": (
        tiff(np.where(with_alpha(COLOURS)[..., 3:] > 0, with_alpha(COLOURS), 0), photometric=2, extra=1),
        on_white(COLOUR),
        0,
    ),
    "RGBX": (pillow(Image.fromarray(COLOURS).convert("RGBX"), format="TIFF"), COLOUR, 0),
    "CMYK": (pillow(Image.fromarray(COLOURS).convert("CMYK"), format="TIFF"), COLOUR, 1),
    "CMYK, JPEG": (pillow(Image.fromarray(COLOURS).convert("CMYK"), format="JPEG", quality=98), COLOUR, 30),
    "YCbCr": (pillow(Image.fromarray(COLOURS).convert("YCbCr"), format="TIFF"), COLOUR, 4),
    "YCbCr, JPEG": (pillow(Image.fromarray(GENTLE), format="JPEG", quality=98, subsampling=0), GENTLE, 6),
    "LAB": (pillow(Image.fromarray(GENTLE).convert("LAB"), format="TIFF"), GENTLE, 4),
    "12 bits": (tiff(deep(RAMP, 4095), bits=12), GREY, 1),
    "I;16": (pillow(Image.fromarray(deep(RAMP))), GREY, 0),
    "I;16, TIFF": (tiff(deep(RAMP)), GREY, 0),
    "I;16B": (tiff(deep(RAMP), order=">"), GREY, 0),
    "I;16, white is 0": (tiff(deep(RAMP), photometric=0), 255 - GREY, 0),
    "I;16, black": (tiff(deep(RAMP * 0)), GREY * 0, 0),
    "I;16, one level transparent": (png(deep(RAMP), 0, [deep(RAMP)[2, 3]]), ONE_WHITE, 0),
    "I, PGM of 12 bits": (b"P5 8 8 4095\n" + deep(RAMP, 4095).astype(">u2").tobytes(), GREY, 0),
    "I, PGM of 16 bits": (b"P5 8 8 65535\n" + deep(RAMP).astype(">u2").tobytes(), GREY, 0),
    "F": (tiff(RAMP.astype(np.float32), kind="f"), GREY, 0),
    "F, a little beyond": (tiff((RAMP * 1.0025 - 0.001).astype(np.float32), kind="f"), GREY, 1),
    "F, big-endian": (tiff(RAMP.astype(np.float32), kind="f", order=">"), GREY, 0),
    "F, white is 0": (tiff(RAMP.astype(np.float32), kind="f", photometric=0), 255 - GREY, 0),
    "RGB of 16 bits": (png(deep(COLOURS / 255), 2), COLOUR, 0),
    "RGB of 16 bits, TIFF": (tiff(deep(COLOURS / 255), photometric=2), COLOUR, 0),
    "RGB of 16 bits, big-endian": (tiff(deep(COLOURS / 255), photometric=2, order=">"), COLOUR, 0),
    "RGB of 12 bits, PPM": (b"P6 8 8 4095\n" + deep(COLOURS / 255, 4095).astype(">u2").tobytes(), COLOUR, 1),
    "RGBA of 16 bits": (png(with_alpha(deep(COLOURS / 255), 65535), 6), on_white(COLOUR), 0),
    "RGBA of 16 bits, black": (png(with_alpha(deep(COLOURS * 0.0), 65535), 6), on_white(COLOUR * 0), 0),
    "LA of 16 bits": (png(with_alpha(deep(RAMP), 65535), 4), on_white(GREY), 1),
}  # fmt: skip

REFUSED = {
    "I, 32 bits": (tiff((RAMP * 2**31).astype(np.uint32)), "32 bits have no number that is white"),
    "I, signed": (tiff((RAMP * 2**15 - 1).astype(np.int16), kind="i"), "signed integers"),
    "I, 32 signed bits": (pillow(Image.fromarray(LEVELS.astype(np.int32)), format="TIFF"), "signed integers"),
    "12 bits in 16": (pillow(Image.fromarray(deep(RAMP, 4095))), "at or below 4095, as those of 12 bits"),
    "8 bits in 16": (tiff(LEVELS.astype(np.uint16), order=">"), "at or below 255"),
    "12 bits in 16, white is 0": (tiff(deep(RAMP, 4095), photometric=0), "at or below 4095"),
    "RGB, 12 bits in 16": (png(deep(COLOURS / 255, 4095), 2), "at or below 4095"),
    "RGB, 12 bits in 16, TIFF": (tiff(deep(COLOURS / 255, 4095), photometric=2), "at or below 4095"),
    "RGB, 8 bits in 16": (png(COLOURS.astype(np.uint16), 2), "at or below 255"),
    "LA, 12 bits in 16": (png(with_alpha(deep(RAMP, 4095), 65535), 4), "at or below 4095"),
    "F, 0 to 255": (tiff(LEVELS.astype(np.float32), kind="f"), r"floats lie in \[0, 255\], expected black at 0"),
    "F, -1 to 1": (tiff((RAMP * 2 - 1).astype(np.float32), kind="f"), r"floats lie in \[-1, 1\]"),
    "F, NaN": (tiff(np.where(RAMP > 0.5, np.nan, RAMP).astype(np.float32), kind="f"), "floats lie in"),
    "F, infinite": (tiff(np.where(RAMP > 0.5, np.inf, RAMP).astype(np.float32), kind="f"), "floats lie in"),
    "F, PFM": (b"Pf 8 8 -1.0\n" + (RAMP * 100).astype("<f4").tobytes(), r"floats lie in \[0, 100\]"),
    "64 bits": (tiff(RAMP, kind="f"), "no image of a kind that is read"),
    "HSV": (tiff(COLOURS, photometric=9), "no image of a kind that is read"),
}  # fmt: skip


@pytest.mark.parametrize("case", RIGHT)
def test_pixels_are_those_that_the_file_means(case):
    content, expected, most = RIGHT[case]
    expected = np.atleast_3d(expected).transpose(2, 0, 1)
    found = decode_image(content)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= most
    other = decode_image(content, channels=4 - len(expected))
    assert len(other) == 4 - len(expected)
    assert abs(int(other.mean()) - int(found.mean())) < 12


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_known_white_is_refused_with_the_reason(case, tmp_path):
    content, reason = REFUSED[case]
    with pytest.raises(UnreadableImageError, match=reason):
        decode_image(content)
    (tmp_path / "scan.tif").write_bytes(content)
    with pytest.raises(DataUnavailableError, match=rf"scan\.tif: not a readable image \(.*({reason})"):
        read_image(tmp_path / "scan.tif")


def test_a_folder_names_what_it_refuses(tmp_path, caplog):
    for index in range(6):
        (tmp_path / f"{index}.png").write_bytes(RIGHT["RGB"][0])
    (tmp_path / "depth.tif").write_bytes(REFUSED["F, 0 to 255"][0])
    data = load_dataset(f"folder:{tmp_path}", image_size=8)
    assert len(data.train) + len(data.heldout) == 6
    assert "depth.tif (its floats lie in [0, 255]" in caplog.text


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP", "AVIF"])
def test_of_several_frames_the_first_is_taken(kind):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "white")]
    content = pillow(frames[0], format=kind, save_all=True, append_images=frames[1:])
    with Image.open(io.BytesIO(content)) as opened:
        assert opened.n_frames == 3
    found = decode_image(content).astype(int)
    assert np.abs(found - np.array([255, 0, 0])[:, None, None]).max() < 12


def test_every_mode_of_pillow_is_looked_at():
    """A mode that Pillow gains is put into one of the tables, or here, where no file that is read has it."""
    shown = {name.split(",")[0].split(" ")[0] for name in (*RIGHT, *REFUSED)}
    without_files = {"La", "I;16L", "I;16N"}
    assert set(Image.MODES) <= shown | without_files
