"""Out-of-distribution images for sets that come with none: the held-out images with their quarters swapped.

Brightness, contrast and texture stay those of the data; only the arrangement is wrong. A detector cannot
win by noticing another mean or another sharpness, as it could against noise or another collection.
"""

import itertools
import math

import torch
from torch import Tensor

from naign_ext.seeds import data_generator

SUMMARY = "held-out images with their quarters rearranged"
DESCRIPTION = "held-out images with their four quarters rearranged, none in its own place"
_DERANGEMENTS = [p for p in itertools.permutations(range(4)) if all(p[i] != i for i in range(4))]


def rearrange_quarters(image: Tensor, order: tuple[int, ...]) -> Tensor:
    """Put quarter order[i] of image (C, H, W) into place i (by rows); an odd middle row or column stays."""
    height, width = image.shape[-2] // 2, image.shape[-1] // 2
    tops, lefts = (0, image.shape[-2] - height), (0, image.shape[-1] - width)
    places = [(top, left) for top in tops for left in lefts]
    result = image.clone()
    for (top, left), source in zip(places, order, strict=True):
        from_top, from_left = places[source]
        quarter = image[:, from_top : from_top + height, from_left : from_left + width]
        result[:, top : top + height, left : left + width] = quarter
    return result


def rearranged(images: Tensor, seed: int, at_least: int = 100) -> Tensor | None:
    """Images (N, C, H, W) rearranged, each in so many different ways (up to 9) that ``at_least`` come out.

    None for N = 0.
    """
    if len(images) == 0:
        return None
    generator = data_generator(seed, "ood")
    ways = min(len(_DERANGEMENTS), math.ceil(at_least / len(images)))
    result = []
    for image in images:
        chosen = torch.randperm(len(_DERANGEMENTS), generator=generator)[:ways]
        result += [rearrange_quarters(image, _DERANGEMENTS[int(i)]) for i in chosen]
    return torch.stack(result)
