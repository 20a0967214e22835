"""Sets of samples: f(z), f(f(z)), and those of samplers without a network."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from torch import Tensor

from naign_ext.evaluation import baselines
from naign_ext.evaluation.context import NEIGHBOURS, EvalContext
from naign_ext.evaluation.coverage import ModeCoverage, Prdc, mode_coverage, prdc
from naign_ext.evaluation.results import ONCE, TWICE
from naign_ext.evaluation.rows import subset
from naign_ext.evaluation.subjects.base import Subject
from naign_ext.transforms.corruptions import gaussian_blur

MOST_COMPARED = 2000


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
