"""Where the time goes."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Timer:
    """Adds up wall seconds by stage: ``with timer("search"): ...``; a stage within another is not counted in that.

    It does not wait for CUDA, so there the seconds are those until the work was queued, unless ``wait`` is what
    waits, such as torch.cuda.synchronize.
    """

    def __init__(self, wait: Callable[[], object] | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self.wait = wait
        self._within = 0.0

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        self._settle()
        around, self._within = self._within, 0.0
        began = time.perf_counter()
        try:
            yield
        finally:
            self._settle()
            whole = time.perf_counter() - began
            self.seconds[stage] = self.seconds.get(stage, 0.0) + whole - self._within
            self._within = around + whole

    def _settle(self) -> None:
        if self.wait is not None:
            self.wait()

    def take(self) -> dict[str, float]:
        """The seconds since the last call, by stage."""
        taken, self.seconds = self.seconds, {}
        return taken
