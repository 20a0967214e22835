"""A run's metrics.jsonl and TensorBoard events."""

import json
import os
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import ConfigDict, Field

from naign_ext.file_errors import naming
from naign_ext.json_files import LARGEST_LINE, mend_last_line
from naign_ext.untrusted import (
    NOT_REGULAR,
    DamagedFileError,
    StrictModel,
    checked,
    parse_json,
    read_damageable,
)

Record = dict[str, Any]


_FILE = "metrics.jsonl"
LARGEST_LOG = 1 << 30
"""Bytes of a metrics.jsonl."""

_Number = float | int | None


class _Record(StrictModel):
    """What every record holds; numbers that were not finite are None."""

    kind: str = Field(max_length=100)
    step: int = Field(ge=0, le=99_999_999)


class _Train(_Record):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, _Number] = Field(init=False)

    loss: _Number
    seconds: _Number
    terms: dict[str, _Number]
    cost: dict[str, _Number] = Field({})


class _Validation(_Record):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, _Number] = Field(init=False)


_SCHEMAS: dict[str, type[_Record]] = {"train": _Train, "validation": _Validation}


def read_metrics(run: str | Path) -> list[Record]:
    """The records of a run's metrics.jsonl in order; a last line cut off by a crash is left out.

    Raises:
        DamagedFileError (a ValueError): it cannot be read, or another line is no record.
    """
    path = Path(run) / _FILE
    if not os.path.lexists(path):
        return []
    *lines, last = read_damageable(path, LARGEST_LOG).split(b"\n")
    records = [_record(path, number, line) for number, line in enumerate(lines, start=1) if line]
    with suppress(DamagedFileError):
        records.append(_record(path, len(lines) + 1, last))
    return records


def _record(path: Path, number: int, line: bytes) -> Record:
    try:
        if len(line) > LARGEST_LINE:
            raise ValueError(f"expected at most {LARGEST_LINE} bytes, got {len(line)}")
        value = parse_json(line)
        kind = checked(_Record, value).kind
        if kind in _SCHEMAS:
            checked(_SCHEMAS[kind], value)
    except ValueError as error:
        raise DamagedFileError(path, f"line {number} {error}; remove the line") from None
    record: Record = value
    return record


def truncate_metrics(run: Path, step: int) -> None:
    """Remove the records after a step and those of a finished run, so that resuming repeats none."""
    kept = [r for r in read_metrics(run) if r.get("kind") in ("train", "validation") and r["step"] <= step]
    temporary = run / ".metrics.jsonl.new"
    with naming(temporary), temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in kept)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(run / _FILE)


class MetricsLog:
    """Appends records to metrics.jsonl, one JSON object a line, and their numbers to TensorBoard.

    Every record has ``kind`` ("train", "validation") and ``step`` (updates done so far); numbers that are not
    finite are written as null, because JSON has none. In those of training ``cost`` is the seconds of an update
    by stage, means since the last record: data (their order and changed copies), generation of pools, search, merge
    (of several processes), forward (f with gradients), the rest of the loss, backward, update.
    """

    def __init__(self, run: Path, step: int, *, tensorboard: bool) -> None:
        self._path = run / _FILE
        if os.path.lexists(self._path) and not self._path.is_file():
            raise DamagedFileError(self._path, NOT_REGULAR)
        mend_last_line(self._path)
        self._file = self._path.open("a", encoding="utf-8")
        self._events = _Events(run, step) if tensorboard else None

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with naming(self._path):
                self._file.close()
        finally:
            if self._events is not None:
                self._events.close()

    def write(self, record: Record) -> None:
        """Append a record; nested numbers become TensorBoard's ``kind/group/name``."""
        with naming(self._path):
            self._file.write(json.dumps(_finite(record)) + "\n")
            self._file.flush()
        if self._events is not None:
            self._events.write(record)


class _Events:
    """TensorBoard's events, which a run does without where TensorBoard is missing or fails.

    A package that is there may still be broken by another one's version, which shows as an error of any type when it
    is imported or used; a full disk shows as an OSError, there and in the thread that writes. metrics.jsonl has all
    numbers in any case, so the first failure ends the events with a warning, and not the run.
    """

    def __init__(self, run: Path, step: int) -> None:
        self._writer: Any = None
        self._tell_of_thread = threading.excepthook
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        except Exception as error:
            _warn_of(error)
            return
        try:
            # TensorBoard hides the events after the step a run is resumed from; metrics.jsonl is cut there too.
            self._writer = SummaryWriter(str(run), purge_step=step + 1)
        except Exception as error:
            _warn_of(error)
            return
        threading.excepthook = self._hear_of_thread

    def _hear_of_thread(self, args: threading.ExceptHookArgs) -> None:
        """Leaves out the error of the thread that writes: the writer's next call raises it here."""
        if type(args.thread).__module__.partition(".")[0] != "tensorboard":
            self._tell_of_thread(args)

    def write(self, record: Record) -> None:
        if self._writer is None:
            return
        try:
            for name, value in _numbers(record, record["kind"]):
                self._writer.add_scalar(name, value, record["step"])
        except Exception as error:
            self._writer = None
            _warn_of(error)

    def close(self) -> None:
        if self._writer is not None:
            try:
                self._writer.close()
            except Exception as error:
                _warn_of(error)
        if threading.excepthook == self._hear_of_thread:
            threading.excepthook = self._tell_of_thread


def _warn_of(error: Exception) -> None:
    text = " ".join(str(error).split())
    warnings.warn(
        f"TensorBoard cannot be used ({type(error).__name__}: {text}); metrics.jsonl has all numbers",
        RuntimeWarning,
        stacklevel=3,
    )


def _numbers(record: Record, prefix: str) -> list[tuple[str, float]]:
    result = []
    for key, value in record.items():
        if isinstance(value, dict):
            result += _numbers(value, f"{prefix}/{key}")
        elif isinstance(value, int | float) and key not in ("step", "samples"):
            result.append((f"{prefix}/{key}", float(value)))
    return result


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, float) and value - value != 0:
        return None
    return value
