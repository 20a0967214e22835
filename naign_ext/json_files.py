"""JSON files that are read again: whole or not at all, a line for each innermost list or object."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from naign_ext.options import in_a_line
from naign_ext.untrusted import DamagedFileError, parse_json, read_damageable

DIGITS = 9
"""Significant digits of numbers in results: as many as tell every float32 from its neighbours."""

LARGEST_LINE = 1 << 20
"""Bytes of a line in a file of one JSON value a line."""

_INNER = (Mapping, list, tuple)


def read_json(path: Path) -> dict[str, Any] | None:
    """What the file holds, or None where there is none.

    Raises:
        DamagedFileError (a ValueError): it cannot be read, or is no JSON object.
    """
    if not os.path.lexists(path):
        return None
    try:
        value = parse_json(read_damageable(path))
    except DamagedFileError:
        raise
    except ValueError as error:
        raise DamagedFileError(path, str(error)) from None
    if not isinstance(value, dict):
        raise DamagedFileError(path, f"expected an object, got {type(value).__name__}")
    return value


_FORM = (
    *(LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError),
    StopIteration,
)
"""What comes of values that have another form than is expected."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """While it lasts, values of the file are used: DamagedFileError where they have another form than was written."""
    try:
        yield
    except DamagedFileError:
        raise
    except _FORM as error:
        text = in_a_line(error)
        raise DamagedFileError(
            path, f"is not what naign writes there ({type(error).__name__}: {text})"
        ) from None


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """JSON in ASCII; a crash leaves no half file. ValueError where a number is not finite.

    What is no regular file, such as /dev/stdout, is written to and never replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = _text(value, "\n") + "\n"
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="ascii")
        return
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.write_text(text, encoding="ascii")
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def mend_last_line(path: Path) -> None:
    """Remove the last line where a crash or a full disk cut it off, and end it where its end is missing alone.

    path: a file of one JSON value a line, or of none yet.
    """
    if not path.is_file():
        return
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - LARGEST_LINE)
        file.seek(start)
        end = file.read(LARGEST_LINE)
        last = end.rpartition(b"\n")[2]
        try:
            parse_json(last or b"null")
        except ValueError:
            file.truncate(size - len(last))
        else:
            file.seek(0, os.SEEK_END)
            file.write(b"\n" if last else b"")


def rounded(value: Any) -> Any:
    """The same with every float in DIGITS significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: rounded(entry) for key, entry in value.items()}
    return [rounded(entry) for entry in value] if isinstance(value, list | tuple) else value


def _text(value: Any, line: str) -> str:
    """JSON of a value; what it holds stands on lines of its own, each begun with ``line``, unless it is innermost."""
    inner = line + " "
    if isinstance(value, Mapping) and any(isinstance(entry, _INNER) for entry in value.values()):
        parts = (f"{json.dumps(str(key))}: {_text(entry, inner)}" for key, entry in value.items())
        return "{" + inner + f",{inner}".join(parts) + line + "}"
    if isinstance(value, list | tuple) and any(isinstance(entry, _INNER) for entry in value):
        return "[" + inner + f",{inner}".join(_text(entry, inner) for entry in value) + line + "]"
    return json.dumps(value, allow_nan=False)
