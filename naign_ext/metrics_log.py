"""A run's metrics.jsonl and TensorBoard events."""

import json
import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Record = dict[str, Any]


def read_metrics(run: str | Path) -> list[Record]:
    """The records of a run's metrics.jsonl in order; a line cut off by a crash is left out."""
    path = Path(run) / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    records = []
    for line in lines:
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return [r for r in records if isinstance(r, dict)]


def truncate_metrics(run: Path, step: int) -> None:
    """Remove the records after a step and those of a finished run, so that resuming repeats none."""
    kept = [r for r in read_metrics(run) if r.get("kind") in ("train", "validation") and r["step"] <= step]
    temporary = run / ".metrics.jsonl.new"
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in kept)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(run / "metrics.jsonl")


class MetricsLog:
    """Appends records to metrics.jsonl, one JSON object a line, and their numbers to TensorBoard.

    Every record has ``kind`` ("train", "validation") and ``step`` (updates done so far); numbers that are not
    finite are written as null, because JSON has none. In those of training ``cost`` is the seconds of an update
    by stage, means since the last record: data (their order and changed copies), generation of pools, search, merge
    (of several processes), forward (f with gradients), the rest of the loss, backward, update.
    """

    def __init__(self, run: Path, step: int, *, tensorboard: bool) -> None:
        self._file = (run / "metrics.jsonl").open("a", encoding="utf-8")
        self._writer = _tensorboard_writer(run, step) if tensorboard else None

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._writer is not None:
            self._writer.close()

    def write(self, record: Record) -> None:
        """Append a record; nested numbers become TensorBoard's ``kind/group/name``."""
        self._file.write(json.dumps(_finite(record)) + "\n")
        self._file.flush()
        if self._writer is not None:
            for name, value in _numbers(record, record["kind"]):
                self._writer.add_scalar(name, value, record["step"])


def _tensorboard_writer(run: Path, step: int) -> "SummaryWriter | None":
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    # TensorBoard hides the events after the step a run is resumed from; metrics.jsonl is cut there too.
    return SummaryWriter(str(run), purge_step=step + 1)


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
