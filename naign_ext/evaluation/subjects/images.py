"""Corrupted images that are restored, and images that a classifier is to recognise."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from naign_ext.evaluation import baselines, classical, ood
from naign_ext.evaluation.context import EvalContext
from naign_ext.evaluation.restoring import MOST_TRIED, Corruption, choose
from naign_ext.evaluation.results import BEST, MAP, Condition
from naign_ext.evaluation.rows import subset
from naign_ext.evaluation.subjects.base import Subject
from naign_ext.transforms.corruptions import corrupt, gaussian_blur

MOST_RESTORED = 500
RESTORATIONS = (
    Condition("noise", 0.5),
    Condition("noise", 1.0),
    Condition("mask"),
    Condition("blur"),
    Condition("downsample"),
)
RECOGNISED = Condition("noise", 1.0)
"""What images that a classifier is to recognise are corrupted by."""


@dataclass(frozen=True, eq=False)
class Restored(Subject):
    """clean, corrupted and restored images (N, C, H, W), of the held-out ones."""

    clean: Tensor
    corrupted: Tensor
    restored: Tensor

    @classmethod
    def own(cls, context: EvalContext) -> Iterator[Self]:
        """f of every corruption, and with what is known put back; the recipe that is best on validation images, if
        there are any; and the corrupted images themselves.
        """
        clean = _restored_images(context.heldout, context)
        for condition in RESTORATIONS if len(clean) else ():
            corruption = Corruption(condition.corruption, condition.strength)
            spoilt, known = corruption.spoil(clean, context.seed)
            plain = context.apply(spoilt)
            under = {condition: plain}
            if condition.corruption != "noise":
                kept = Condition(condition.corruption, condition.strength, known=True)
                under[kept] = known.put_back(plain, spoilt)
            for each, images in under.items():
                yield cls(baselines.CORRUPTED, context, clean, spoilt, spoilt, condition=each)
                yield cls(MAP, context, clean, spoilt, images, condition=each)
            if (validation := _validation_images(context)) is not None:
                choice = choose(context.apply, validation, corruption, context.seed + 1)
                best = choice.recipe.apply(context.apply, spoilt, known)
                yield cls(BEST, context, clean, spoilt, best, condition=list(under)[-1])

    @classmethod
    def baselines(cls, context: EvalContext) -> Iterator[Self]:
        """The Gaussian filter that is best on training images and the nearest of these; total variation denoising of
        noise, and inpainting of masks.
        """
        train, clean = (_restored_images(x, context) for x in (context.train, context.heldout))
        for condition in RESTORATIONS if len(clean) else ():
            kind, strength = condition.corruption, condition.strength
            spoilt_train = corrupt(train, kind, seed=context.seed + 1, strength=strength)[0]
            spoilt, lost = corrupt(clean, kind, seed=context.seed, strength=strength)
            sigma = baselines.best_filter(train, spoilt_train)
            found = {
                "filter": gaussian_blur(spoilt, sigma),
                "nearest": ood.nearest_row(context.train, spoilt),
            }
            if kind == "noise":
                few = slice(0, classical.MOST_TUNED)
                weight = classical.best_tv_weight(train[few], spoilt_train[few])
                found["tv"] = classical.denoise_tv(spoilt, weight)
            for name, restored in found.items():
                yield cls(name, context, clean, spoilt, restored, condition=condition)
            if lost is not None:
                kept = Condition(kind, strength, known=True)
                filled = classical.inpaint(spoilt, lost)
                yield cls("inpaint", context, clean, spoilt, filled, condition=kept)


def _restored_images(images: Tensor, context: EvalContext) -> Tensor:
    return subset(images, MOST_RESTORED, context.seed)


def _validation_images(context: EvalContext) -> Tensor | None:
    images = context.dataset.validation
    if images is None or len(images) == 0:
        return None
    return subset(images, MOST_TRIED, context.seed).to(context.device)


@dataclass(frozen=True, eq=False)
class Recognised(Subject):
    """images (N, C, H, W), held-out ones that the data set's classifier is to recognise."""

    images: Tensor

    @classmethod
    def own(cls, context: EvalContext) -> Iterator[Self]:
        """Strongly noisy images, and f of them."""
        kind, strength = RECOGNISED.corruption, RECOGNISED.strength
        noisy = corrupt(context.heldout, kind, seed=context.seed, strength=strength)[0]
        yield cls(baselines.CORRUPTED, context, noisy, condition=RECOGNISED)
        yield cls(MAP, context, context.apply(noisy), condition=RECOGNISED)

    @classmethod
    def baselines(cls, context: EvalContext) -> Iterator[Self]:
        """The images as they were."""
        yield cls(baselines.CLEAN, context, context.heldout)
