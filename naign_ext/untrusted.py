"""Files that anybody may have made: read within bounds, and checked field by field before anything is made of them."""

import errno
import json
import stat
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from naign_ext.options import explain

NOT_REGULAR = "not a regular file"
LARGEST_JSON = 64 << 20
"""Bytes of a JSON file, unless it says otherwise."""

_PIECE = 1 << 20

Schema = TypeVar("Schema", bound="StrictModel")


class FileTooLargeError(ValueError):
    """A file has more bytes than one may have; the text gives both numbers."""


class DamagedFileError(ValueError):
    """A file is not what naign writes; the text begins with ``damaged:`` and its path."""

    def __init__(self, path: Path, text: str) -> None:
        super().__init__(f"damaged: {path}: {text}")


class StrictModel(BaseModel):
    """Base of every schema: exactly these types, finite numbers; what it does not name is neither read nor refused."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="ignore")


def read_regular_file(path: Path, most: int) -> bytes:
    """The bytes of a regular file: what has no end (a pipe, a device) is never opened.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
        FileTooLargeError: it has more than ``most`` bytes.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, NOT_REGULAR, str(path))
    if found.st_size > most:
        raise FileTooLargeError(size_text(found.st_size, most))
    with path.open("rb") as file:
        content = file.read(found.st_size + 1)
        # Files of the kernel's own (/proc) are regular, announce 0 bytes and may hold any number. A read takes
        # memory for all that it asks for, so that it asks for little at a time.
        while len(content) <= most and (more := file.read(min(_PIECE, most + 1 - len(content)))):
            content += more
    if len(content) > most:
        raise FileTooLargeError(size_text(len(content), most))
    return content


def size_text(size: int, most: int) -> str:
    """That a file is too large."""
    return f"has {size} bytes, more than the {most} a file may have"


def read_damageable(path: Path, most: int = LARGEST_JSON) -> bytes:
    """The bytes of a regular file of naign's own.

    Raises:
        DamagedFileError: it cannot be read, is not a regular file, or has more than ``most`` bytes.
    """
    try:
        return read_regular_file(path, most)
    except OSError as error:
        raise DamagedFileError(path, f"cannot be read: {error.strerror}") from None
    except FileTooLargeError as error:
        raise DamagedFileError(path, str(error)) from None


def parse_json(contents: bytes) -> Any:
    """Plain values of JSON in UTF-8; ValueError where it is none, or nested too deeply."""
    try:
        return json.loads(contents)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None


def checked(schema: type[Schema], value: Any) -> Schema:
    """The fields of plain values; ValueError, in one line, where they are not of the schema."""
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        raise ValueError(wrong_fields(error)) from None


def wrong_fields(error: ValidationError) -> str:
    """The fields that are missing, or else the first that is wrong, in one line."""
    missing = [_dotted(wrong["loc"]) for wrong in error.errors() if wrong["type"] == "missing"]
    if missing:
        return f"lacks {', '.join(missing)}"
    wrong = error.errors()[0]
    return f"{_dotted(wrong['loc']) or 'the whole'}: {explain(wrong)}"


def _dotted(names: tuple[int | str, ...]) -> str:
    return ".".join(map(str, names))
