"""Timing of named peers side by side, and the plain rows that come of it.

Peers of one workload run in the same process with the same number of threads, one after the other in
rounds whose order is shuffled anew each round. A drift of the machine (clock, neighbours, heat) then meets
all of them alike, and none profits from always following the same one. What this cannot even out is a
machine that is busy otherwise: threads that wait for each other in short parallel sections lose whole time
slices, some peers far more than others, so the load before the run is kept in the header. A row is a plain
dict of the columns in `COLUMNS` plus those of its kind, so that results are JSON as they stand; what all rows
share (machine, threads, versions, date, commit) stands in the header alone.
"""

from __future__ import annotations

import json
import math
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from naign_ext.json_files import read_json, reading, write_json

SCHEMA = 1
OURS = "naign"
"""The peer that all others are compared with."""

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
Row = dict[str, Any]
Check = Callable[[Any], Mapping[str, Any]]

COLUMNS: dict[str, str] = {
    "workload": "name of the workload",
    "shape": "sizes of the problem, a list of integers",
    "dtype": "type of the inputs",
    "peer": "what ran",
    "status": "ok, absent (cannot run here) or failed (raised)",
    "reason": "why it is absent or failed, else null",
    "median_s": "median seconds of a call",
    "q1_s": "lower quartile, seconds",
    "q3_s": "upper quartile, seconds",
    "min_s": "fastest, seconds",
    "max_s": "slowest, seconds",
    "repeats": "timed rounds",
    "calls_per_repeat": "calls averaged within one timed round",
    "peak_memory_bytes": "peak of memory beyond the inputs in one call, workspace and result included",
}


@dataclass(frozen=True)
class Peer:
    """Something to time: `call` takes nothing and returns its answer, `check` makes columns of an answer."""

    name: str
    call: Callable[[], Any]
    check: Check | None = None


@dataclass(frozen=True)
class Absent:
    """A peer that cannot run here, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    repeats: timed rounds of a peer. budget_s: a peer whose calls would take longer in total gets fewer
    rounds, but at least min_repeats (one only if a single call exceeds the budget). shortest_s: calls faster
    than this are repeated inside one round and averaged. settle_s: pause before each timed call, in which the
    idle threads of the previous peer's OpenMP runtime stop spinning; several such runtimes share the process.
    """

    repeats: int = 7
    min_repeats: int = 3
    budget_s: float = 20.0
    shortest_s: float = 2e-3
    settle_s: float = 5e-3

    def rounds(self, seconds: float) -> int:
        """Rounds for a peer whose call takes `seconds`."""
        if seconds > self.budget_s:
            return 1
        affordable = int(self.budget_s / max(seconds, 1e-9))
        return max(min(self.min_repeats, self.repeats), min(self.repeats, affordable))

    def calls(self, seconds: float) -> int:
        """Calls within one round."""
        return max(1, min(10_000, math.ceil(self.shortest_s / max(seconds, 1e-9))))


@dataclass
class Measurement:
    """Seconds of one call in each round, and the columns of the peer's check."""

    seconds: list[float] = field(default_factory=list)
    calls: int = 1
    checked: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


@dataclass
class Results:
    """A run: `header` describes the machine, `rows` hold one measurement each. JSON through and through.

    file: what it was read from, if it was.
    """

    header: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    file: Path | None = None

    def using(self) -> AbstractContextManager[None]:
        """While it lasts, columns are used: where a file that was read lacks what it should have, that is said."""
        return nullcontext() if self.file is None else reading(self.file)

    def as_dict(self) -> dict[str, Any]:
        return {"header": self.header, "rows": self.rows}


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median, quartiles (linear interpolation, ends included) and extremes of a sample, in seconds."""
    if not seconds:
        raise ValueError("seconds: expected at least one measurement, got none")
    ordered = sorted(seconds)
    quartiles = statistics.quantiles(ordered, n=4, method="inclusive") if len(ordered) > 1 else ordered * 3
    return {
        "median_s": statistics.median(ordered),
        "q1_s": quartiles[0],
        "q3_s": quartiles[2],
        "min_s": ordered[0],
        "max_s": ordered[-1],
    }


class Clock:
    """Seconds per call on a device: the wall clock on the CPU, events on the current stream on CUDA.

    On CUDA every call is timed alone and a large array is overwritten before it: inputs that fit in the
    device's cache would otherwise never be read from memory, and the host gets ahead of the device, so that
    what is timed is the device's work. Where a call is shorter than its launch, the launch is what is timed.
    """

    def __init__(self, device: str) -> None:
        self.cuda = device_kind(device) == "cuda"
        self._overwritten = torch.empty(_CACHE_BYTES if self.cuda else 0, dtype=torch.uint8, device=device)

    def __call__(self, call: Callable[[], Any], calls: int = 1) -> tuple[float, Any]:
        """Seconds of one of `calls` consecutive calls, and the last answer."""
        if self.cuda:
            return self._events(call, calls)
        started = time.perf_counter()
        for _ in range(calls):
            answer = call()
        return (time.perf_counter() - started) / calls, answer

    def _events(self, call: Callable[[], Any], calls: int) -> tuple[float, Any]:
        pairs = [(_event(), _event()) for _ in range(calls)]
        torch.cuda.synchronize()
        for start, end in pairs:
            self._overwritten.fill_(1)
            start.record()
            answer = call()
            end.record()
        torch.cuda.synchronize()
        return sum(start.elapsed_time(end) for start, end in pairs) * 1e-3 / calls, answer


# Many times the last cache of any GPU; to write it takes a fast one longer than the host takes for a launch.
_CACHE_BYTES = 1 << 30


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call, unused-ignore]


def measure(
    peers: Sequence[Peer], effort: Effort | None = None, *, device: str = "cpu", seed: int = 0
) -> dict[str, Measurement]:
    """Warm every peer up, check its answer, then time all of them in shuffled rounds.

    Each peer takes part in as many rounds as its own speed allows (`Effort.rounds`); the first answer and the
    last are both checked, and the worse one counts. A peer that raises is reported, the others go on.
    """
    effort = effort or Effort()
    clock = Clock(device)
    order = random.Random(seed)
    results = {peer.name: Measurement() for peer in peers}
    if len(results) != len(peers):
        raise ValueError(f"peers: expected distinct names, got {[peer.name for peer in peers]}")
    wanted = {peer.name: _warm_up(peer, results[peer.name], effort, clock) for peer in peers}
    for turn in range(max(wanted.values(), default=0)):
        in_round = [peer for peer in peers if turn < wanted[peer.name] and not results[peer.name].error]
        for peer in order.sample(in_round, len(in_round)):
            result = results[peer.name]
            time.sleep(effort.settle_s)
            answer = _guarded(result, lambda p=peer, r=result: clock(p.call, r.calls))  # type: ignore[misc]
            if answer is None:
                continue
            result.seconds.append(answer[0])
            if turn == wanted[peer.name] - 1:
                _check(peer, result, answer[1])
    return results


def _warm_up(peer: Peer, result: Measurement, effort: Effort, clock: Clock) -> int:
    """First calls of a peer: caches and thread pools fill, the answer is checked, the speed is seen."""
    first = _guarded(result, lambda: clock(peer.call))
    if first is None:
        return 0
    _check(peer, result, first[1])
    seconds = first[0]
    for _ in range(3 if seconds < 0.1 else 1):
        again = _guarded(result, lambda: clock(peer.call)) if seconds < effort.budget_s / 4 else None
        seconds = min(seconds, again[0]) if again else seconds
    result.calls = effort.calls(seconds)
    return effort.rounds(seconds)


def _guarded(result: Measurement, call: Callable[[], tuple[float, Any]]) -> tuple[float, Any] | None:
    try:
        return call()
    except Exception as error:
        result.error = f"{type(error).__name__}: {error}".splitlines()[0]
        return None


def _check(peer: Peer, result: Measurement, answer: Any) -> None:
    """Columns of the answer; of two answers the larger (worse) value of each column is kept."""
    if peer.check is None:
        return
    for name, value in peer.check(answer).items():
        known = result.checked.get(name)
        result.checked[name] = value if known is None or value is None else max(known, value)


class Named(Protocol):
    """A workload: hashable, with a name."""

    @property
    def name(self) -> str: ...


W = TypeVar("W", bound=Named)


def names_in(sets: Mapping[str, Sequence[W]]) -> list[str]:
    """The names of sets of workloads, then those of the workloads, each once."""
    return [*sets, *dict.fromkeys(workload.name for group in sets.values() for workload in group)]


def chosen_of(sets: Mapping[str, Sequence[W]], names: Sequence[str]) -> list[W]:
    """Workloads of these names, sets expanded, each once, in order; ValueError names those that are unknown."""
    known: dict[str, Sequence[W]] = {w.name: (w,) for group in sets.values() for w in group}
    groups = {**known, **sets}
    unknown = [name for name in names if name not in groups]
    if unknown:
        raise ValueError(f"workloads: expected names among {names_in(sets)}, got {unknown}")
    return list(dict.fromkeys(workload for name in names for workload in groups[name]))


def check_choices(*, device: str, dtype: str, **counts: int) -> None:
    """ValueError for a device or dtype that cannot be measured here, or a count below 1."""
    if device_kind(device) not in {"cpu", "cuda"}:
        raise ValueError(f"device: expected cpu or cuda, got {device!r}")
    if device_kind(device) == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device: expected cpu, since torch sees no CUDA device here, got {device!r}")
    if dtype not in DTYPES:
        raise ValueError(f"dtype: expected one of {list(DTYPES)}, got {dtype!r}")
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")


def set_threads(threads: int | None) -> int:
    """Give every arithmetic library of this process the same number of threads; returns that number.

    torch, faiss, scikit-learn and SciPy each bring an OpenMP or BLAS runtime of their own. threadpoolctl
    reaches those already loaded, so call this again after importing peers.
    """
    threads = torch.get_num_threads() if threads is None else threads
    if threads < 1:
        raise ValueError(f"threads: expected at least 1, got {threads}")
    torch.set_num_threads(threads)
    faiss = sys.modules.get("faiss")
    if faiss is not None:
        faiss.omp_set_num_threads(threads)
    try:
        import threadpoolctl  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        return threads
    threadpoolctl.threadpool_limits(threads)
    return threads


def environment(device: str, threads: int, kind: str) -> dict[str, Any]:
    """The header of a run: machine, threads of every peer, software, date (start, UTC), commit.

    extension: what naign says of its kernels, the instruction set they chose among it. commit: see :func:`commit`.
    """
    return {
        "schema": SCHEMA,
        "kind": kind,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "device": device,
        "device_name": device_name(device),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load": _load(),
        "memory_bytes": _memory_bytes(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "versions": versions(),
        "extension": _extension(),
        "accelerator": accelerator(device),
        "peaks": {},
    }


def versions() -> dict[str, str | None]:
    """Installed versions; null where a package is missing."""
    found: dict[str, str | None] = {"python": platform.python_version(), "torch": torch.__version__}
    packages = ("naign", "faiss-cpu", "faiss-gpu", "flash-kmeans", "triton", "numpy", "scikit-learn", "scipy")
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    if found["naign"] is None:
        found["naign"] = _source_version()
    return found


_ACCELERATOR = (
    "driver_version",
    "clocks.sm",
    "clocks.mem",
    "clocks.max.sm",
    "power.limit",
    "temperature.gpu",
)


def accelerator(device: str) -> dict[str, Any] | None:
    """What is known of a GPU: its properties, torch's CUDA, and the driver's state as nvidia-smi tells it."""
    if device_kind(device) != "cuda":
        return None
    properties = torch.cuda.get_device_properties(torch.device(device))
    found: dict[str, Any] = {
        "cuda": torch.version.cuda,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "cache_bytes": getattr(properties, "L2_cache_size", None),
    }
    command = ["nvidia-smi", f"--query-gpu={','.join(_ACCELERATOR)}", "--format=csv,noheader", "--id=0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return found
    return {**found, **parse_accelerator(done.stdout)}


def parse_accelerator(line: str) -> dict[str, str]:
    """The values of one line of nvidia-smi, by name."""
    values = [value.strip() for value in line.strip().split(",")]
    return dict(zip(_ACCELERATOR, values, strict=True)) if len(values) == len(_ACCELERATOR) else {}


def _source_version() -> str | None:
    """Version of a checkout that is imported without being installed."""
    import tomllib

    project = Path(__file__).resolve().parent.parent / "pyproject.toml"
    if not project.is_file():
        return None
    return str(tomllib.loads(project.read_text())["project"]["version"])


def _extension() -> Any:
    """What naign says of its kernels: whether they are compiled, and for which instruction set."""
    try:
        from naign_ext import _native
    except ImportError:
        return None
    return json.loads(json.dumps(_native.status(), default=str))


def commit() -> str | None:
    """Commit of the source tree, '+' appended when tracked files differ from it."""
    root = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str | None:
        try:
            command = ["git", "-C", str(root), *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    top = git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root:
        return None
    head = git("rev-parse", "HEAD")
    return f"{head}+" if head and git("status", "--porcelain", "--untracked-files=no") else head


def device_kind(device: str) -> str:
    """The part before the colon: cuda of cuda:1."""
    return device.partition(":")[0]


def device_name(device: str) -> str:
    return torch.cuda.get_device_name(torch.device(device)) if device.startswith("cuda") else cpu_name()


def cpu_name() -> str:
    """Model name of the processor with the vector extensions that matter here."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor() or platform.machine()
    fields = dict(_cpuinfo_fields(info.read_text()))
    flags = set(fields.get("flags", "").split())
    wanted = ["avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_int8"]
    name = fields.get("model name", platform.machine())
    return f"{name} ({', '.join(flag for flag in wanted if flag in flags) or 'no AVX2'})"


def _cpuinfo_fields(text: str) -> list[tuple[str, str]]:
    first = text.split("\n\n", maxsplit=1)[0]
    pairs = (line.split(":", maxsplit=1) for line in first.splitlines() if ":" in line)
    return [(key.strip(), value.strip()) for key, value in pairs]


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _load() -> float | None:
    """Threads that were busy in the last minute, before anything is measured."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def rows(
    columns: Mapping[str, Any],
    built: Sequence[Peer | Absent],
    measured: Mapping[str, Measurement],
    peaks: Mapping[str, int | None],
) -> list[Row]:
    """One row for each peer of a workload, in the order of `built`; peaks: bytes of peak memory by peer."""
    return [
        row(
            {**columns, "peer": peer.name, "peak_memory_bytes": peaks.get(peer.name)},
            peer if isinstance(peer, Absent) else measured[peer.name],
        )
        for peer in built
    ]


def row(columns: Mapping[str, Any], outcome: Measurement | Absent) -> Row:
    """One row: `columns` of the workload, and the outcome."""
    base: Row = {**dict.fromkeys(COLUMNS), **columns, "repeats": 0}
    if isinstance(outcome, Absent):
        return {**base, "status": "absent", "reason": outcome.reason}
    if outcome.error is not None:
        return {**base, "status": "failed", "reason": outcome.error}
    timing = {**spread(outcome.seconds), "repeats": len(outcome.seconds), "calls_per_repeat": outcome.calls}
    return {**base, **timing, **outcome.checked, "status": "ok"}


def by(column: str, rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows by their value of a column, in the order of first appearance."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[column], []).append(row)
    return groups


def ratio(row: Row, reference: Row | None) -> float | None:
    """How many times the reference's median this row's median is; null where one of them has none."""
    if reference is None or row["median_s"] is None or reference["median_s"] is None:
        return None
    return float(row["median_s"] / reference["median_s"])


def save(results: Results, path: Path | str) -> Path:
    """Write results as JSON (not-a-number and infinities become null) and return the path."""
    validate(results.as_dict())
    target = Path(path)
    write_json(target, _finite(results.as_dict()))
    return target


def load(path: Path | str) -> Results:
    """Read results written by `save`; DamagedFileError (a ValueError) says what is wrong with a foreign file."""
    content = read_json(Path(path))
    if content is None:
        raise ValueError(f"path: expected a results file, but {path} is not there")
    with reading(Path(path)):
        validate(content)
        return Results(content["header"], content["rows"], Path(path))


def validate(content: Any) -> None:
    """Raise ValueError unless `content` is a results object of this schema."""
    if not isinstance(content, dict) or set(content) != {"header", "rows"}:
        raise ValueError("results: expected an object with exactly the keys header and rows")
    header = content["header"]
    if not isinstance(header, dict) or header.get("schema") != SCHEMA:
        raise ValueError(f"results.header: expected schema {SCHEMA}, run the benchmark again to get it")
    if not isinstance(content["rows"], list):
        raise ValueError(f"results.rows: expected a list, got {type(content['rows']).__name__}")
    for number, entry in enumerate(content["rows"]):
        where = f"results.rows[{number}]"
        if not isinstance(entry, dict):
            raise ValueError(f"{where}: expected an object, got {type(entry).__name__}")
        missing = set(COLUMNS) - set(entry)
        if missing:
            raise ValueError(f"{where}: expected the columns {sorted(missing)}, they are missing")
        if entry["status"] not in {"ok", "absent", "failed"}:
            raise ValueError(f"{where}.status: expected ok, absent or failed, got {entry['status']!r}")
        if (entry["median_s"] is None) == (entry["status"] == "ok"):
            raise ValueError(f"{where}: expected a median exactly where the status is ok")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value
