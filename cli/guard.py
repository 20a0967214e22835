"""From exceptions to exit codes: 2 for a user's mistake, 1 for a failure, and no traceback for either."""

import errno
import functools
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import typer
from naign_cli.output import say
from naign_cli.startup import FAILED, interrupt_by_exception, show_traceback, what_to_install

P = ParamSpec("P")
R = TypeVar("R")

MISTAKE = 2
_WRONG_PATHS = frozenset(
    (
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EACCES,
        errno.EPERM,
        errno.EEXIST,
        errno.ENAMETOOLONG,
        errno.ELOOP,
    )
)


class Mistake(ValueError):
    """What was asked cannot be done; the text says why and what to do."""


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """A command whose mistakes and foreseen failures end in one message and an exit code.

    The library raises ValueError for arguments that cannot be used, and its texts name the argument. What is
    not foreseen keeps its traceback.
    """

    @functools.wraps(command)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            import torch  # noqa: F401 - nearly all commands do, and it is the import that takes long

            interrupt_by_exception()
            return command(*args, **kwargs)
        except BrokenPipeError:
            raise
        except KeyboardInterrupt as error:
            raise _stop(error, "interrupted", FAILED) from None
        except OSError as error:
            raise _stop(error, *_of_system(error)) from None
        except ModuleNotFoundError as error:
            told = what_to_install(error)
            if told is None:
                raise
            raise _stop(error, told, FAILED) from None
        except ValueError as error:
            raise _stop(error, str(error), MISTAKE) from None
        except MemoryError as error:
            raise _stop(error, _of_memory(str(error)), FAILED) from None
        except RuntimeError as error:
            if _told_elsewhere(error):
                raise typer.Exit(FAILED) from None
            if not _foreseen(error):
                raise
            raise _stop(
                error, _of_memory(str(error)) if _is_of_memory(error) else str(error), FAILED
            ) from None

    return call


def _foreseen(error: RuntimeError) -> bool:
    from naign_ext.distributed.processes import JoinError, ProcessLostError
    from naign_ext.training.trainer import NonFiniteLossError

    return _is_of_memory(error) or isinstance(error, NonFiniteLossError | JoinError | ProcessLostError)


_NO_MEMORY = re.compile(r"DefaultCPUAllocator|out of memory|Cannot allocate memory|std::bad_alloc")


def _is_of_memory(error: RuntimeError) -> bool:
    """Whether torch could not have memory; on CPUs it has no class of error for that."""
    return _NO_MEMORY.search(str(error)) is not None


def _of_memory(text: str) -> str:
    """One line of memory that could not be had, without where in torch that was."""
    told = " ".join(text.rpartition("DefaultCPUAllocator: ")[2].split())
    return told if told.startswith("memory: ") else f"out of memory: {told}".removesuffix(": ")


def _of_system(error: OSError) -> tuple[str, int]:
    """Text and exit code of an error of the operating system: a path that cannot be used is a mistake."""
    from naign_ext.file_errors import in_words

    return in_words(error), MISTAKE if error.errno in _WRONG_PATHS else FAILED


def _told_elsewhere(error: RuntimeError) -> bool:
    from naign_ext.distributed.processes import MainProcessFailedError

    return isinstance(error, MainProcessFailedError)


def _stop(error: BaseException, text: str, code: int) -> typer.Exit:
    show_traceback(error)
    say("[bold red]error:[/] ", markup=True, end="")
    say(text)
    return typer.Exit(code)
