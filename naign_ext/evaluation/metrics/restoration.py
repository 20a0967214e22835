"""Corrupted held-out images before and after f, in PSNR and SSIM, and in a classifier's accuracy."""

from naign_ext.evaluation.baselines import CLEAN, CORRUPTED
from naign_ext.evaluation.registry import metric
from naign_ext.evaluation.restoration import gain, gain_clipped, mean_psnr, mean_ssim
from naign_ext.evaluation.subjects import Recognised, Restored

_IMAGES = ("images", "held-out data")


@metric(
    "psnr",
    "higher",
    "restoration",
    of=Restored,
    needs=_IMAGES,
    baselines=(CORRUPTED,),
    title="PSNR after, dB",
    before="PSNR before, dB",
    text="of f(corrupted), and of the corrupted held-out images",
)
def _psnr(images: Restored) -> float:
    return mean_psnr(images.clean, images.restored)


@metric(
    "gain",
    "higher",
    "restoration",
    of=Restored,
    needs=_IMAGES,
    baselines=("filter", "tv", "nearest", "inpaint"),
    title="gain, dB",
    text="PSNR of f(corrupted) minus PSNR of the corrupted images",
)
def _gain(images: Restored) -> float:
    return gain(images.clean, images.corrupted, images.restored)


@metric(
    "gain_clipped",
    "higher",
    "restoration",
    of=Restored,
    needs=_IMAGES,
    baselines=(),
    title="gain over clipping, dB",
    text="the same, all values clipped to [-1, 1] first",
)
def _gain_clipped(images: Restored) -> float:
    return gain_clipped(images.clean, images.corrupted, images.restored)


@metric(
    "ssim",
    "higher",
    "restoration",
    of=Restored,
    needs=(*_IMAGES, "3 x 3 pixels"),
    baselines=(CORRUPTED,),
    title="SSIM after",
    before="SSIM before",
    text="of f(corrupted), and of the corrupted held-out images",
)
def _ssim(images: Restored) -> float:
    return mean_ssim(images.clean, images.restored)


@metric(
    "accuracy",
    "higher",
    "restoration",
    of=Recognised,
    needs=(*_IMAGES, "labels", "held-out labels"),
    baselines=(CORRUPTED, CLEAN),
    title="accuracy after",
    before="accuracy before",
    text="of a classifier on f(corrupted), on the corrupted and on the clean images",
)
def _accuracy(recognised: Recognised) -> float | None:
    classifier, labels = recognised.context.judges.classifier, recognised.context.dataset.heldout_labels
    if classifier is None or labels is None:
        return None
    return classifier.accuracy(recognised.images, labels)
