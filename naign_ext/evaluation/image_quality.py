"""How near a restored image is to the original: PSNR in decibel, SSIM."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from naign_ext.evaluation.rows import same_shape

IMAGE_RANGE = 2.0


def psnr(original: Tensor, other: Tensor, *, data_range: float = IMAGE_RANGE) -> Tensor:
    """10 log10(data_range^2 / mean squared error) of every image, (N,) in dB; +inf for equal images.

    The values are taken as they are. Noise of deviation s therefore stands at 20 log10(data_range / s), also
    where it leaves the range; clip both first for the value that an 8 bit file would get.

    Args:
        original, other: (N, ...) of equal shape. data_range: largest minus smallest possible value, 2 in [-1,
        1].
    """
    same_shape(original=original, other=other)
    error = (original.detach().double() - other.detach().double()).flatten(1).square().mean(dim=1)
    return 10 * torch.log10(data_range**2 / error)


def ssim(original: Tensor, other: Tensor, *, data_range: float = IMAGE_RANGE) -> Tensor:
    """Structural similarity (Wang et al. 2004) of every image, (N,), 1 for equal images.

    scikit-image's, with a uniform window of 7 x 7 pixels, or the largest odd one that fits a smaller image.

    Args:
        original, other: (N, C, H, W), H and W at least 3.

    Raises:
        ValueError: not four-dimensional, unequal shapes, or smaller than 3 pixels.
    """
    from skimage import metrics

    same_shape(original=original, other=other)
    if original.dim() != 4 or min(original.shape[2:]) < 3:
        raise ValueError(
            f"original: expected images (N, C, H >= 3, W >= 3), got shape {tuple(original.shape)}"
        )
    smallest = min(original.shape[2:])
    window = min(7, smallest if smallest % 2 else smallest - 1)
    similarity: Any = metrics.structural_similarity
    first, second = (t.detach().double().cpu().numpy() for t in (original, other))
    values = [
        similarity(a, b, win_size=window, channel_axis=0, data_range=data_range)
        for a, b in zip(first, second, strict=True)
    ]
    return torch.from_numpy(np.asarray(values, dtype=np.float64))
