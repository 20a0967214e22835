"""Maps as projectors, and as detectors of what is not data."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from torch import Tensor

from naign_ext.evaluation import ood, projection
from naign_ext.evaluation.context import EvalContext, Map
from naign_ext.evaluation.field import FieldPoints
from naign_ext.evaluation.results import MAP
from naign_ext.evaluation.subjects.base import Subject


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
