"""Restorers without a network: total variation denoising and the nearest training image."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from naign_ext.data import Dataset
from naign_ext.evaluation import Row, gain
from naign_ext.evaluation.ood import nearest_row
from naign_ext.evaluation.rows import subset
from naign_ext.evaluation.subjects import RESTORATIONS
from naign_ext.evaluation.subjects.images import MOST_RESTORED
from naign_ext.transforms import corrupt

TV_WEIGHTS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
MOST_TUNED = 64


def restoration_baselines(dataset: Dataset, seed: int) -> list[Row]:
    """Gain in dB on every corruption of held-out images, of the baselines tv and nearest.

    tv: total variation denoising (Chambolle), its weight the best of six on corrupted training images, and no
    denoising one of the choices. nearest: the training image nearest to the corrupted one.
    """
    clean, train = subset(dataset.heldout, MOST_RESTORED, seed), subset(dataset.train, MOST_TUNED, seed)
    found = []
    for condition in RESTORATIONS if len(clean) else ():
        kind, strength = condition.corruption, condition.strength
        corrupted = corrupt(clean, kind, seed=seed, strength=strength)[0]
        spoilt = corrupt(train, kind, seed=seed + 1, strength=strength)[0]
        restorers: dict[str, Callable[[Tensor], Tensor]] = {
            "tv": best_tv(train, spoilt),
            "nearest": lambda x: nearest_row(dataset.train, x),
        }
        for restorer, restore in restorers.items():
            found.append(Row("gain", restorer, gain(clean, corrupted, restore(corrupted)), condition))
    return found


def best_tv(clean: Tensor, corrupted: Tensor) -> Callable[[Tensor], Tensor]:
    """The denoiser of TV_WEIGHTS, or none, that brings corrupted (N, C, H, W) nearest to clean in mean square."""
    candidates = [0.0, *TV_WEIGHTS]
    errors = [float((denoise_tv(corrupted, weight) - clean).square().mean()) for weight in candidates]
    weight = candidates[errors.index(min(errors))]
    return lambda x: denoise_tv(x, weight)


def denoise_tv(images: Tensor, weight: float) -> Tensor:
    """Total variation denoising of images (N, C, H, W); weight 0 returns them."""
    from skimage import restoration

    if weight == 0:
        return images
    denoise: Any = restoration.denoise_tv_chambolle
    pictures = images.detach().cpu().double().numpy()
    restored = [denoise(picture, weight=weight, channel_axis=0) for picture in pictures]
    return torch.stack([torch.from_numpy(r) for r in restored]).to(images)
