"""The entry point of the command `naign`. It loads nothing that Python has not loaded itself before it guards the rest:
Ctrl-C while packages are imported, and packages that are missing, end in one line too."""

import os
import sys


def __getattr__(name: str) -> object:
    """``app``, the Typer app, which is imported when it is asked for."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from naign_cli.app import app

    return app


def run() -> None:
    """Run the command that sys.argv names; ends by SystemExit."""
    try:
        from naign_cli.startup import interrupt_at_once

        interrupt_at_once()
        from naign_cli.app import app

        app(prog_name="naign")
    except KeyboardInterrupt as error:
        _stop(error, "interrupted")
    except ModuleNotFoundError as error:
        from naign_cli.startup import what_to_install

        told = what_to_install(error)
        if told is None:
            raise
        _stop(error, told)
    finally:
        _flush()


def _stop(error: BaseException, text: str) -> None:
    from naign_cli.startup import FAILED, show_traceback

    show_traceback(error)
    print(f"error: {text}", file=sys.stderr)
    sys.exit(FAILED)


def _flush() -> None:
    """Write what is left now: at Python's own end a reader that is gone would be an exception that nobody catches."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            sys.exit(1)
