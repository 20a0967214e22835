"""What can end a command before it runs: Ctrl-C while packages are imported, and packages that are missing.

Imports nothing beyond the standard library, and little of that.
"""

import os
import signal
import traceback
from types import FrameType

FAILED = 1


def interrupt_at_once() -> None:
    """From here on Ctrl-C ends the process with a word, for imports: foreign code may not stand the exception.

    Where Ctrl-C does something else than Python's own, it is left at that.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end_at_once)


def interrupt_by_exception() -> None:
    """From here on Ctrl-C raises KeyboardInterrupt again, if it was :func:`interrupt_at_once` that changed that."""
    if signal.getsignal(signal.SIGINT) is _end_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    del number, frame
    os.write(2, b"error: interrupted\n")
    os._exit(FAILED)


def show_traceback(error: BaseException) -> None:
    """Print it where NAIGN_DEBUG=1 asks for that."""
    if os.environ.get("NAIGN_DEBUG") == "1":
        traceback.print_exception(error)


def what_to_install(error: ModuleNotFoundError) -> str | None:
    """What to do about a package that is missing, in a line; None where it is one of ours."""
    if (error.name or "naign").startswith("naign"):
        return None
    return f"{error}; install it with: pip install 'naign[train]'"
