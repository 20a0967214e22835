"""Pools of growing size matched to one data set: time in proportion to the pool, memory that does not grow.

A match is what training does with ``match=dataset``: the pool is generated from its seed, sent through f and
searched chunk by chunk, and the winners' latents are made again from their indices. Each size runs in a
process of its own, where time and peak memory are taken in the same match.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from naign_bench import harness
from naign_bench.harness import OURS, Measurement, Results, Row
from naign_bench.memory import Job, MemoryProbe, cuda_peak_and_answer

if TYPE_CHECKING:
    from torch import nn

    from naign_ext.objectives.matchers import DatasetMatcher

COLUMNS: dict[str, str] = {
    **harness.COLUMNS,
    "n": "rows of data",
    "m": "latents in the pool",
    "d": "numbers in a row",
    "chunk": "rows of the pool in memory at a time",
    "widths": "hidden widths of f",
    "generation_s": "seconds that went into latents and f; on CUDA those until the work was queued",
    "search_s": "seconds that went into the search; on CUDA those until the work was queued",
    "latents_per_s": "m over the median",
}


@dataclass(frozen=True)
class Workload:
    """n normal rows of d numbers, f of these widths, and pools of these sizes."""

    name: str
    n: int
    d: int
    widths: tuple[int, ...]
    sizes: tuple[int, ...]


_PLANE = (128, 128, 128)
_DIGITS = (512, 64, 512, 512)
QUICK = (
    Workload("pool_plane", 10_000, 2, _PLANE, (10_000, 30_000, 100_000, 300_000, 1_000_000)),
    Workload("pool_mnist", 1000, 784, _DIGITS, (3000, 10_000, 30_000)),
)
FULL = (
    Workload("pool_plane", 10_000, 2, _PLANE, (100_000, 1_000_000, 10_000_000, 100_000_000)),
    Workload("pool_mnist", 1000, 784, _DIGITS, (10_000, 30_000, 100_000, 300_000, 1_000_000)),
)
SETS = {"quick": QUICK, "full": FULL}


def run_pool(
    which: str = "quick",
    *,
    workloads: Sequence[Workload] | None = None,
    chunk: int | None = None,
    device: str = "cpu",
    threads: int | None = None,
    seed: int = 0,
    memory: bool = True,
    json_path: Path | str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Results:
    """Match pools of growing size and return the rows (written to json_path after each).

    which: quick (seconds) or full (up to 10^8 latents at D = 2 and 10^6 at D = 784; minutes). workloads: in place of
    a set. chunk: rows of the pool in memory; None: chosen from free memory. Returns rows of `COLUMNS`.
    """
    if which not in SETS:
        raise ValueError(f"which: expected one of {list(SETS)}, got {which!r}")
    harness.check_choices(device=device, dtype="float32", chunk=1 if chunk is None else chunk)
    before = torch.get_num_threads()
    threads = harness.set_threads(threads)
    say = progress or (lambda _: None)
    results = Results(harness.environment(device, threads, "pool"))
    try:
        with MemoryProbe(
            ("naign_bench.pool", "naign_ext.objectives"), wanted=memory, device=device, limit_s=7200
        ) as probe:
            results.header["memory_method"] = probe.method
            for workload in SETS[which] if workloads is None else workloads:
                for m in workload.sizes:
                    say(f"{workload.name}: {m:,} latents")
                    problem = {
                        "n": workload.n,
                        "m": m,
                        "d": workload.d,
                        "widths": list(workload.widths),
                        "chunk": chunk,
                        "seed": seed,
                        "device": device,
                        "threads": threads,
                    }
                    results.rows.append(_measured(workload, problem, probe))
                    if json_path is not None:
                        harness.save(results, json_path)
    finally:
        harness.set_threads(before)
    return results


def _measured(workload: Workload, problem: dict[str, Any], probe: MemoryProbe) -> Row:
    columns = {
        **dict.fromkeys(COLUMNS),
        **{name: problem[name] for name in ("n", "m", "d", "widths")},
        "workload": workload.name,
        "shape": [workload.n, problem["m"], workload.d],
        "dtype": "float32",
        "peer": OURS,
    }
    peak, told = probe.measure_with("naign_bench.pool", "match_job", problem) or _measured_here(
        problem, probe
    )
    columns |= {
        "peak_memory_bytes": peak,
        **{name: told[name] for name in ("chunk", "generation_s", "search_s")},
    }
    row = harness.row(columns, Measurement([told["seconds"]]))
    return {**row, "latents_per_s": problem["m"] / row["median_s"]}


def _measured_here(problem: dict[str, Any], probe: MemoryProbe) -> tuple[int | None, dict[str, Any]]:
    warm, call = match_job(**problem)
    warm()
    if probe.wanted and problem["device"] != "cpu":
        return cuda_peak_and_answer(call, problem["device"])
    return None, call()


def match_job(
    n: int, m: int, d: int, widths: Sequence[int], chunk: int | None, seed: int, device: str, threads: int
) -> Job:
    """A match of a pool of m latents, which tells its seconds; warmed up by one of a few rows."""
    harness.set_threads(threads)
    f, few = _problem(n, 64, d, widths, chunk, seed, device)
    _, many = _problem(n, m, d, widths, chunk, seed, device)

    def call() -> dict[str, Any]:
        began = time.perf_counter()
        many.prepare(f, 0)
        if device != "cpu":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - began
        stages = many.timer.take()
        return {
            "seconds": seconds,
            "chunk": many.rows_at_a_time,
            "generation_s": stages["generation"],
            "search_s": stages["search"],
        }

    return lambda: few.prepare(f, 0), call


def _problem(
    n: int, m: int, d: int, widths: Sequence[int], chunk: int | None, seed: int, device: str
) -> tuple[nn.Module, DatasetMatcher]:
    from naign_ext.models import build_model
    from naign_ext.objectives import MatchOptions, StepContext
    from naign_ext.objectives.matchers import DatasetMatcher

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        f = build_model("mlp", (d,), widths=list(widths), activation="relu").to(device)
        data = torch.randn(n, d).to(device)
    options = MatchOptions(match="dataset", pool_size=m, pool_chunk=chunk)
    return f, DatasetMatcher(options, data, StepContext(seed))


def flatness(rows: Sequence[Row]) -> dict[str, float]:
    """For each workload the largest peak memory over the smallest: 1 where it does not grow with the pool."""
    return {name: max(peaks) / max(1, min(peaks)) for name, peaks in _peaks(rows).items() if peaks}


def growth(rows: Sequence[Row]) -> dict[str, float]:
    """For each workload the exponent of time in m between its two largest pools: 1 is a straight line."""
    found = {}
    for name in dict.fromkeys(row["workload"] for row in rows):
        last = sorted((row["m"], row["median_s"]) for row in rows if row["workload"] == name)[-2:]
        if len(last) == 2:
            (m, a), (more, b) = last
            found[name] = math.log(b / a) / math.log(more / m)
    return found


def _peaks(rows: Sequence[Row]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for row in rows:
        if row["peak_memory_bytes"] is not None:
            groups.setdefault(row["workload"], []).append(row["peak_memory_bytes"])
    return groups
