"""Presets: nested overrides of TrainConfig, merged from the general to the particular.

``default`` is the best recipe known for the data set, which brings it along (naign_ext/data); ``quick`` is the same,
shortened to end in under two minutes on two cores; ``paper`` is the objective of arXiv 2511.02614 and nothing else
(reconstruction + IMLE).
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from naign_ext.data import find_dataset

Tree = dict[str, Any]

Preset = Literal["quick", "default", "paper"]
PRESETS: tuple[Preset, ...] = get_args(Preset)

_PAPER: Tree = {
    "objective": {"projection_weight": 0.0, "denoise_weight": 0.0, "restore_weight": 0.0},
    "augment": {"flip": False, "shift": 0, "jitter": 0},
}


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Tree:
    """base with the values of over, nested mappings merged; neither is changed."""
    result: Tree = {k: merge({}, v) if isinstance(v, Mapping) else v for k, v in base.items()}
    for key, value in over.items():
        if isinstance(value, Mapping):
            below = result.get(key)
            result[key] = merge(below if isinstance(below, Mapping) else {}, value)
        else:
            result[key] = value
    return result


def preset_values(preset: str, dataset: str) -> Tree:
    """The nested values of a preset for a data set, a fresh copy; ValueError for a data set that is not there."""
    presets = find_dataset(dataset)[0].presets
    values = merge({}, presets["default"])
    if preset == "paper":
        values = merge(values, _PAPER)
    return values if preset == "default" else merge(values, presets.get(preset, {}))
