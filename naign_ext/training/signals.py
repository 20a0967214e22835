"""Ctrl-C and SIGTERM as a request to stop after the current update."""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
SIGNALS = tuple(s.name for s in _SIGNALS)
"""Names of the signals that ask a run to stop."""


class StopRequest:
    """Within the context the first signal is noted in ``signal``; a second one acts as it did before.

    Outside the main thread, where Python allows no handlers, it stays quiet.
    """

    def __init__(self) -> None:
        self.signal: str | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._previous = {s: signal.signal(s, self._note) for s in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.signal is None:
            self.signal = signal.Signals(number).name
        else:
            self._restore()
            os.kill(os.getpid(), number)

    def _restore(self) -> None:
        for s, handler in self._previous.items():
            signal.signal(s, handler)
        self._previous = {}
