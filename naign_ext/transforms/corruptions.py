"""Corruptions for restoration: noise, mask, blur, downsample. Deterministic in the seed, on any device."""

import math
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from naign_ext.seeds import data_generator

KINDS = ("noise", "mask", "blur", "downsample")
NOISE_SIGMA = 0.5
MASK_FRACTION = 0.5
DOWNSAMPLE_FACTOR = 2
_LAYOUTS = ("centre", "left", "right", "top", "bottom")


def default_strength(kind: str, shape: tuple[int, ...]) -> float:
    """The strength that `corrupt` uses for a batch of this shape when none is given.

    noise: sigma .5 (images span [-1, 1]). mask: half of the area. blur: sigma of 1/25 of the shorter side, at
    least .7 pixel. downsample: factor 2.
    """
    _check_kind(kind)
    if kind == "blur":
        return max(0.7, min(shape[-2:]) / 25)
    return {"noise": NOISE_SIGMA, "mask": MASK_FRACTION, "downsample": float(DOWNSAMPLE_FACTOR)}[kind]


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}; got {kind!r}")


def _check(x: Tensor, kind: str, strength: float) -> None:
    if not x.is_floating_point() or x.ndim not in (2, 4):
        raise ValueError(
            f"images: expected floating-point (N, D) or (N, C, H, W), got {x.dtype} {tuple(x.shape)}"
        )
    if kind in ("blur", "downsample") and x.ndim != 4:
        raise ValueError(f"kind: {kind} is for images (N, C, H, W), got vectors {tuple(x.shape)}")
    if not math.isfinite(strength) or strength < 0:
        raise ValueError(f"strength: expected a finite number, 0 or more, got {strength}")
    if kind == "mask" and strength > 1:
        raise ValueError(f"strength: a mask covers a fraction of the image, expected 0 to 1, got {strength}")
    if kind == "blur" and strength > max(x.shape[-2:]):
        raise ValueError(
            f"strength: a blur's sigma is at most the image's side, {max(x.shape[-2:])} pixels, got {strength}"
        )
    if kind == "downsample" and (strength < 1 or strength != int(strength) or strength > max(x.shape[-2:])):
        raise ValueError(
            f"strength: downsampling takes a whole factor from 1 to the image's side, got {strength}"
        )


def corrupt(
    images: Tensor,
    kind: str,
    *,
    seed: int,
    strength: float | None = None,
    resample: str = "bilinear",
    offset: tuple[int, int] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """A corrupted copy of the images, and where they were masked.

    Args:
        images: floating-point (N, C, H, W), or (N, D) for noise and mask.
        kind: "noise": x + sigma e, e ~ N(0, I), not clipped.
            "mask": a box or a fraction of the coordinates set to 0 (grey). Each image's box is, at random,
            centred (sides sqrt(strength) of the image's) or a strip along one of the four edges.
            "blur": Gaussian of ``strength`` pixels, edges repeated.
            "downsample": averages over ``strength`` x ``strength`` pixels, brought back to the old size.
        seed: decides noise, boxes and coordinates; the same for every device.
        strength: sigma, fraction of the area, sigma in pixels, or whole factor; None is `default_strength`.
        resample: "bilinear" or "nearest", how downsampled images are enlarged again.
        offset: (first, total): the images are rows first, first + 1, ... of a batch of ``total``, and are changed
            as they would be within it. Default: they are the whole batch.

    Returns:
        (corrupted, mask): mask is bool, True where the value is lost, (N, 1, H, W) or (N, D); None for
        kinds other than "mask".
    """
    _check_kind(kind)
    strength = default_strength(kind, tuple(images.shape)) if strength is None else float(strength)
    _check(images, kind, strength)
    if resample not in ("bilinear", "nearest"):
        raise ValueError(f"resample: expected bilinear or nearest, got {resample!r}")
    if kind == "noise":
        first, total = offset or (0, len(images))
        noise = torch.randn((total, *images.shape[1:]), generator=data_generator(seed, "noise"))
        noise = noise[first : first + len(images)]
        return images + strength * noise.to(images), None
    if kind == "mask":
        mask = mask_like(images, strength, seed, offset)
        return images.masked_fill(mask, 0.0), mask
    return degrade(images, kind, strength=strength, resample=resample), None


def degrade(
    images: Tensor, kind: str, *, strength: float | None = None, resample: str = "bilinear"
) -> Tensor:
    """The corruptions of `corrupt` that are linear and draw nothing: "blur" and "downsample"; arguments as there."""
    if kind not in ("blur", "downsample"):
        raise ValueError(f"kind: expected blur or downsample, which need no random numbers, got {kind!r}")
    strength = default_strength(kind, tuple(images.shape)) if strength is None else float(strength)
    _check(images, kind, strength)
    if kind == "blur":
        return gaussian_blur(images, strength)
    return downsample(images, int(strength), resample)


def keep_known(
    restored: Tensor,
    corrupted: Tensor,
    *,
    lost: Tensor | None = None,
    degrade: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """A restored image y with what its corrupted form x tells for certain put back.

    Args:
        restored, corrupted: y and x, of one shape.
        lost: bool, True where x was masked: there y stays, elsewhere x returns.
        degrade: the linear map A that made x of the original: y + x - A(y), which A maps near to x. What A
            lets pass comes from x, what it takes away from y.
    """
    if lost is not None:
        return torch.where(lost, restored, corrupted)
    return restored if degrade is None else restored + corrupted - degrade(restored)


def _box(layout: str, height: int, width: int, fraction: float) -> Tensor:
    """bool (H, W), True inside the box."""
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None, :]
    if layout == "centre":
        tall, wide = round(math.sqrt(fraction) * height), round(math.sqrt(fraction) * width)
        top, left = (height - tall) // 2, (width - wide) // 2
        return (rows >= top) & (rows < top + tall) & (columns >= left) & (columns < left + wide)
    tall, wide = round(fraction * height), round(fraction * width)
    strips = {
        "left": columns < wide,
        "right": columns >= width - wide,
        "top": rows < tall,
        "bottom": rows >= height - tall,
    }
    return strips[layout].expand(height, width)


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _boxes(height: int, width: int, fraction: float) -> Tensor:
    """bool (layouts, H, W): the box of each layout."""
    return torch.stack([_box(layout, height, width, fraction) for layout in _LAYOUTS])


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _gaussian(sigma: float, radius: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Weights (2 radius + 1,) that add up to 1."""
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    return (weights / weights.sum()).to(device, dtype)


def mask_like(images: Tensor, fraction: float, seed: int, offset: tuple[int, int] | None = None) -> Tensor:
    """The mask of `corrupt`: True on about ``fraction`` of each image or vector."""
    generator = data_generator(seed, "mask")
    first, total = offset or (0, len(images))
    mine = slice(first, first + len(images))
    if images.ndim == 2:
        count = round(fraction * images.shape[1])
        order = torch.rand((total, *images.shape[1:]), generator=generator)[mine].argsort(1)
        return (order.argsort(1) < count).to(images.device)
    height, width = images.shape[-2:]
    chosen = torch.randint(len(_LAYOUTS), (total,), generator=generator)[mine]
    return _boxes(height, width, fraction)[chosen].unsqueeze(1).to(images.device)


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Convolve (N, C, H, W) with a Gaussian of ``sigma`` pixels cut at 4 sigma; edges are repeated."""
    if sigma == 0:
        return images.clone()
    radius = max(1, math.ceil(4 * sigma))
    kernel = _gaussian(sigma, radius, images.dtype, images.device)
    count, channels, height, width = images.shape
    planes = images.reshape(count * channels, 1, height, width)
    planes = F.pad(planes, (radius, radius, radius, radius), mode="replicate")
    planes = F.conv2d(F.conv2d(planes, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return planes.reshape(images.shape)


def downsample(images: Tensor, factor: int, resample: str = "bilinear") -> Tensor:
    """Average (N, C, H, W) down to ceil(H / factor) x ceil(W / factor), then enlarge to H x W again."""
    height, width = images.shape[-2:]
    small = F.adaptive_avg_pool2d(images, (-(-height // factor), -(-width // factor)))
    if resample == "nearest":
        return F.interpolate(small, size=(height, width), mode="nearest-exact")
    return F.interpolate(small, size=(height, width), mode="bilinear", align_corners=False)
