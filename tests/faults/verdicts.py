"""What a try may end in: success, or one error of ours that says what is wrong. All else is a fault."""

import dis
import re
from dataclasses import dataclass
from types import TracebackType

OURS = ("naign_ext", "naign_cli", "naign_bench", "cli", "bench")
MOST_LINES, MOST_CHARACTERS = 9, 3000
"""Of an error's text: a configuration names each wrong field in a line of its own."""
USED, REFUSED = "used", "refused"
_RAISE = dis.opmap["RAISE_VARARGS"]


class FaultError(Exception):
    """Something happened that must not: found by the try itself, such as damage that was taken for good."""


class RefusedError(Exception):
    """A command ended with an exit code of failure and one clear line."""


@dataclass(frozen=True)
class Verdict:
    """How a try ended. outcome: used, refused, or a kind of fault; text: the error's, or what is wrong."""

    outcome: str
    text: str = ""

    @property
    def is_fault(self) -> bool:
        return self.outcome not in (USED, REFUSED)


def judge(error: BaseException, names: tuple[str, ...] = ()) -> Verdict:
    """The verdict on what a try raised. names: with which one of these arguments the text has to begin."""
    text = str(error)
    described = f"{type(error).__name__}: {text[:MOST_CHARACTERS]}"
    if isinstance(error, FaultError):
        return Verdict("silent", text)
    if isinstance(error, RefusedError):
        return Verdict(REFUSED, text)
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in text:
        return Verdict("memory", described)
    if isinstance(error, OSError) and error.strerror:
        return Verdict(REFUSED, described)
    if not isinstance(error, TypeError | ValueError | OSError) and not _is_foreseen(error):
        return Verdict("exception", described)
    if not _raised_by_us(error.__traceback__):
        return Verdict("exception", f"not raised by naign: {described}")
    if not text.strip() or len(text.splitlines()) > MOST_LINES or len(text) > MOST_CHARACTERS:
        return Verdict("unclear", described)
    if names and not _names_one(text, names):
        return Verdict("unclear", f"names no argument: {described}")
    return Verdict(REFUSED, described)


def _is_foreseen(error: BaseException) -> bool:
    from naign_ext.training.trainer import NonFiniteLossError

    return isinstance(error, NonFiniteLossError)


def _names_one(text: str, names: tuple[str, ...]) -> bool:
    return re.match(rf"({'|'.join(map(re.escape, names))})\b", text) is not None


def _raised_by_us(trace: TracebackType | None) -> bool:
    """Whether a raise statement of naign's made the error: what falls out of other code says nothing to a user."""
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "")
    code = trace.tb_frame.f_code.co_code
    return module.partition(".")[0] in OURS and code[trace.tb_lasti] == _RAISE
