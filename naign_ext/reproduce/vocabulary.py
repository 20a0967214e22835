"""What the figures of a reproduction mean, those of evaluate included, and which baselines are trivial."""

import re
from collections.abc import Mapping

from naign_ext.evaluation import Figure, describe
from naign_ext.evaluation.descriptions import BASELINES

OWN = {
    figure.key: figure
    for figure in (
        Figure(
            "fld_late", "worst late FLD", "lower", "samples", "highest FLD in the second half of training"
        ),
        Figure(
            "trained",
            "learning rates survived",
            "higher",
            "stability",
            "share of the learning rates at which training neither diverged nor collapsed",
        ),
    )
}
# Not competitors but yardsticks, what true data score, in the order in which they are shown.
YARDSTICKS = ("truth", "copies", "half", "heldout")
# Figures that punish copies of training data; only there are copies a competitor.
_PUNISH_COPIES = ("fld_", "authenticity")
FILTERS = {
    "filter": "Gaussian filter",
    "tv": "total variation",
    "nearest": "nearest image",
    "nothing": "nothing",
}
_GAIN = re.compile(r"restore_(.+)_gain")


def about(key: str) -> Figure:
    """Title, direction and meaning of a figure."""
    return OWN.get(key) or describe(key)


def trivial_figures(key: str, figures: Mapping[str, float]) -> dict[str, float]:
    """What the trivial baselines score on a figure, by their short name; figures: of a run with anchors."""
    gain = _GAIN.fullmatch(key)
    if gain:
        keys = {name: f"restore_{gain[1]}_{name}_gain" for name in FILTERS}
        found = {name: figures[k] for name, k in keys.items() if k in figures}
        return found | {"nothing": 0.0} if found else {}
    return {name: value for name, value in _anchors(key, figures).items() if name not in _yardsticks(key)}


def yardstick_figures(key: str, figures: Mapping[str, float]) -> dict[str, float]:
    """What true data score on a figure, by their short name; copies of training data where copying is no fault."""
    return {name: v for name, v in _anchors(key, figures).items() if name in _yardsticks(key)}


def _yardsticks(key: str) -> tuple[str, ...]:
    punished = key.startswith(_PUNISH_COPIES)
    return tuple(name for name in YARDSTICKS if not (punished and name == "copies"))


def _anchors(key: str, figures: Mapping[str, float]) -> dict[str, float]:
    prefix = f"anchor_{key}_"
    found = {k.removeprefix(prefix): v for k, v in figures.items() if k.startswith(prefix)}
    return {name: v for name, v in found.items() if "_" not in name}


def baseline_words(key: str, name: str) -> str:
    """A baseline's short name, as in the tables of a run's report."""
    return FILTERS.get(name, name) if _GAIN.fullmatch(key) else BASELINES.get(name, (name, name))[0]
