"""Corrupted images that are restored, and images that a classifier is to recognise."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Self

from torch import Tensor

from naign_ext.evaluation import baselines
from naign_ext.evaluation.context import EvalContext
from naign_ext.evaluation.results import MAP, Condition
from naign_ext.evaluation.rows import subset
from naign_ext.evaluation.subjects.base import Subject
from naign_ext.transforms.corruptions import corrupt, degrade, gaussian_blur, keep_known

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
        """f of every corruption, and with what is known put back; and the corrupted images themselves."""
        clean = _restored_images(context.heldout, context)
        for condition in RESTORATIONS if len(clean) else ():
            spoilt, lost = corrupt(
                clean, condition.corruption, seed=context.seed, strength=condition.strength
            )
            restored = {condition: context.apply(spoilt)}
            if (kept := _with_known(restored[condition], spoilt, condition, lost)) is not None:
                restored[Condition(condition.corruption, condition.strength, known=True)] = kept
            for under, images in restored.items():
                yield cls(baselines.CORRUPTED, context, clean, spoilt, spoilt, condition=under)
                yield cls(MAP, context, clean, spoilt, images, condition=under)

    @classmethod
    def baselines(cls, context: EvalContext) -> Iterator[Self]:
        """The Gaussian filter that is best on training images."""
        train, clean = (_restored_images(x, context) for x in (context.train, context.heldout))
        for condition in RESTORATIONS if len(clean) else ():
            kind, strength = condition.corruption, condition.strength
            sigma = baselines.best_filter(
                train, corrupt(train, kind, seed=context.seed + 1, strength=strength)[0]
            )
            spoilt = corrupt(clean, kind, seed=context.seed, strength=strength)[0]
            yield cls("filter", context, clean, spoilt, gaussian_blur(spoilt, sigma), condition=condition)


def _restored_images(images: Tensor, context: EvalContext) -> Tensor:
    return subset(images, MOST_RESTORED, context.seed)


def _with_known(
    restored: Tensor, corrupted: Tensor, condition: Condition, lost: Tensor | None
) -> Tensor | None:
    """Restored images with what is known of the originals put back; None under noise, where nothing is."""
    if condition.corruption == "noise":
        return None
    spoil = partial(degrade, kind=condition.corruption, strength=condition.strength)
    return keep_known(restored, corrupted, lost=lost, degrade=None if lost is not None else spoil)


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
