"""Pictures that fit into a repository."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from naign_ext.pictures import MOST_BYTES, save_figure, save_png


def noise(side: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))


def test_a_picture_of_few_colours_keeps_every_pixel(tmp_path: Path) -> None:
    pixels = np.full((300, 200, 3), 255, dtype=np.uint8)
    pixels[:250, :, :] = np.arange(250, dtype=np.uint8)[:, None, None]
    pixels[299, 199] = 200, 0, 0
    with Image.open(save_png(Image.fromarray(pixels), tmp_path / "new" / "a.png")) as written:
        found = np.asarray(written.convert("RGB")).astype(int)
    assert np.abs(found - pixels).max() <= 2
    assert tuple(found[299, 199]) == (200, 0, 0)


def test_a_picture_of_many_colours_keeps_its_areas_and_a_word_in_red(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 300)
    pixels = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :] * 0.3, 80.0), axis=-1).astype(np.uint8)
    pixels[:4, :4] = 255, 255, 0
    with Image.open(save_png(Image.fromarray(pixels), tmp_path / "a.png")) as written:
        found = np.asarray(written.convert("RGB")).astype(int)
    assert np.abs(found - pixels).mean() < 3
    assert np.abs(found[:4, :4] - [255, 255, 0]).max() < 30


@pytest.mark.parametrize("side", [150, 400])
def test_no_picture_is_larger_than_the_limit(side: int, tmp_path: Path) -> None:
    path = save_png(noise(side), tmp_path / "noise.png")
    assert path.stat().st_size <= MOST_BYTES
    with Image.open(path) as written:
        assert written.width == written.height
        assert (written.width == 150) == (side == 150)


def test_a_figure_is_written_in_the_format_of_its_ending(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1], [1, 0])
    for name, head in (("a.png", b"\x89PNG"), ("a.pdf", b"%PDF"), ("a.svg", b"<?xml")):
        assert save_figure(figure, tmp_path / name, 100).read_bytes().startswith(head)
    with Image.open(tmp_path / "a.png") as written:
        assert written.size == (200, 100) and written.mode == "P"
    assert b"CreationDate" not in (tmp_path / "a.pdf").read_bytes()
