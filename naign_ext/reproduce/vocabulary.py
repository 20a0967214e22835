"""What the metrics of a reproduction mean, those of evaluate included, and which baselines compete with f."""

from naign_ext.evaluation import Key, Results, describe
from naign_ext.evaluation.baselines import BASELINES, CLEAN, CORRUPTED
from naign_ext.evaluation.registry import Description
from naign_ext.evaluation.results import MAP, ONCE

OWN = {
    "fld_late": Description("worst late FLD", "lower", "highest FLD in the second half of training"),
    "trained": Description(
        "learning rates survived",
        "higher",
        "share of the learning rates at which training neither diverged nor collapsed",
    ),
}
"""Metrics that claims compute from several runs or checkpoints."""

TRUE_DATA = ("truth", "copies", "half", "heldout")
"""Baselines that do not compete: what true data score, in the order in which they are shown."""

# Metrics that punish copies of training data; only there are copies a competitor.
_PUNISH_COPIES = ("fld", "fld_pixels", "authenticity")
FILTERS = {
    "filter": "Gaussian filter",
    "tv": "total variation",
    "inpaint": "inpainting",
    "nearest": "nearest image",
    "nothing": "nothing",
}


def about(key: Key) -> Description:
    """Title, direction and meaning of a metric."""
    return OWN.get(key.metric) or describe(key)


def competitors(key: Key, results: Results) -> dict[str, float]:
    """What the baselines that compete score on a metric, by name; results: of a run judged with baselines."""
    found = _baselines(key, results)
    if key.metric == "gain":
        filters = {name: found[name] for name in FILTERS if name in found}
        return {**filters, "nothing": 0.0} if filters else {}
    return {name: value for name, value in found.items() if name not in _true_data(key)}


def true_data(key: Key, results: Results) -> dict[str, float]:
    """What true data score on a metric, by name; copies of training data where copying is no fault."""
    return {name: value for name, value in _baselines(key, results).items() if name in _true_data(key)}


def _true_data(key: Key) -> tuple[str, ...]:
    return tuple(name for name in TRUE_DATA if not (name == "copies" and key.metric in _PUNISH_COPIES))


def _baselines(key: Key, results: Results) -> dict[str, float]:
    if key.subject not in (MAP, ONCE):
        return {}
    found = results.baselines(key.metric, key.condition)
    return {name: value for name, value in found.items() if name not in (CORRUPTED, CLEAN)}


def baseline_words(key: Key, name: str) -> str:
    """A baseline's short name, as in the tables of a run's report."""
    if key.metric == "gain":
        return FILTERS.get(name, name)
    return BASELINES[name].short if name in BASELINES else name
