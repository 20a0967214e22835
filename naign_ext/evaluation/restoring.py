"""Ways to restore by f: how often it is applied, averaged over which shifts and flips, and how much of it is taken."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from naign_ext.evaluation.restoration import image_gains
from naign_ext.transforms.corruptions import corrupt, degrade, keep_known

Map = Callable[[Tensor], Tensor]

STEPS = (1, 2, 4)
SHARES = (1.0, 0.75, 0.5, 0.25)
MOST_TRIED = 50
"""Validation images on which ways to restore are tried."""


@dataclass(frozen=True)
class Known:
    """What is known of a corrupted x's original; nothing, where both are None.

    lost: bool, True where a value is missing, of x's shape or broadcastable to it; the others are the original's.
    degrade: the linear map that made x.
    """

    lost: Tensor | None = None
    degrade: Map | None = None

    def put_back(self, restored: Tensor, corrupted: Tensor) -> Tensor:
        """See :func:`naign_ext.transforms.keep_known`."""
        return keep_known(restored, corrupted, lost=self.lost, degrade=self.degrade)


NOTHING_KNOWN = Known()


@dataclass(frozen=True)
class Recipe:
    """A way to restore images x (N, C, H, W) by f.

    steps: f is applied so often, what is known put back after each; 0 leaves x as it is.
    shift: in place of f(x) the mean of f over shifts of x by up to so many pixels each way, shifted back.
    flip: the mean over mirror images too.
    share: of the result, in (0, 1]; the rest is x.
    """

    steps: int = 1
    shift: int = 0
    flip: bool = False
    share: float = 1.0

    @property
    def words(self) -> str:
        """As in "mean of f over 18 shifts and flips, applied twice, half of it and half of the image"."""
        if self.steps == 0:
            return "left as they are"
        views = (2 * self.shift + 1) ** 2 * (1 + self.flip)
        over = " and ".join(["shifts"] * bool(self.shift) + ["flips"] * self.flip)
        words = [f"mean of f over {views} {over}" if views > 1 else "f"]
        words.append("applied once" if self.steps == 1 else f"applied {self.steps} times")
        if self.share < 1:
            words.append(f"{self.share:.0%} of it and {1 - self.share:.0%} of the image")
        return ", ".join(words)

    def apply(self, f: Map, x: Tensor, known: Known = NOTHING_KNOWN) -> Tensor:
        """x (N, C, H, W) restored, of its shape and dtype."""
        y = next(itertools.islice(self.iterates(f, x, known), self.steps, None))
        return torch.lerp(x, y, self.share) if self.share < 1 else y

    def iterates(self, f: Map, x: Tensor, known: Known = NOTHING_KNOWN) -> Iterator[Tensor]:
        """x, x restored by one step, by two, and so on without end, all of it taken."""
        y = x
        while True:
            yield y
            y = known.put_back(self._mean(f, y), x)

    def _mean(self, f: Map, x: Tensor) -> Tensor:
        if not self.shift and not self.flip:
            return f(x)
        reach = range(-self.shift, self.shift + 1)
        views = list(itertools.product(reach, reach, (False, True) if self.flip else (False,)))
        total = torch.zeros_like(x)
        for down, right, mirrored in views:
            seen = _shifted(x, down, right)
            seen = f(seen.flip(3)).flip(3) if mirrored else f(seen)
            total += _shifted(seen, -down, -right)
        return total / len(views)


def _shifted(x: Tensor, down: int, right: int) -> Tensor:
    """Images (N, C, H, W) moved by so many pixels, edges repeated."""
    if down == right == 0:
        return x
    height, width = x.shape[2:]
    reach = max(abs(down), abs(right))
    padded = F.pad(x, (reach, reach, reach, reach), mode="replicate")
    return padded[..., reach - down : reach - down + height, reach - right : reach - right + width]


ONE_PASS = Recipe()
UNCHANGED = Recipe(steps=0)


def recipes(shape: tuple[int, ...]) -> Iterator[Recipe]:
    """What is tried for images of shape (C, H, W), the plainest first; those of one step and of share 1 alone."""
    shifts = (0, 1) if min(shape[1:]) > 2 else (0,)
    for shift, flip in itertools.product(shifts, (False, True)):
        yield Recipe(shift=shift, flip=flip)


@dataclass(frozen=True)
class Corruption:
    """A known way in which images are spoilt; kind, strength: as :func:`naign_ext.transforms.corrupt` takes them.

    known: whether what it leaves of the original is put back; never under noise, which leaves nothing.
    """

    kind: str
    strength: float | None = None
    known: bool = True

    def spoil(self, clean: Tensor, seed: int) -> tuple[Tensor, Known]:
        """Corrupted images, and what is known of their originals."""
        corrupted, lost = corrupt(clean, self.kind, seed=seed, strength=self.strength)
        return corrupted, self.known_with(lost)

    def known_with(self, lost: Tensor | None = None) -> Known:
        """What is known of images corrupted so; lost: where a mask covers them."""
        if not self.known or self.kind == "noise":
            return NOTHING_KNOWN
        if self.kind == "mask":
            return Known(lost=lost)
        return Known(degrade=partial(degrade, kind=self.kind, strength=self.strength))


@dataclass(frozen=True)
class Choice:
    """The recipe that was best on validation images.

    gain, gain_of_one_pass: mean PSNR there after minus before, in dB, of the recipe and of f applied once.
    images: how many there were; 0 where none were to be had, and the recipe is f applied once.
    """

    recipe: Recipe
    gain: float
    gain_of_one_pass: float
    images: int

    @property
    def helps(self) -> bool:
        """Whether f is of use: False where leaving the images as they are was best."""
        return self.recipe.steps > 0


def choose(f: Map, validation: Tensor, corruption: Corruption, seed: int) -> Choice:
    """The plainest of :func:`recipes`, ``STEPS`` and ``SHARES`` that is best on validation images (n, C, H, W).

    The best by mean gain in PSNR need not be so on other images: it gives way to the plainest of those that it beats by
    no more than the standard error of the mean difference (the one-standard-error rule). Where no recipe gains anything
    images are left as they are.
    """
    if len(validation) == 0:
        return Choice(ONE_PASS, 0.0, 0.0, 0)
    corrupted, known = corruption.spoil(validation, seed)
    gains: dict[Recipe, Tensor] = {}
    for recipe in recipes(tuple(validation.shape[1:])):
        iterates = itertools.islice(recipe.iterates(f, corrupted, known), max(STEPS) + 1)
        for steps, restored in enumerate(iterates):
            for share in SHARES if steps in STEPS else ():
                taken = torch.lerp(corrupted, restored, share)
                gains[replace(recipe, steps=steps, share=share)] = image_gains(validation, corrupted, taken)
    chosen = _plainest_of_the_best(gains)
    gain = 0.0 if chosen == UNCHANGED else float(gains[chosen].mean())
    return Choice(chosen, gain, float(gains[ONE_PASS].mean()), len(validation))


def _plainest_of_the_best(gains: Mapping[Recipe, Tensor]) -> Recipe:
    """gains: (n,) of each recipe, the plainest first."""
    best = max(gains.values(), key=lambda found: float(found.mean()))
    for recipe, found in gains.items():
        behind = best - found
        error = behind.std() / len(behind) ** 0.5 if len(behind) > 1 else behind.new_tensor(torch.inf)
        if found.mean() > 0 and behind.mean() <= error:
            return recipe
    return UNCHANGED
