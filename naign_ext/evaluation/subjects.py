"""What metrics judge: sets of samples, maps, detectors, densities, restored images; f's own and those of baselines.

Each kind says which of its subjects come from f (`own`) and which need no network (`baselines`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Self

import torch
from torch import Tensor

from naign_ext.evaluation import baselines, density, ood, projection
from naign_ext.evaluation.context import NEIGHBOURS, EvalContext, Map
from naign_ext.evaluation.coverage import ModeCoverage, Prdc, mode_coverage, prdc
from naign_ext.evaluation.field import FieldPoints
from naign_ext.evaluation.results import DATA, MAP, ONCE, TWICE, Condition
from naign_ext.evaluation.rows import as_rows, subset
from naign_ext.transforms.corruptions import corrupt, degrade, gaussian_blur, keep_known

MOST_RESTORED = 500
MOST_COMPARED = 2000
LEAST_LOG_DENSITY = -50
"""Stands in where a grid estimate says 0, as JSON has no infinity."""

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
class Subject:
    """What a metric judges.

    name: one of :data:`naign_ext.evaluation.results.OWN`, or of :data:`naign_ext.evaluation.baselines.BASELINES`.
    condition: of restored images only.
    """

    name: str
    context: EvalContext = field(repr=False)
    condition: Condition | None = field(default=None, kw_only=True)

    @classmethod
    def own(cls, context: EvalContext) -> Iterator[Self]:
        """What comes of f."""
        raise NotImplementedError

    @classmethod
    def baselines(cls, context: EvalContext) -> Iterator[Self]:
        """What needs no network."""
        return iter(())


@dataclass(frozen=True, eq=False)
class DataSubject(Subject):
    """The data set itself, which nothing is to be compared with."""

    @classmethod
    def own(cls, context: EvalContext) -> Iterator[Self]:
        """The data set."""
        yield cls(DATA, context)


@dataclass(frozen=True, eq=False)
class SampleSet(Subject):
    """rows: samples (M, *sample_shape), judged against the context's training data."""

    rows: Tensor

    @classmethod
    def own(cls, context: EvalContext) -> Iterator[Self]:
        """f(z) and f(f(z))."""
        yield cls(ONCE, context, context.once)
        yield cls(TWICE, context, context.twice)

    @classmethod
    def baselines(cls, context: EvalContext) -> Iterator[Self]:
        """Samplers without a network, of as many rows; of held-out images as many as there are."""
        samplers = _vector_samplers if context.dataset.kind == "vector" else _image_samplers
        for name, rows in samplers(context):
            if len(rows) > NEIGHBOURS:
                yield cls(name, context, rows)
        if context.dataset.kind == "image" and len(context.train) > 2 * NEIGHBOURS:
            train, samples = baselines.halves(context.train, context.seed + 3)
            yield cls("half", context.with_train(train), samples)

    @cached_property
    def features(self) -> Tensor:
        """(M, K): what sets of images are compared by; of vectors their coordinates."""
        return self.context.features(self.rows) if self.context.dataset.kind == "image" else self.rows

    @cached_property
    def compared_with(self) -> Tensor:
        """(N, K): features of the training images; of vectors a true draw of as many, or the held-out ones."""
        if self.context.dataset.kind == "image":
            return self.context.train_features
        return self.context.truth(len(self.rows), 0)

    @cached_property
    def prdc(self) -> Prdc:
        """Precision, recall, density and coverage, of at most MOST_COMPARED rows each."""
        sets = (
            subset(rows, MOST_COMPARED, self.context.seed) for rows in (self.compared_with, self.features)
        )
        return prdc(*sets, k=NEIGHBOURS)

    @cached_property
    def modes(self) -> ModeCoverage:
        """Of a mixture."""
        dataset = self.context.dataset
        assert dataset.modes is not None and dataset.mode_std is not None
        radius = 3.0 if dataset.modes.shape[1] == 1 else 4.0
        modes = dataset.modes.to(self.rows.device)
        return mode_coverage(self.rows, modes, dataset.mode_std, sigmas=radius)

    @cached_property
    def probabilities(self) -> Tensor:
        """(M, classes) of the data set's classifier."""
        assert self.context.judges.classifier is not None
        return self.context.judges.classifier.probabilities(self.rows)


def _vector_samplers(context: EvalContext) -> Iterator[tuple[str, Tensor]]:
    train, count, seed = context.train, len(context.once), context.seed
    yield "prior", context.latents
    yield "gaussian", baselines.pca_gaussian(train, count, seed + 1, components=train[0].numel())
    yield "copies", baselines.copies(train, count, seed + 2)
    if context.dataset.sample_truth is not None:
        yield "truth", context.truth(count, 2)


def _image_samplers(context: EvalContext) -> Iterator[tuple[str, Tensor]]:
    train, count, seed = context.train, len(context.once), context.seed
    copies = baselines.copies(train, count, seed + 2)
    yield "heldout", context.heldout
    yield "copies", copies
    yield "blur", gaussian_blur(copies, baselines.BLUR_SIGMA)
    yield "pca", baselines.pca_gaussian(train, count, seed + 1)
    yield "mean", baselines.mean_image(train, count)


@dataclass(frozen=True, eq=False)
class MapSubject(Subject):
    """apply: a map of (N, *sample_shape) to the same, to be judged as a projector; once, twice: of the latents."""

    apply: Map
    once: Tensor
    twice: Tensor

    @classmethod
    def own(cls, context: EvalContext) -> Iterator[Self]:
        """f."""
        yield cls(MAP, context, context.apply, context.once, context.twice)

    @classmethod
    def baselines(cls, context: EvalContext) -> Iterator[Self]:
        """Maps to the nearest training row, and to the training mean."""
        mean = context.train.mean(dim=0, keepdim=True)
        maps: dict[str, Map] = {"nearest": _to_nearest(context), "mean": mean.expand_as}
        for name, apply in maps.items():
            once = projection.apply(apply, context.latents)
            yield cls(name, context, apply, once, projection.apply(apply, once))


def _to_nearest(context: EvalContext) -> Map:
    return lambda x: ood.nearest_row(context.train, x)


@dataclass(frozen=True, eq=False)
class Detector(Subject):
    """A score that is to be larger off the data: the residual of a map, or where there is none, another one.

    apply: the map. score: of points (N, *sample_shape) to (N,), where there is no map.
    """

    apply: Map | None
    score: Callable[[Tensor], Tensor] | None = None

    @classmethod
    def own(cls, context: EvalContext) -> Iterator[Self]:
        """f."""
        yield cls(MAP, context, context.apply)

    @classmethod
    def baselines(cls, context: EvalContext) -> Iterator[Self]:
        """The nearest training row in place of f; for images, their variance."""
        yield cls("nearest", context, _to_nearest(context))
        if context.dataset.kind == "image":
            yield cls("variance", context, None, ood.inverse_variance)

    @cached_property
    def pairs(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """(x, map of x) of held-out data, and of data of another kind."""
        assert self.apply is not None and self.context.dataset.ood is not None
        inside, outside = self.context.heldout, self.context.dataset.ood.to(self.context.device)
        return (inside, self.apply(inside)), (outside, self.apply(outside))

    def scores(self, measure: Callable[[Tensor, Tensor], Tensor] = projection.residual) -> list[Tensor]:
        """The scores of held-out data, and of data of another kind; measure: of x and the map of x."""
        if self.score is not None:
            assert self.context.dataset.ood is not None
            return [
                self.score(x)
                for x in (self.context.heldout, self.context.dataset.ood.to(self.context.device))
            ]
        return [measure(x, y) for x, y in self.pairs]

    @cached_property
    def near(self) -> Tensor | None:
        """Residuals (N,) of the context's points near the support; None where these are fewer than 2."""
        return self._residuals(self.context.near)

    @cached_property
    def far(self) -> Tensor | None:
        """Residuals (N,) of the context's points far from the support; None where these are fewer than 2."""
        return self._residuals(self.context.far)

    def _residuals(self, field: FieldPoints) -> Tensor | None:
        if self.apply is None or len(field.points) < 2:
            return None
        x = field.points.to(self.context.device)
        return projection.residual(x, self.apply(x)).cpu()


@dataclass(frozen=True, eq=False)
class Density(Subject):
    """A density in one or two dimensions.

    log_densities: (N,) at the context's judged points. shares: (cells,) of the context's grid. temperature: T of
    exp(-E/T), of f's alone.
    """

    log_densities: Tensor
    shares: Tensor
    temperature: float | None = None

    @classmethod
    def own(cls, context: EvalContext) -> Iterator[Self]:
        """exp(-E/T)/Z with E = |f(x) - x|^2, T from every other held-out point."""

        def energy(x: Tensor) -> Tensor:
            x = x.to(context.device, torch.float32)
            return projection.residual(x, context.apply(x)).double().square().cpu()

        grid = context.grid
        if grid is None:
            return
        energies = torch.cat([energy(part) for part in torch.split(grid.points, 1 << 15)])
        temperature = density.fit_temperature(energies, energy(context.fitting_points), grid)
        log_z = density.log_partition(energies, temperature, grid)
        at_points = -energy(context.judged_points) / temperature - log_z
        yield cls(MAP, context, at_points, density.density_shares(energies, temperature), temperature)

    @classmethod
    def baselines(cls, context: EvalContext) -> Iterator[Self]:
        """A kernel estimate, its bandwidth fitted as T is; the Gaussian of the data; and the truth."""
        grid = context.grid
        if grid is None:
            return
        train, fit_to = context.train.cpu(), context.fitting_points.cpu()
        bandwidth = density.fit_bandwidth(grid, train, fit_to)
        rows = as_rows("train", train, at_least=2).double()
        estimates = {
            "kde": grid.blurred(grid.histogram(train), bandwidth),
            "gaussian": baselines.log_normal(rows, grid.points).softmax(dim=0),
            "truth": context.true_shares,
        }
        for name, shares in estimates.items():
            if shares is not None:
                at_points = grid.log_density(shares, context.judged_points.cpu()).clamp(min=LEAST_LOG_DENSITY)
                yield cls(name, context, at_points, shares)


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
            if (kept := with_known(restored[condition], spoilt, condition, lost)) is not None:
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


def with_known(
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
