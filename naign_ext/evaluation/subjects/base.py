"""What every kind of subject is."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

from naign_ext.evaluation.context import EvalContext
from naign_ext.evaluation.results import DATA, Condition


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
