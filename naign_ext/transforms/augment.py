"""Augmentation: flips and shifts, as an enlarged set for few images or at random for each batch."""

import torch
import torch.nn.functional as F
from torch import Tensor


def _check(images: Tensor, pixels: int) -> None:
    if images.ndim != 4:
        raise ValueError(f"images: expected shape (N, C, H, W), got {tuple(images.shape)}")
    if isinstance(pixels, bool) or not isinstance(pixels, int):
        raise TypeError(f"pixels: expected an int, got {pixels!r}")
    if not 0 <= pixels < min(images.shape[-2:]):
        raise ValueError(f"pixels: expected 0 to {min(images.shape[-2:]) - 1} for these images, got {pixels}")


def expand_with_flips(images: Tensor) -> Tensor:
    """(N, C, H, W) to (2N, C, H, W): the images, then their mirror images left to right in the same order."""
    _check(images, 0)
    return torch.cat((images, images.flip(3)))


def expand_with_shifts(images: Tensor, pixels: int = 1) -> Tensor:
    """(N, C, H, W) to ((2 pixels + 1)^2 N, C, H, W): every shift by up to ``pixels``, edges repeated.

    The unshifted images come first, then N rows for each shift. 80 images with flips and 1 pixel give 1440.
    """
    _check(images, pixels)
    height, width = images.shape[-2:]
    padded = F.pad(images, (pixels, pixels, pixels, pixels), mode="replicate")
    offsets = [(y, x) for y in range(2 * pixels + 1) for x in range(2 * pixels + 1)]
    offsets.sort(key=lambda offset: (offset[0] - pixels) ** 2 + (offset[1] - pixels) ** 2)
    return torch.cat([padded[:, :, y : y + height, x : x + width] for y, x in offsets])


def random_augment(
    images: Tensor,
    *,
    flip: bool = True,
    pixels: int = 1,
    generator: torch.Generator | None = None,
    offset: tuple[int, int] | None = None,
) -> Tensor:
    """Each image of a batch (N, C, H, W) mirrored with probability 1/2 and shifted by up to ``pixels``.

    Edges are repeated; shifts are uniform over the (2 pixels + 1)^2 possible ones. Random numbers come from
    ``generator`` (on the CPU; torch's global one if None), so the result is the same on every device. offset:
    (first, total), where the images are rows first, first + 1, ... of a batch of ``total``.
    """
    _check(images, pixels)
    count, _, height, width = images.shape
    first, total = offset or (0, count)
    mine = slice(first, first + count)
    mirrored = torch.rand(total, generator=generator)[mine] < 0.5
    shift = torch.randint(-pixels, pixels + 1, (2, total, 1), generator=generator)[:, mine]
    rows = (torch.arange(height) + shift[0]).clamp(0, height - 1)
    columns = (torch.arange(width) + shift[1]).clamp(0, width - 1)
    if flip:
        columns = torch.where(mirrored[:, None], width - 1 - columns, columns)
    batch = torch.arange(count)[:, None, None]
    device = images.device
    # Advanced indices around the channel slice put the channels last.
    picked = images[batch.to(device), :, rows[:, :, None].to(device), columns[:, None, :].to(device)]
    return picked.permute(0, 3, 1, 2).contiguous()
