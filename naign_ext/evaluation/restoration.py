"""How much nearer to the originals restored images are than the corrupted ones, in PSNR and SSIM."""

from torch import Tensor

from naign_ext.evaluation.image_quality import psnr, ssim

# JSON has no infinity; equal 8 bit images are beyond 100 dB in any sense that matters.
HIGHEST_PSNR = 100.0


def mean_psnr(clean: Tensor, other: Tensor) -> float:
    """Mean over images (N, C, H, W) in [-1, 1] of PSNR in dB, of each image at most 100.

    Values are taken as they are, so unclipped noise of deviation s stands at 20 log10(2 / s) dB.
    """
    return float(image_psnr(clean, other).mean())


def image_psnr(clean: Tensor, other: Tensor) -> Tensor:
    """(N,) PSNR in dB of each image (N, C, H, W) in [-1, 1], at most 100."""
    capped: Tensor = psnr(clean, other).clamp(max=HIGHEST_PSNR)
    return capped


def image_gains(clean: Tensor, corrupted: Tensor, restored: Tensor) -> Tensor:
    """(N,) PSNR of each restored minus that of each corrupted image (N, C, H, W), in dB."""
    return image_psnr(clean, restored) - image_psnr(clean, corrupted)


def mean_ssim(clean: Tensor, other: Tensor) -> float:
    """Mean over images (N, C, H, W), H and W at least 3, of SSIM."""
    return float(ssim(clean, other).mean())


def gain(clean: Tensor, corrupted: Tensor, restored: Tensor) -> float:
    """Mean PSNR of restored minus that of corrupted images (N, C, H, W), in dB."""
    return mean_psnr(clean, restored) - mean_psnr(clean, corrupted)


def gain_clipped(clean: Tensor, corrupted: Tensor, restored: Tensor) -> float:
    """The gain where all values are clipped to [-1, 1] first, as writing them to a file does."""
    return gain(clean, corrupted.clamp(-1, 1), restored.clamp(-1, 1))
