"""Records of naign 0.1, whose numbers stand under keys such as anchor_fid_blur or restore_mask_known_psnr_after.

The only place that knows these keys.
"""

import re
from collections.abc import Mapping
from typing import Any

from naign_ext.evaluation.baselines import CLEAN, CORRUPTED
from naign_ext.evaluation.results import DATA, MAP, ONCE, TWICE, Condition, Key, Results, Row

_RENAMED = {"fld_features": "fld", "samples": "rows_judged"}
_OF_THE_MAP = re.compile(
    r"fixed_point_\w+|idempotence|non_identity|ood_\w+|residual_\w+|temperature|log_likelihood|total_variation"
)
_RESTORED = re.compile(
    r"restore_(?P<corruption>[a-z]+)(?:_(?P<strength>[0-9.]+))?(?P<known>_known)?_(?:(?P<baseline>filter|tv|nearest)_)?"
    r"(?P<metric>psnr|ssim|accuracy|gain_clipped|gain)(?P<when>_before|_after)?"
)


def key_of(flat: str) -> Key:
    """The key that a flat one stands for."""
    if flat == "anchor_accuracy_classifier":
        return Key("accuracy", CLEAN)
    if flat.startswith("anchor_"):
        metric, _, baseline = flat.removeprefix("anchor_").rpartition("_")
        return Key(_RENAMED.get(metric, metric), baseline)
    if (restored := _RESTORED.fullmatch(flat)) is not None:
        strength = None if restored["strength"] is None else float(restored["strength"])
        condition = Condition(restored["corruption"], strength, known=restored["known"] is not None)
        subject = CORRUPTED if restored["when"] == "_before" else restored["baseline"] or MAP
        return Key(restored["metric"], subject, condition)
    metric = flat.removesuffix("_twice")
    if metric.endswith("_total"):
        return Key(metric, DATA)
    subject = TWICE if metric != flat else MAP if _OF_THE_MAP.fullmatch(metric) else ONCE
    return Key(_RENAMED.get(metric, metric), subject)


def results_of(flat: Mapping[str, float | None]) -> Results:
    """The rows that a dict of flat keys stands for; None among the values becomes NaN."""
    return Results(tuple(_row(key_of(name), value) for name, value in flat.items()))


def _row(key: Key, value: float | None) -> Row:
    return Row(key.metric, key.subject, float("nan") if value is None else value, key.condition)


def read_results(record: Mapping[str, Any]) -> Results:
    """The rows of a record: those under "metrics", else what stands under "figures" in one of naign 0.1."""
    return Results.from_json(record["metrics"]) if "metrics" in record else results_of(record["figures"])
