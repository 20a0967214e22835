"""Restorers without a network, by scikit-image: total variation denoising and biharmonic inpainting."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

TV_WEIGHTS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
MOST_TUNED = 32
"""Training images on which a weight is chosen."""


def best_tv_weight(clean: Tensor, corrupted: Tensor) -> float:
    """The weight of ``TV_WEIGHTS``, or 0, that brings corrupted (N, C, H, W) nearest to clean in mean square."""
    candidates = [0.0, *TV_WEIGHTS]
    errors = [float((denoise_tv(corrupted, weight) - clean).square().mean()) for weight in candidates]
    return candidates[errors.index(min(errors))]


def denoise_tv(images: Tensor, weight: float) -> Tensor:
    """Total variation denoising (Chambolle) of images (N, C, H, W); weight 0 returns them."""
    from skimage import restoration

    if weight == 0:
        return images
    denoise: Any = restoration.denoise_tv_chambolle
    pictures = images.detach().cpu().double().numpy()
    restored = [denoise(picture, weight=weight, channel_axis=0) for picture in pictures]
    return torch.stack([torch.from_numpy(r) for r in restored]).to(images)


def inpaint(images: Tensor, lost: Tensor) -> Tensor:
    """Images (N, C, H, W) in [-1, 1], filled in by biharmonic equations where lost, bool (N, 1, H, W), is True."""
    from skimage import restoration

    fill: Any = restoration.inpaint_biharmonic
    pictures, masks = images.detach().cpu().double().numpy(), lost[:, 0].cpu().numpy()
    restored = [fill(picture, mask, channel_axis=0) for picture, mask in zip(pictures, masks, strict=True)]
    return torch.from_numpy(np.stack(restored)).to(images).clamp(-1, 1)
