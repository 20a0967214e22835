"""JSON files that are read again: whole or not at all, a line for each innermost list or object."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DIGITS = 9
"""Significant digits of numbers in results: as many as tell every float32 from its neighbours."""

_INNER = (Mapping, list, tuple)


def read_json(path: Path) -> dict[str, Any] | None:
    """What the file holds, or None where there is none."""
    if not path.is_file():
        return None
    value: dict[str, Any] = json.loads(path.read_text(encoding="ascii"))
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """JSON in ASCII; a crash leaves no half file. ValueError where a number is not finite."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.write_text(_text(value, "\n") + "\n", encoding="ascii")
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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
