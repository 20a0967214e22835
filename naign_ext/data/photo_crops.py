"""Square crops of the photographs that ship inside scikit-image, scikit-learn and matplotlib, at recorded positions.

The positions are in photo_crops.csv, in pixels of the photograph: row and column of the upper left corner, and the
side. :func:`draw_crops` is the rule that chose them; a test draws them again. A photograph counts only where its bytes
are those that the positions were chosen on.
"""

import csv
import hashlib
import importlib.util
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from naign_ext.data.dataset import DataUnavailableError
from naign_ext.data.image_arrays import need_package
from naign_ext.data.images import read_image
from naign_ext.data.resize import resize
from naign_ext.seeds import data_generator

Part = Literal["train", "heldout", "ood"]

SIDE = 96
_TABLE = Path(__file__).with_name("photo_crops.csv")
_SCALES = (4, 3, 2, 1)
_CANDIDATES = 16
_STEP = 8
# Of the area, shared by two crops of one side.
_MAX_SHARED = 0.2
# Of grey levels in [-1, 1], in the second flattest quarter of a crop.
_MIN_DETAIL = 0.08


@dataclass(frozen=True)
class Photo:
    """A photograph in an installed package.

    Attributes:
        package: as imported. install: as pip calls it, with the version whose file was recorded.
        file: its path in the package. sha256: of the file. part: what its crops are for.
        crops: how many of sides 384, 288, 192 and 96 pixels.
    """

    package: str
    install: str
    file: str
    sha256: str
    part: Part
    crops: tuple[int, int, int, int]

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return Path(self.file).stem


@dataclass(frozen=True)
class Crop:
    """A square of a photograph, in its pixels: upper left corner and side."""

    part: Part
    photo: str
    row: int
    column: int
    side: int

    def of(self, image: Tensor) -> Tensor:
        """This square (C, side, side) of an image (C, H, W)."""
        return image[:, self.row : self.row + self.side, self.column : self.column + self.side]


def _skimage(file: str, sha256: str, part: Part, crops: tuple[int, int, int, int]) -> Photo:
    return Photo("skimage", "scikit-image==0.26.0", f"data/{file}", sha256, part, crops)


def _sklearn(file: str, sha256: str, part: Part, crops: tuple[int, int, int, int]) -> Photo:
    return Photo("sklearn", "scikit-learn==1.9.1", f"datasets/images/{file}", sha256, part, crops)


# No photograph is in two parts. Of the two motorcycles, which show one scene, only the left is here.
# What is foreign to the data are pictures of other kinds: through an ophthalmoscope, a microscope and a telescope, and
# grey ones of surfaces, coins and print.
PHOTOS: tuple[Photo, ...] = (
    _skimage(
        "astronaut.png",
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
        "train",
        (1, 0, 4, 17),
    ),
    _skimage(
        "coffee.png",
        "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
        "train",
        (1, 0, 5, 14),
    ),
    _skimage(
        "motorcycle_left.png",
        "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179",
        "train",
        (1, 0, 7, 19),
    ),
    _sklearn(
        "china.jpg",
        "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
        "train",
        (1, 0, 5, 14),
    ),
    _sklearn(
        "flower.jpg",
        "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638",
        "train",
        (1, 0, 4, 6),
    ),
    _skimage(
        "chelsea.png",
        "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
        "heldout",
        (0, 1, 1, 12),
    ),
    _skimage(
        "rocket.jpg",
        "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
        "heldout",
        (1, 0, 3, 2),
    ),
    Photo(
        "matplotlib",
        "matplotlib==3.11.2",
        "mpl-data/sample_data/grace_hopper.jpg",
        "a8ca6d734765703b09728ab47fe59f473d93ae3967fc24c7c0288c3c7adb7130",
        "heldout",
        (1, 0, 6, 13),
    ),
    _skimage(
        "retina.jpg", "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6", "ood", (3, 0, 1, 0)
    ),
    _skimage(
        "ihc.png", "f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef", "ood", (1, 0, 5, 11)
    ),
    _skimage(
        "hubble_deep_field.jpg",
        "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4",
        "ood",
        (2, 0, 5, 10),
    ),
    _skimage(
        "brick.png", "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf", "ood", (1, 0, 3, 9)
    ),
    _skimage(
        "grass.png", "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89", "ood", (1, 0, 3, 9)
    ),
    _skimage(
        "gravel.png", "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12", "ood", (1, 0, 3, 9)
    ),
    _skimage(
        "coins.png", "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba", "ood", (0, 0, 1, 9)
    ),
    _skimage(
        "page.png", "341a6f0a61557662b02734a9b6e56ec33a915b2c41886b97509dedf2a43b47a3", "ood", (0, 0, 0, 7)
    ),
    _skimage(
        "text.png", "bd84aa3a6e3c9887850d45d606c96b2e59433fbef50338570b63c319e668e6d1", "ood", (0, 0, 0, 6)
    ),
)


def read_photo(photo: Photo) -> Tensor:
    """The photograph, float32 (3, H, W) in [-1, 1].

    Raises:
        DataUnavailableError: its package is not installed, or has another file in its place.
    """
    need_package(photo.package, "photos100", photo.install)
    spec = importlib.util.find_spec(photo.package)
    # Read directly: skimage.data may go through its downloader.
    file = Path(spec.origin if spec is not None and spec.origin else "").parent / photo.file
    if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != photo.sha256:
        found = "another picture" if file.is_file() else "nothing"
        raise DataUnavailableError(
            f"dataset 'photos100': expected {photo.file} as in {photo.install}, found {found} at {file}; "
            f"install that release: pip install '{photo.install}'"
        )
    return read_image(file, channels=3)


def recorded_crops() -> list[Crop]:
    """All crops, in the order of their table."""
    with _TABLE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    parts = {photo.name: photo.part for photo in PHOTOS}
    return [
        Crop(parts[row["photo"]], row["photo"], int(row["row"]), int(row["column"]), int(row["side"]))
        for row in rows
    ]


def load_crops(image_size: int) -> dict[Part, Tensor]:
    """The recorded crops of each part, float32 (N, 3, image_size, image_size) in [-1, 1], resized from the photograph.

    Raises:
        DataUnavailableError: see :func:`read_photo`.
    """
    images = {photo.name: read_photo(photo) for photo in PHOTOS}
    result: dict[Part, list[Tensor]] = {"train": [], "heldout": [], "ood": []}
    for crop in recorded_crops():
        result[crop.part].append(resize(crop.of(images[crop.photo])[None], image_size)[0])
    return {part: torch.stack(crops).clamp(-1, 1) for part, crops in result.items()}


def draw_crops(photo: Photo) -> Iterator[Crop]:
    """Crops of a photograph by the rule: of the next 16 squares in a shuffled order, the one with most detail, again
    and again.

    Squares are of 4, 3, 2 and 1 times 96 pixels, at multiples of 8. Two of one size share at most a fifth of their
    area, though a larger one may hold a smaller, and each has something to see in three of its quarters. The order is
    of the photograph's own stream of seed 0.

    Raises:
        ValueError: the photograph has no room for so many.
    """
    grey = read_photo(photo).mean(0, keepdim=True)
    generator = data_generator(0, "photos100", photo.name)
    for scale, count in zip(_SCALES, photo.crops, strict=True):
        left = _shuffled_crops(photo, grey, scale * SIDE, generator) if count else []
        for taken in range(count):
            best = max(left[:_CANDIDATES], key=lambda crop: _detail(crop.of(grey)), default=None)
            if best is None or _detail(best.of(grey)) < _MIN_DETAIL:
                raise ValueError(
                    f"crops: {photo.name} has no room for {count} of side {scale * SIDE}, only {taken}"
                )
            yield best
            left = [crop for crop in left if _shared(crop, best) <= _MAX_SHARED]


def _shuffled_crops(photo: Photo, grey: Tensor, side: int, generator: torch.Generator) -> list[Crop]:
    height, width = grey.shape[-2:]
    if min(height, width) < side:
        raise ValueError(f"crops: {photo.name} is {height} by {width}, too small for side {side}")
    places = itertools.product(range(0, height - side + 1, _STEP), range(0, width - side + 1, _STEP))
    part, name = photo.part, photo.name
    crops = [Crop(part, name, row, column, side) for row, column in places]
    return [crops[i] for i in torch.randperm(len(crops), generator=generator).tolist()]


def _shared(first: Crop, second: Crop) -> float:
    """Part of the area that two crops of one side share."""
    height = max(first.side - abs(first.row - second.row), 0)
    width = max(first.side - abs(first.column - second.column), 0)
    return height * width / first.side**2


def _detail(crop: Tensor) -> float:
    """Standard deviation of grey (1, side, side) in the second flattest quarter."""
    half = crop.shape[-1] // 2
    quarters = crop.unfold(-2, half, half).unfold(-2, half, half).reshape(4, -1)
    return float(quarters.std(1).sort().values[1])
