"""How fast a run goes."""

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Moment:
    """seconds: trained so far. images_per_s: since the last record, as it stood then. seconds_left: to the end."""

    seconds: float
    images_per_s: float
    seconds_left: float


class Pace:
    """Takes the time of updates, from one that begins at ``step`` of ``steps`` with ``seconds`` behind it."""

    def __init__(self, *, batch_size: int, step: int, steps: int, seconds: float) -> None:
        self._batch_size = batch_size
        self._first, self._steps = step, steps
        self._seconds_before = seconds
        self._began = time.perf_counter()
        self._images_per_s = 0.0
        self._window = (self._began, step)

    def after(self, step: int, *, recorded: bool) -> Moment:
        """Where the run stands once ``step`` updates are done; recorded: a record ends here, and the next begins."""
        now = time.perf_counter()
        if recorded or not self._images_per_s:
            began, first = self._window
            self._images_per_s = (step - first) * self._batch_size / max(now - began, 1e-9)
        if recorded:
            self._window = (now, step)
        pace = (now - self._began) / (step - self._first)
        return Moment(
            self._seconds_before + now - self._began, self._images_per_s, pace * (self._steps - step)
        )
