"""JSON files of a reproduction."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any] | None:
    """What the file holds, or None where there is none."""
    if not path.is_file():
        return None
    value: dict[str, Any] = json.loads(path.read_text(encoding="ascii"))
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Indented JSON in ASCII, whole or not at all, so that a crash leaves no half file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="ascii")
    temporary.replace(path)
