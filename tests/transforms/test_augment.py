"""Augmentation: what comes out is a flip or an edge-padded shift of what went in, nothing else."""

import pytest
import torch
import torch.nn.functional as F

from naign_ext.data import load_dataset
from naign_ext.transforms import expand_with_flips, expand_with_shifts, random_augment


def picture(count=4, channels=2, side=6):
    return torch.rand(count, channels, side, side + 1, generator=torch.Generator().manual_seed(0))


def shifted(image, y, x, pixels):
    padded = F.pad(image[None], (pixels,) * 4, mode="replicate")[0]
    return padded[:, pixels + y : pixels + y + image.shape[1], pixels + x : pixels + x + image.shape[2]]


def test_flips_follow_the_images_in_order():
    images = picture()
    result = expand_with_flips(images)
    assert torch.equal(result[:4], images)
    assert torch.equal(result[4:], images.flip(3))


@pytest.mark.parametrize("pixels", [0, 1, 2])
def test_every_shift_occurs_once_and_none_comes_first(pixels):
    images = picture()
    result = expand_with_shifts(images, pixels)
    span = range(-pixels, pixels + 1)
    assert len(result) == 4 * len(span) ** 2
    assert torch.equal(result[:4], images)
    copies = [tuple(result[k * 4].flatten().tolist()) for k in range(len(span) ** 2)]
    expected = {tuple(shifted(images[0], y, x, pixels).flatten().tolist()) for y in span for x in span}
    assert len(set(copies)) == len(copies)
    assert set(copies) == expected


def test_the_face_set_grows_to_1440():
    data = load_dataset("lfw100")
    assert expand_with_shifts(expand_with_flips(data.train), 1).shape == (1440, 1, 25, 25)


def test_random_augmentation_repeats_by_generator_and_only_flips_and_shifts():
    images = picture(count=64)
    first = random_augment(images, pixels=2, generator=torch.Generator().manual_seed(3))
    again = random_augment(images, pixels=2, generator=torch.Generator().manual_seed(3))
    assert torch.equal(first, again)
    assert first.shape == images.shape
    mirrored, places = 0, set()
    for image, result in zip(images, first, strict=True):
        found = [
            (flip, y, x)
            for flip in (False, True)
            for y in range(-2, 3)
            for x in range(-2, 3)
            if torch.equal(shifted(image, y, x, 2).flip(2) if flip else shifted(image, y, x, 2), result)
        ]
        assert found
        mirrored += found[0][0]
        places.add(found[0][1:])
    assert 16 <= mirrored <= 48
    assert len(places) > 15


def test_random_augmentation_can_do_nothing():
    images = picture()
    assert torch.equal(random_augment(images, flip=False, pixels=0), images)


@pytest.mark.parametrize(
    ("images", "pixels", "kind", "fragment"),
    [
        (torch.zeros(3, 5), 1, ValueError, "images: expected shape"),
        (picture(), 6, ValueError, "pixels: expected 0 to 5"),
        (picture(), -1, ValueError, "pixels: expected 0"),
        (picture(), 1.5, TypeError, "pixels: expected an int"),
    ],
)
def test_wrong_arguments_are_named(images, pixels, kind, fragment):
    with pytest.raises(kind, match=fragment):
        expand_with_shifts(images, pixels)
