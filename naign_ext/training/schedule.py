"""Learning rate as a pure function of the step, so that its state is the step alone."""

import math
from typing import Literal


def learning_rate(
    step: int, steps: int, highest: float, warmup: float, schedule: Literal["cosine", "constant"]
) -> float:
    """Rate of update number step (0-based) of steps.

    Rises linearly over the first ``warmup`` part of the steps, then follows half a cosine to 0 or stays.
    """
    warm = math.ceil(warmup * steps)
    if step < warm:
        return highest * (step + 1) / warm
    if schedule == "constant":
        return highest
    progress = (step - warm) / max(1, steps - warm)
    return highest * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
