"""Non-adversarial idempotent generative networks (arXiv 2511.02614): reconstruction + IMLE and more."""

from typing import ClassVar, Literal

import torch
from pydantic import FiniteFloat, model_validator
from torch import Tensor, nn

from naign_ext.distributed.sharding import Shard
from naign_ext.objectives.base import (
    OBJECTIVES,
    Loss,
    ObjectiveOptions,
    StepContext,
    apply_together,
    non_identity,
)
from naign_ext.objectives.foreign import Foreign, ForeignOptions
from naign_ext.objectives.match_options import MatchOptions
from naign_ext.objectives.matched import MatchedObjective, only_admissible
from naign_ext.objectives.restoration import Restoration, RestorationOptions
from naign_ext.ops import fused_loss, imle_knn
from naign_ext.options import MOST_ROWS, MOST_STEPS, option
from naign_ext.transforms.batch import Batch

Term = tuple[Tensor, Tensor, float]
"""Prediction, target, weight."""

Terms = dict[str, Term]


class NaignOptions(ForeignOptions, RestorationOptions, MatchOptions, ObjectiveOptions):
    """Options of the NAIGN objective. With the optional terms at weight 0 it is the paper's."""

    name: Literal["naign"] = option("naign", "Objective.", "Objective")
    reconstruction_weight: FiniteFloat = option(
        1.0, "Weight of mean |f(x) - x|: data are fixed points.", "Objective", ge=0
    )
    imle_weight: FiniteFloat = option(
        1.0,
        "Weight of mean |x - f(z)|, z the matched latent: every data point has a sample near it.",
        "Objective",
        ge=0,
    )
    projection_weight: FiniteFloat = option(
        0.0,
        "Weight of mean |f(z) - nearest data point|: every sample is near data. 0.3 in low dimension.",
        "Objective",
        ge=0,
    )
    projection_samples: int = option(
        128,
        "Samples of the pool that the projection term takes, at most pool_size.",
        "Objective",
        ge=1,
        le=MOST_ROWS,
    )
    projection_to: Literal["batch", "dataset"] = option(
        "dataset", "Where the projection term looks for the nearest data point.", "Objective"
    )
    idempotence_weight: FiniteFloat = option(0.0, "Weight of mean |f(f(z)) - f(z)|.", "Objective", ge=0)
    idempotence_ramp: int = option(
        0,
        "Steps over which the idempotence weight rises from 0; without a ramp it can collapse f.",
        "Objective",
        ge=0,
        le=MOST_STEPS,
    )

    @model_validator(mode="after")
    def _some_weight(self) -> "NaignOptions":
        if self.reconstruction_weight == 0 and self.imle_weight == 0:
            raise ValueError("reconstruction_weight and imle_weight: expected at least one > 0, got 0 and 0")
        return self

    @property
    def projected(self) -> int:
        """Samples that the projection term takes."""
        return min(self.projection_samples, self.pool_size)


@OBJECTIVES.register("naign")
class Naign(MatchedObjective):
    """mean |f(x) - x|^2 + mean |x - f(z*(x))|^2 + optional terms, z*(x) the latent of x's nearest sample.

    Reconstruction, denoise and restore see the augmented data, while the match stays with the data as they are: f
    learns to keep more than it is asked to generate. With features phi the match is in them, and
    feature_weight mean |phi(x) - phi(f(z*(x)))|^2 is added; all other terms are of pixels, in which f is to keep x.

    All inputs pass f in one call (see :func:`apply_together`); only the second pass of the idempotence term
    is a call of its own. Terms: reconstruction, imle, and those of projection, foreign, denoise, restore,
    idempotence whose weight is not 0, and imle_features. Reported unweighted: means over all elements of |.|^2 (norm
    l2) or |.| (norm l1), of features over rows.
    """

    Options: ClassVar[type[NaignOptions]] = NaignOptions

    def __init__(self, options: NaignOptions, data: Tensor, context: StepContext) -> None:
        super().__init__(options, data, context)
        if options.projection_weight and self.shard.is_distributed:
            _check_projection(options, self.shard)
        self.restoration = Restoration(options, self.seed)
        self.foreign = Foreign(options, data, self.seed, self.shard) if options.foreign_weight else None

    def loss(self, f: nn.Module, batch: Batch, step: int) -> Loss:
        """See :meth:`Objective.loss`."""
        o, x = self.options, batch.x
        latents, admissible = self.matcher.latents(f, batch)
        with self.timer("data"):
            inputs = self._inputs(batch, latents, step)
        with self.timer("forward"):
            outputs = apply_together(f, inputs)
        matched = only_admissible(outputs["latents"], x, admissible, o)
        terms: Terms = {
            "reconstruction": (outputs["data"], batch.augmented, o.reconstruction_weight),
            "imle": (matched, x, o.imle_weight),
        }
        if o.idempotence_weight:
            with self.timer("forward"):
                again = f(matched).float()
            terms["idempotence"] = (again, matched, self._idempotence_weight(step))
        for name, weight in self.restoration.weights.items():
            terms[name] = (outputs[name], batch.augmented, weight)
        portions = self._portions(outputs)
        for name, (portion, weight) in portions.items():
            samples = outputs[name]
            terms[name] = (samples, self._nearest(name, samples, batch), weight * portion)
        found = fused_loss(list(terms.values()), norm=o.norm)
        values = dict(zip(terms, found.terms.unbind(), strict=True))
        for name, (portion, _) in portions.items():
            values[name] = portion * values[name]
        total = self.with_features(found.total, values, matched, batch)
        return Loss(total, values, lambda: {"non_identity": non_identity(outputs["latents"], latents)})

    def _inputs(self, batch: Batch, latents: Tensor, step: int) -> dict[str, Tensor]:
        o = self.options
        inputs = {"data": batch.augmented, "latents": latents}
        if o.projection_weight:
            inputs["projection"] = self.matcher.pool.chunk(*self.shard.span(o.projected))
        if self.foreign is not None:
            inputs["foreign"] = self.foreign.inputs(step)
        return inputs | self.restoration.inputs(batch, step)

    def _nearest(self, name: str, samples: Tensor, batch: Batch) -> Tensor:
        """The data nearest to samples, to which the projection and the foreign term take them."""
        in_batch = name == "projection" and self.options.projection_to == "batch"
        return nearest_data(samples, batch.augmented if in_batch else self.data)

    def _portions(self, outputs: dict[str, Tensor]) -> dict[str, tuple[float, float]]:
        """For each term over a span of samples its portion, and its weight.

        portion: what the mean over these samples counts for in the mean over all: more, where the span is longer.
        """
        o: NaignOptions = self.options
        totals = {
            "projection": (o.projected, o.projection_weight),
            "foreign": (o.foreign_samples, o.foreign_weight),
        }
        return {
            name: (len(outputs[name]) * self.shard.world_size / total, weight)
            for name, (total, weight) in totals.items()
            if name in outputs
        }

    def _idempotence_weight(self, step: int) -> float:
        o: NaignOptions = self.options
        return o.idempotence_weight * (min(1.0, step / o.idempotence_ramp) if o.idempotence_ramp else 1.0)


def _check_projection(options: NaignOptions, shard: Shard) -> None:
    if options.projection_to == "batch":
        raise ValueError(
            f"projection_to: expected dataset where {shard.world_size} processes share a batch, got batch"
        )
    if options.projected < shard.world_size:
        raise ValueError(
            f"projection_samples, pool_size: expected at least one sample for each of the {shard.world_size} "
            f"processes, got {options.projected}"
        )


def nearest_data(samples: Tensor, data: Tensor) -> Tensor:
    """For samples (m, *shape) their nearest rows of data (N, *shape): constants without gradient."""
    with torch.no_grad():
        nearest = imle_knn(samples.detach().flatten(1), data.flatten(1)).indices[:, 0]
        return data[nearest.clamp(min=0)]
