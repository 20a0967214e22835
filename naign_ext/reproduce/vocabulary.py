"""What the figures of a reproduction mean, those of evaluate included, and which baselines are trivial."""

import re
from collections.abc import Mapping

from naign_ext.metrics import Figure, describe
from naign_ext.metrics.figures import BASELINES

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
# Not competitors but yardsticks: what true data score.
YARDSTICKS = ("truth", "heldout", "half", "classifier")
FILTERS = {
    "filter": "best Gaussian filter",
    "tv": "total variation",
    "nearest": "nearest training image",
    "nothing": "leaving it as it is",
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
    prefix = f"anchor_{key}_"
    found = {k.removeprefix(prefix): v for k, v in figures.items() if k.startswith(prefix)}
    return {name: v for name, v in found.items() if "_" not in name and name not in YARDSTICKS}


def baseline_words(key: str, name: str) -> str:
    """A baseline of a figure in words."""
    return FILTERS.get(name, name) if _GAIN.fullmatch(key) else BASELINES.get(name, (name, name))[1]
