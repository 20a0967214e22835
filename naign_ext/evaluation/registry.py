"""The metrics there are: each registered by one decorator, beside the function that measures it."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from naign_ext.evaluation.baselines import BASELINES, CORRUPTED
from naign_ext.evaluation.context import EvalContext
from naign_ext.evaluation.needs import NEEDS
from naign_ext.evaluation.results import BEST, OWN, TWICE, Key
from naign_ext.evaluation.subjects import SampleSet, Subject
from naign_ext.registry import Registry

Better = Literal["lower", "higher", "closer", "-"]
GroupName = Literal["projection", "samples", "ood", "likelihood", "restoration"]
GROUPS: dict[GroupName, str] = {
    "projection": "projection",
    "samples": "samples",
    "ood": "out of distribution",
    "likelihood": "energy density exp(-E/T)/Z",
    "restoration": "restoration",
}
"""What a metric may belong to, and its heading in tables."""

S = TypeVar("S", bound=Subject)
Measure = Callable[[Any], float | None]


@dataclass(frozen=True)
class Metric:
    """A number that judges one kind of subject.

    title: a few words. better: which way is good (closer: to 1; -: it only explains). text: a sentence. of: the kind
    of subject. needs: what a data set must have, see :data:`naign_ext.evaluation.needs.NEEDS`. baselines: those that it
    is measured for; None is all of the kind. family: a name by which several metrics can be asked for together.
    before: title for images that f has not restored yet. total: the metric that says the most that this can be.
    measure: from a subject to the value, None where it has none.
    """

    name: str
    title: str
    better: Better
    group: GroupName
    text: str
    of: type[Subject]
    measure: Measure
    needs: tuple[str, ...] = ()
    baselines: tuple[str, ...] | None = None
    family: str | None = None
    before: str | None = None
    total: str | None = None

    def judges(self, subject: Subject) -> bool:
        """Whether it is measured for a subject of its kind."""
        if subject.name in OWN or self.baselines is None:
            return True
        return subject.name in self.baselines

    def applies(self, context: EvalContext) -> bool:
        """Whether the data that are judged have all that it needs."""
        return all(NEEDS[need](context) for need in self.needs)


METRICS: Registry[Metric] = Registry("metric")


def in_order() -> list[Metric]:
    """The metrics as tables show them: group by group, within a group as they were registered."""
    return sorted(METRICS.values(), key=lambda about: list(GROUPS).index(about.group))


def metric(
    name: str,
    better: Better,
    group: GroupName,
    *,
    of: type[S],
    title: str,
    text: str,
    needs: Collection[str] = (),
    baselines: Collection[str] | None = None,
    family: str | None = None,
    before: str | None = None,
    total: str | None = None,
) -> Callable[[Callable[[S], float | None]], Callable[[S], float | None]]:
    """Register the decorated function of a subject as a metric; the arguments are :class:`Metric`'s fields.

    Example:
        @metric("spread", "-", "samples", of=SampleSet, title="spread", text="deviation of the samples")
        def _spread(samples: SampleSet) -> float:
            return float(samples.rows.std())
    """

    def register(measure: Callable[[S], float | None]) -> Callable[[S], float | None]:
        unknown = set(needs) - set(NEEDS)
        if unknown:
            raise ValueError(f"needs: expected some of {', '.join(NEEDS)}, got {', '.join(sorted(unknown))}")
        kept = None if baselines is None else tuple(baselines)
        METRICS.register(name)(
            Metric(name, title, better, group, text, of, measure, tuple(needs), kept, family, before, total)
        )
        return measure

    return register


def chosen_metrics(names: Collection[str] | None) -> frozenset[str]:
    """The metrics that names mean: names of metrics, of families and of groups; None: all.

    With any metric of samples comes the number of rows judged.

    Raises:
        ValueError: a name that is none of these.
    """
    if names is None:
        return frozenset(METRICS)
    unknown = sorted(set(names) - set(selectable()))
    if unknown:
        raise ValueError(f"metrics: expected some of {', '.join(selectable())}, got {', '.join(unknown)}")
    chosen = {m.name for m in METRICS.values() if {m.name, m.family, m.group} & set(names)}
    if any(METRICS[name].of is SampleSet for name in chosen):
        chosen.add("rows_judged")
    return frozenset(chosen)


def selectable() -> list[str]:
    """The names that :func:`chosen_metrics` takes: groups first, then families, then single metrics."""
    families = [m.family for m in in_order() if m.family is not None]
    return list(dict.fromkeys([*GROUPS, *families, *(m.name for m in in_order())]))


@dataclass(frozen=True)
class Description:
    """title: a few words; better: which way is good (lower, higher, closer to 1, or -); text: a sentence."""

    title: str
    better: Better
    text: str


def describe(key: Key) -> Description:
    """The words for a key; no direction for a baseline's, which only serves to compare.

    Raises:
        ValueError: an unknown metric.
    """
    return words_of(METRICS.find(key.metric), key)


def words_of(about: Metric, key: Key) -> Description:
    """The words for a key of a metric, registered or not."""
    title = about.title
    if key.subject == CORRUPTED and about.before is not None:
        title = about.before
    elif key.subject not in OWN:
        title = f"{title}: {BASELINES[key.subject].short}"
    elif key.subject in (BEST, TWICE):
        title = f"{title}, {key.subject}"
    if key.condition is not None:
        title = f"{key.condition.words}: {title}"
    better: Better = about.better if key.subject in OWN else "-"
    text = f"{about.text}; of f(f(z))" if key.subject == TWICE else about.text
    return Description(title, better, text)
