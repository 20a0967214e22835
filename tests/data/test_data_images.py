"""Image files in and out."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, PngImagePlugin

from naign_ext.data import DataUnavailableError, image_grid, read_image, read_image_folder
from naign_ext.data.images import (
    UnreadableImageError,
    decode_image,
    is_image_name,
    save_image_grid,
    save_images,
    to_pixels,
)
from naign_ext.untrusted import FileTooLargeError, read_regular_file


def encoded(array, mode=None, **options):
    buffer = io.BytesIO()
    Image.fromarray(array, mode).save(buffer, format=options.pop("format", "PNG"), **options)
    return buffer.getvalue()


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_saved_images_read_back_within_half_a_level(tmp_path, channels):
    images = torch.rand(5, channels, 9, 7, generator=torch.Generator().manual_seed(0)) * 2 - 1
    paths = save_images(images, tmp_path / "new" / "folder", prefix="face_")
    assert [path.name for path in paths] == [f"face_{i:05d}.png" for i in range(5)]
    back, names = read_image_folder(tmp_path)
    assert names == [f"new/folder/face_{i:05d}.png" for i in range(5)]
    assert back.dtype == torch.float32
    assert back.shape == images.shape
    assert (back - images).abs().max() <= 1 / 255 + 1e-6
    # What was read is exactly representable: a second trip changes nothing.
    save_images(back, tmp_path / "second")
    assert torch.equal(read_image_folder(tmp_path / "second")[0], back)


def test_saved_images_have_the_stems_they_are_given(tmp_path):
    images = torch.zeros(2, 1, 4, 4)
    paths = save_images(images, tmp_path, prefix="a", stems=["x.png", "00000"])
    assert [path.name for path in paths] == ["ax.png.png", "a00000.png"]
    for stems in (["x"], ["x", "x"], ["x", "y", "z"]):
        with pytest.raises(ValueError, match="stems: expected 2 different names"):
            save_images(images, tmp_path / "new", stems=stems)
    assert not (tmp_path / "new").exists()


def test_pixels_are_rounded_and_clipped():
    x = torch.tensor([-5.0, -1.0, 0.0, 1.0, 2.0, float("nan"), float("inf"), -float("inf")])
    assert to_pixels(x).tolist() == [0, 0, 128, 255, 255, 128, 255, 0]


def test_grey_and_colour_by_the_file_or_as_asked(tmp_path):
    Image.fromarray(noise((6, 6))).save(tmp_path / "grey.png")
    Image.fromarray(noise((6, 6, 3))).save(tmp_path / "colour.png")
    assert read_image(tmp_path / "grey.png").shape == (1, 6, 6)
    assert read_image(tmp_path / "grey.png", channels=3).shape == (3, 6, 6)
    assert read_image(tmp_path / "colour.png").shape == (3, 6, 6)
    assert read_image(tmp_path / "colour.png", channels=1).shape == (1, 6, 6)
    images, _ = read_image_folder(tmp_path)
    assert images.shape == (2, 3, 6, 6)


def test_resizing_keeps_the_centre_of_a_wide_image():
    array = np.zeros((10, 30), dtype=np.uint8)
    array[:, 10:20] = 255
    pixels = decode_image(encoded(array), image_size=10)
    assert pixels.shape == (1, 10, 10)
    assert (pixels == 255).all()
    assert decode_image(encoded(array), image_size=(5, 15)).shape == (1, 5, 15)


def test_sixteen_bit_grey_keeps_its_scale():
    array = np.array([[0, 32768], [65535, 257]], dtype=np.uint16)
    assert decode_image(encoded(array)).tolist() == [[[0, 128], [255, 1]]]


def test_transparent_pixels_are_laid_on_white():
    array = np.zeros((1, 2, 4), dtype=np.uint8)
    array[0, 1, 3] = 255
    assert decode_image(encoded(array)).tolist() == [[[255, 0]]] * 3


def test_palette_and_one_bit_images_are_read():
    buffer = io.BytesIO()
    Image.fromarray(noise((5, 5, 3))).convert("P").save(buffer, format="GIF")
    assert decode_image(buffer.getvalue()).shape == (3, 5, 5)
    buffer = io.BytesIO()
    Image.fromarray(noise((5, 5))).convert("1").save(buffer, format="PNG")
    assert set(np.unique(decode_image(buffer.getvalue()))) == {0, 255}


def test_the_camera_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    array = np.zeros((4, 8, 3), dtype=np.uint8)
    array[:, :4] = 255
    pixels = decode_image(encoded(array, format="JPEG", exif=exif.tobytes(), quality=95))
    assert pixels.shape == (3, 8, 4)
    assert pixels[:, :3].mean() > 200
    assert pixels[:, 5:].mean() < 50


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_applied_as_pillow_does(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(noise((5, 7, 3)), exif=exif.tobytes())
    with Image.open(io.BytesIO(content)) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened)).transpose(2, 0, 1)
    assert np.array_equal(decode_image(content), expected)


@pytest.mark.parametrize("seed", range(20))
def test_damaged_exif_costs_no_pixel(seed):
    exif = Image.Exif()
    exif[0x010E], exif[0x011A], exif[0x0110] = "a harbour", 72.0, "camera"
    numbers = np.random.default_rng(seed)
    block = bytearray(exif.tobytes())
    # The header and the orientation are as they were: only what the block says of its entries is damaged.
    for place in numbers.integers(16, len(block), 12):
        block[place] = numbers.integers(256)
    cut = len(block) if seed % 2 else int(numbers.integers(9, len(block)))
    array = noise((6, 5, 3), seed)
    plain, damaged = encoded(array), encoded(array, exif=bytes(block[:cut]))
    found = decode_image(damaged)
    assert sorted(found.shape) == [3, 5, 6]
    assert np.array_equal(np.sort(found, axis=None), np.sort(decode_image(plain), axis=None))


@pytest.mark.parametrize("size", [0, 1, 20, 60])
def test_a_damaged_file_is_unreadable(size):
    content = encoded(noise((20, 20, 3)))[:size]
    with pytest.raises(UnreadableImageError):
        decode_image(content)


def test_a_truncated_jpeg_is_unreadable():
    content = encoded(noise((64, 64, 3)), format="JPEG")
    with pytest.raises(UnreadableImageError, match="truncated"):
        decode_image(content[: len(content) // 2])


def test_too_many_pixels_are_refused_before_decoding():
    bomb = encoded(np.zeros((3000, 3000), dtype=np.uint8))
    assert len(bomb) < 20_000
    with pytest.raises(UnreadableImageError, match="3000x3000 pixels are more than the 1000000"):
        decode_image(bomb, max_pixels=1_000_000)
    huge = io.BytesIO()
    Image.new("1", (30_000, 10_000)).save(huge, format="PNG")
    with pytest.raises(UnreadableImageError):
        decode_image(huge.getvalue())


def test_a_text_chunk_bomb_is_refused():
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "a" * 80_000_000, zip=True)
    buffer = io.BytesIO()
    Image.fromarray(noise((4, 4))).save(buffer, format="PNG", pnginfo=info)
    with pytest.raises(UnreadableImageError):
        decode_image(buffer.getvalue())


@pytest.mark.parametrize("content", [b"", b"not an image", b"%PDF-1.4\n", b"<svg/>"])
def test_other_files_are_unreadable(content):
    with pytest.raises(UnreadableImageError):
        decode_image(content)


def test_errors_name_the_file(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no")
    with pytest.raises(DataUnavailableError, match=r"broken\.png: not a readable image"):
        read_image(tmp_path / "broken.png")
    with pytest.raises(DataUnavailableError, match=r"missing\.png: cannot be opened"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(DataUnavailableError, match=r"broken\.png is not a readable image"):
        read_image_folder(tmp_path)
    with pytest.raises(DataUnavailableError, match="no such folder"):
        read_image_folder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataUnavailableError, match="no images in it"):
        read_image_folder(tmp_path / "empty")
    with pytest.raises(ValueError, match="channels: expected 1"):
        read_image(tmp_path / "broken.png", channels=2)


def test_what_is_no_regular_file_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", "/dev/zero", tmp_path):
        with pytest.raises(DataUnavailableError, match="not a regular file"):
            read_image(path)
    with pytest.raises(DataUnavailableError, match=r"no images in it .* left out: pipe\.png"):
        read_image_folder(tmp_path)


def test_a_file_larger_than_it_announces_is_refused(tmp_path):
    (tmp_path / "long.png").write_bytes(bytes(100))
    assert read_regular_file(tmp_path / "long.png", 100) == bytes(100)
    with pytest.raises(FileTooLargeError, match="has 100 bytes, more than the 99 a file may have"):
        read_regular_file(tmp_path / "long.png", 99)
    # A file of the kernel's: regular, of 0 bytes by its own account.
    status = Path("/proc/self/status")
    if status.is_file():
        assert status.stat().st_size == 0
        with pytest.raises(FileTooLargeError, match="more than the 10 a"):
            read_regular_file(status, 10)


def test_different_sizes_ask_for_image_size(tmp_path):
    Image.fromarray(noise((6, 6))).save(tmp_path / "a.png")
    Image.fromarray(noise((6, 8))).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match="image_size: the images have different sizes"):
        read_image_folder(tmp_path)
    assert read_image_folder(tmp_path, image_size=4)[0].shape == (2, 1, 4, 4)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", True),
        ("b/A.JPEG", True),
        (".hidden.png", False),
        ("__MACOSX/a.png", False),
        ("x/._a.png", False),
        ("notes.txt", False),
        ("png", False),
    ],
)
def test_image_names(name, expected):
    assert is_image_name(name) is expected


def test_grids_place_images_row_by_row(tmp_path):
    images = torch.stack([torch.full((1, 4, 6), value) for value in (-1.0, 0.0, 1.0)])
    grid = image_grid(images, columns=2, padding=1, scale=1)
    assert grid.shape == (1, 11, 15)
    assert (grid[0, 1:5, 1:7] == 0).all()
    assert (grid[0, 1:5, 8:14] == 128).all()
    assert (grid[0, 6:10, 1:7] == 255).all()
    path = save_image_grid(images, tmp_path / "sub" / "grid.png", columns=2, padding=1, scale=1)
    assert np.array_equal(np.asarray(Image.open(path)), grid[0].numpy())
    assert image_grid(images, columns=8).shape == (1, 68, 3 * 98 + 2)


def test_grids_refuse_what_is_no_batch_of_images():
    with pytest.raises(ValueError, match="images: expected shape"):
        image_grid(torch.zeros(3, 2, 4, 4), columns=1)
    with pytest.raises(ValueError, match="at least one image"):
        image_grid(torch.zeros(0, 1, 4, 4), columns=1)
    with pytest.raises(ValueError, match="columns: expected 1 or more"):
        image_grid(torch.zeros(1, 1, 4, 4), columns=0)
