"""Corruptions and augmentations of tensors, each a function of a seed and of a row's place in its batch."""

from naign_ext.transforms.augment import expand_with_flips, expand_with_shifts, random_augment
from naign_ext.transforms.corruptions import KINDS, corrupt, default_strength, degrade, keep_known

__all__ = [
    "KINDS",
    "corrupt",
    "default_strength",
    "degrade",
    "expand_with_flips",
    "expand_with_shifts",
    "keep_known",
    "random_augment",
]
