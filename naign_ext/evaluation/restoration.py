"""Corrupted images before and after f, in PSNR and SSIM, beside the best Gaussian filter."""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from naign_ext.evaluation.baselines import best_filter
from naign_ext.evaluation.image_quality import psnr, ssim
from naign_ext.transforms.corruptions import corrupt, degrade, gaussian_blur, keep_known

RESTORATIONS: tuple[tuple[str, str, float | None], ...] = (
    ("noise_0.5", "noise", 0.5),
    ("noise_1.0", "noise", 1.0),
    ("mask", "mask", None),
    ("blur", "blur", None),
    ("downsample", "downsample", None),
)
# JSON has no infinity; equal 8 bit images are beyond 100 dB in any sense that matters.
HIGHEST_PSNR = 100.0

Map = Callable[[Tensor], Tensor]


def restoration(f: Map, clean: Tensor, *, seed: int) -> dict[str, float]:
    """Clean images (N, C, H, W), each corruption of them before and after f: keys restore_CORRUPTION_FIGURE.

    CORRUPTION_known: with what is known of the original put back (mask, blur and downsample).
    """
    found: dict[str, float] = {}
    for name, kind, strength in RESTORATIONS:
        corrupted, lost = corrupt(clean, kind, seed=seed, strength=strength)
        restored = f(corrupted)
        found |= _prefixed(f"restore_{name}", compare(clean, corrupted, restored))
        if (kept := with_known(restored, corrupted, kind, strength, lost)) is not None:
            found |= _prefixed(f"restore_{name}_known", compare(clean, corrupted, kept))
    return found


def with_known(
    restored: Tensor, corrupted: Tensor, kind: str, strength: float | None, lost: Tensor | None
) -> Tensor | None:
    """Restored images with what is known of the originals put back; None under noise, where nothing is."""
    if kind == "noise":
        return None
    spoil = None if lost is not None else partial(degrade, kind=kind, strength=strength)
    return keep_known(restored, corrupted, lost=lost, degrade=spoil)


def filter_gains(train: Tensor, clean: Tensor, *, seed: int) -> dict[str, float]:
    """Gain in dB on each corruption of clean of the Gaussian filter that is best on train: the anchor."""
    found: dict[str, float] = {}
    for name, kind, strength in RESTORATIONS:
        spoilt = corrupt(train, kind, seed=seed + 1, strength=strength)[0]
        sigma = best_filter(train, spoilt)
        corrupted = corrupt(clean, kind, seed=seed, strength=strength)[0]
        filtered = compare(clean, corrupted, gaussian_blur(corrupted, sigma))
        found[f"restore_{name}_filter_gain"] = filtered["gain"]
    return found


def _prefixed(prefix: str, figures: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}_{key}": value for key, value in figures.items()}


def compare(clean: Tensor, corrupted: Tensor, restored: Tensor) -> dict[str, float]:
    """Means over images (N, C, H, W) in [-1, 1] of PSNR (dB, at most 100) and SSIM, before and after.

    gain takes all values as they are, so unclipped noise of deviation s starts at 20 log10(2 / s) dB;
    gain_clipped clips corrupted and restored images to [-1, 1] first, as writing them to a file does.
    """

    def decibel(other: Tensor) -> float:
        return float(psnr(clean, other).clamp(max=HIGHEST_PSNR).mean())

    before, after = decibel(corrupted), decibel(restored)
    found = {"psnr_before": before, "psnr_after": after, "gain": after - before}
    found["gain_clipped"] = decibel(restored.clamp(-1, 1)) - decibel(corrupted.clamp(-1, 1))
    if min(clean.shape[2:]) >= 3:
        found["ssim_before"] = float(ssim(clean, corrupted).mean())
        found["ssim_after"] = float(ssim(clean, restored).mean())
    return found
