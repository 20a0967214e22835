"""What a data set may have or lack; a metric names what it needs, and is absent where that is missing."""

from collections.abc import Callable

from naign_ext.evaluation.context import NEIGHBOURS, EvalContext

NEEDS: dict[str, Callable[[EvalContext], bool]] = {
    "images": lambda c: c.dataset.kind == "image",
    "3 x 3 pixels": lambda c: c.dataset.kind == "image" and min(c.dataset.sample_shape[1:]) >= 3,
    "2 training rows": lambda c: len(c.train) > 1,
    "6 training rows": lambda c: len(c.train) > NEIGHBOURS,
    "held-out data": lambda c: len(c.heldout) > 0,
    "labels": lambda c: c.judges.classifier is not None,
    "held-out labels": lambda c: c.dataset.heldout_labels is not None,
    "held-out images that differ": lambda c: c.dataset.kind == "image" and c.fld is not None,
    "pixels as features": lambda c: c.judges.space.name == "pixels",
    "other features than pixels": lambda c: c.judges.space.name != "pixels",
    "modes": lambda c: c.dataset.modes is not None and c.dataset.mode_std is not None,
    "modes or a support": lambda c: c.dataset.modes is not None or c.dataset.support_distance is not None,
    "a support": lambda c: c.dataset.support_distance is not None,
    "data to compare with": lambda c: c.dataset.sample_truth is not None or len(c.heldout) > 0,
    "an out-of-distribution set": lambda c: c.dataset.ood is not None,
    "one or two dimensions": lambda c: c.grid is not None,
    "a known distribution": lambda c: c.true_shares is not None,
}
"""By name, as in tables: whether a context has it."""
