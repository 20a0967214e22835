"""Resizing on tensors."""

import torch.nn.functional as F
from torch import Tensor


def check_image_size(image_size: int) -> int:
    """Return the side in pixels, or raise unless it is an int of at least 2."""
    if isinstance(image_size, bool) or not isinstance(image_size, int):
        raise TypeError(f"image_size: expected an int (pixels), got {image_size!r}")
    if not 2 <= image_size <= 4096:
        raise ValueError(f"image_size: expected 2 to 4096 pixels, got {image_size}")
    return image_size


def resize(images: Tensor, image_size: int | None) -> Tensor:
    """Images (N, C, H, W) to side ``image_size`` by antialiased bilinear filtering; None keeps them."""
    if image_size is None or tuple(images.shape[-2:]) == (image_size, image_size):
        return images
    side = check_image_size(image_size)
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
