"""photos100: recorded crops of photographs in installed packages, drawn again, apart, and refused where they differ."""

import itertools

import pytest
import torch

from naign_ext.data import DataUnavailableError, load_dataset, photo_crops
from naign_ext.data.photo_crops import PHOTOS, draw_crops, load_crops, read_photo, recorded_crops


def by_photo():
    crops = recorded_crops()
    return {photo.name: [crop for crop in crops if crop.photo == photo.name] for photo in PHOTOS}


@pytest.mark.parametrize("photo", PHOTOS, ids=lambda photo: photo.name)
def test_the_recorded_crops_are_those_of_the_rule(photo):
    assert list(draw_crops(photo)) == by_photo()[photo.name]


def test_no_photo_is_in_two_parts():
    assert len({photo.sha256 for photo in PHOTOS}) == len({photo.name for photo in PHOTOS}) == len(PHOTOS)
    assert len(recorded_crops()) == sum(len(crops) for crops in by_photo().values())
    for part, count in {"train": 100, "heldout": 40, "ood": 100}.items():
        assert sum(sum(photo.crops) for photo in PHOTOS if photo.part == part) == count


def test_crops_of_one_size_overlap_by_a_fifth_at_most():
    for photo, crops in by_photo().items():
        for first, second in itertools.combinations(crops, 2):
            side = first.side
            if side == second.side:
                down = len({*range(first.row, first.row + side)} & {*range(second.row, second.row + side)})
                across = {*range(first.column, first.column + side)}
                across &= {*range(second.column, second.column + side)}
                assert down * len(across) <= 0.2 * side**2, photo


def test_a_crop_is_the_square_of_the_photo():
    photo = PHOTOS[0]
    image = read_photo(photo)
    first = by_photo()[photo.name][-1]
    assert first.side == 96
    square = image[:, first.row : first.row + 96, first.column : first.column + 96]
    index = len(by_photo()[photo.name]) - 1
    assert torch.equal(load_crops(96)["train"][index], square)


def test_crops_are_distinct_and_in_colour():
    data = load_dataset("photos100", image_size=32)
    rows = torch.cat((data.train, data.heldout)).flatten(1)
    between = torch.cdist(rows, rows).fill_diagonal_(float("inf"))
    assert between.min() / rows.shape[1] ** 0.5 > 0.1
    saturation = data.train.amax(1) - data.train.amin(1)
    assert (saturation.mean((1, 2)) > 0.05).float().mean() > 0.9


def test_another_seed_changes_nothing():
    first, second = load_dataset("photos100", image_size=16), load_dataset("photos100", seed=4, image_size=16)
    assert torch.equal(first.train, second.train) and torch.equal(first.heldout, second.heldout)
    with pytest.raises(ValueError, match="heldout_fraction: dataset 'photos100' has no such choice"):
        load_dataset("photos100", heldout_fraction=0.5)


def test_another_picture_under_the_name_is_refused():
    other = photo_crops.Photo(
        "skimage", "scikit-image==9", "data/coffee.png", "0" * 64, "train", (1, 0, 0, 0)
    )
    with pytest.raises(DataUnavailableError, match="as in scikit-image==9, found another picture at"):
        read_photo(other)
    missing = photo_crops.Photo("skimage", "scikit-image==9", "data/tea.png", "0" * 64, "train", (1, 0, 0, 0))
    with pytest.raises(DataUnavailableError, match=r"found nothing at .*pip install 'scikit-image==9'"):
        read_photo(missing)
