"""A model of the cost of an update: operations and bytes against processes, data, pool and dimension.

Per process, with R processes, B rows in the global batch, a match of n rows (n = B, or all N data) against M
latents every S updates, D numbers a row, P parameters, and q rows through f with gradients per row of the batch:

    generation   2 P M / (R S) operations of f (a multiplication and an addition for each weight and row)
    latents      M D / (R S) normal numbers, and as many again at most when winners are regenerated
    search       2 n (M / R) D / S operations, the integer filter's products
    training     6 P q B / R operations: forward, and backward at twice that
    noise        B D / R normal numbers, with a denoise term
    update       8 P numbers read or written several times; counted as seconds per parameter
    gradients    8 P (R - 1) / R bytes sent and as many received: a ring all_reduce of 4 P bytes
    merge        nothing where a match is of a batch and M P <= 2^24: each process makes all of the pool for its own
                 rows; 16 n (R - 1) / S bytes where n R <= 65536: an all_gather of n float64 distances and n int64
                 indices; else 32 n (R - 1) / (R S): two ring all_reduces
    latency      2 log2(R) steps for each of the collectives: gradients (scalars beside them), 0 to 2 for each match,
                 and 2 for each layer of batch normalisation

Where R processes share fewer processors, what they compute takes turns; the model then multiplies it.

Memory per process: 4 N D bytes of data, 16 n of running minima, 16 P of weights, moments and gradients with 4 P
of their average, and one chunk of the pool, whatever M and R are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from naign_ext.objectives.matchers import CHEAP_POOL
from naign_ext.search import MOST_GATHERED

NETWORK_STAGES = ("forward", "backward")


@dataclass(frozen=True)
class Problem:
    """An update's sizes; ``matched`` rows are searched every ``resample`` updates."""

    parameters: int
    batch: int
    matched: int
    pool: int
    d: int
    resample: int = 1
    passes: float = 2.0
    noisy: bool = False
    batch_norms: int = 0

    def with_batch(self, batch: int) -> Problem:
        """The same with another batch; a match of batches grows with it."""
        return replace(self, batch=batch, matched=batch if self.matched == self.batch else self.matched)


@dataclass(frozen=True)
class Machine:
    """Rates of one process, in operations, normal numbers and bytes a second; latency and overhead in seconds.

    overhead: what an update takes however small it is: the host's own work.
    """

    generation: float
    training: float
    search: float
    randn: float
    link: float
    latency: float
    update_s_per_parameter: float = 0.0
    overhead: float = 0.0


ACCELERATOR = Machine(
    generation=200e12,
    training=300e12,
    search=400e12,
    randn=100e9,
    link=50e9,
    latency=10e-6,
    update_s_per_parameter=36 / 3e12,
    overhead=1e-3,
)
"""Assumed, not measured: a data-centre GPU at a third of its dense bfloat16 peak, an integer filter at a fifth of
its peak, 400 Gbit/s for each GPU, memory at 3 TB/s, 75 instructions for a normal number."""


def operations(problem: Problem, ranks: int) -> dict[str, float]:
    """Operations and normal numbers of an update in one process."""
    p = problem
    pairs = p.matched * p.pool / (ranks * p.resample)
    shard = p.pool / (p.resample if whole_pools(p) else ranks * p.resample)
    return {
        "generation": 2 * p.parameters * shard,
        "latents": shard * p.d,
        "search": 2 * pairs * p.d,
        "training": 6 * p.parameters * p.passes * p.batch / ranks,
        "noise": p.batch * p.d / ranks if p.noisy else 0,
    }


def whole_pools(problem: Problem) -> bool:
    """Whether every process makes all of the pool, for its own rows of the batch."""
    return problem.matched == problem.batch and problem.pool * problem.parameters <= CHEAP_POOL


def gathered(problem: Problem, ranks: int) -> bool:
    """Whether a match is merged by one all_gather, not by two all_reduces."""
    return problem.matched * ranks <= MOST_GATHERED


def sent_bytes(problem: Problem, ranks: int) -> dict[str, float]:
    """Bytes that one process sends in an update; it receives as many."""
    part = (ranks - 1) / ranks
    merge = 16 * (ranks - 1) if gathered(problem, ranks) else 32 * part
    return {
        "gradients": 8 * problem.parameters * part,
        "merge": 0.0 if whole_pools(problem) else merge * problem.matched / problem.resample,
    }


def collectives(problem: Problem, ranks: int) -> float:
    """How often an update waits for the other processes."""
    if ranks == 1:
        return 0.0
    merges = 0 if whole_pools(problem) else 1 if gathered(problem, ranks) else 2
    return 1 + merges / problem.resample + 2 * problem.batch_norms


def memory_bytes(problem: Problem, rows: int, chunk_bytes: int = 64 << 20) -> int:
    """Memory of one process with data of so many rows."""
    return 4 * rows * problem.d + 16 * problem.matched + 20 * problem.parameters + chunk_bytes


def seconds(problem: Problem, machine: Machine, ranks: int, crowd: float = 1.0) -> dict[str, float]:
    """Seconds of an update by what takes them, one after another: nothing overlaps.

    crowd: threads for each processor, where more than one; they take turns.
    """
    work, sent = operations(problem, ranks), sent_bytes(problem, ranks)
    alone = {
        "generation": work["generation"] / machine.generation,
        "latents": work["latents"] / machine.randn,
        "search": work["search"] / machine.search,
        "training": work["training"] / machine.training,
        "noise": work["noise"] / machine.randn,
        "update": problem.parameters * machine.update_s_per_parameter,
        "overhead": machine.overhead,
    }
    return {name: max(1.0, crowd) * value for name, value in alone.items()} | {
        "gradients": sent["gradients"] / machine.link,
        "merge": sent["merge"] / machine.link,
        "latency": collectives(problem, ranks) * 2 * math.log2(ranks) * machine.latency,
    }


def first_limit(problem: Problem, machine: Machine, ranks: int) -> str:
    """What takes the most of an update."""
    found = seconds(problem, machine, ranks)
    return max(found, key=lambda name: found[name])


def problem_of(row: Mapping[str, Any]) -> Problem:
    """The problem of a row of `naign bench train`."""
    return Problem(
        parameters=row["parameters"],
        batch=row["batch"],
        matched=row["matched"],
        pool=row["pool"] or 0,
        d=row["d"],
        resample=row["resample"],
        passes=row["passes"],
        batch_norms=row["batch_norms"],
    )


def calibrated(row: Mapping[str, Any], *, link: float, latency: float) -> Machine:
    """The machine on which the model gives a row of one process: its stages' seconds, and the rest as overhead.

    link, latency: of the connection, which one process cannot show. Latents count as part of generation and noise as
    part of the data stage, which is overhead here.
    """
    problem, stages = problem_of(row), row["stages"]
    work = operations(problem, 1)
    training = sum(stages[name] for name in NETWORK_STAGES)
    timed = training + stages["generation"] + stages["search"] + stages["update"]
    return Machine(
        generation=_rate(work["generation"], stages["generation"]),
        training=_rate(work["training"], training),
        search=_rate(work["search"], stages["search"]),
        randn=math.inf,
        link=link,
        latency=latency,
        update_s_per_parameter=stages["update"] / problem.parameters,
        overhead=max(0.0, row["median_s"] - timed),
    )


def _rate(work: float, taken: float) -> float:
    return work / taken if work and taken else math.inf


RANKS = (1, 2, 8, 64, 1024)
"""For extrapolation; the batch grows with the processes, the pool and the data do not."""

_IMAGES = Problem(parameters=50_000_000, batch=64, matched=64, pool=65_536, d=3 * 64 * 64, noisy=True)
# Each batch is matched, or all images once in 1000 updates.
CASES: dict[str, Problem] = {
    "64 px, batches, M = 65536": _IMAGES,
    "64 px, 10^6 images, M = 10^6": replace(_IMAGES, matched=1_000_000, pool=1_000_000, resample=1000),
    "64 px, 10^6 images, M = 10^8": replace(_IMAGES, matched=1_000_000, pool=100_000_000, resample=1000),
    "plane, batches, M = 10^6": Problem(33_000, 256, 256, 1_000_000, 2),
}


def extrapolated(machine: Machine = ACCELERATOR) -> list[list[str]]:
    """Rows of a table: case, processes, milliseconds of an update, its two largest parts, data points per second."""
    rows = []
    for name, problem in CASES.items():
        for ranks in RANKS:
            grown = problem.with_batch(problem.batch * ranks)
            parts = seconds(grown, machine, ranks)
            total = sum(parts.values())
            first, second = sorted(parts, key=lambda part: -parts[part])[:2]
            largest = f"{first} {parts[first] / total:.0%}, {second} {parts[second] / total:.0%}"
            rows.append([name, f"{ranks}", f"{1e3 * total:,.3g}", largest, f"{grown.batch / total:,.0f}"])
    return rows


def _kind(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["workload"], row["objective"]


def compared(header: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Rows of a table: each measured run of several processes beside what the model makes of one process."""
    links = header.get("links")
    if not links:
        raise ValueError("results: expected those of naign bench train --processes 2 or more")
    found = []
    for row in rows:
        one = next(r for r in rows if r["processes"] == 1 and _kind(r) == _kind(row))
        ranks = row["processes"]
        if ranks == 1 or row["status"] != "ok" or one["status"] != "ok":
            continue
        link = links[str(ranks)]
        machine = calibrated(one, link=link["bytes_per_s"], latency=link["latency_s"])
        crowd = ranks * header["threads"] / header["cores"]
        expected = sum(seconds(problem_of(row), machine, ranks, crowd).values())
        names = [row["workload"], row["peer"]]
        if not all(isinstance(name, str) for name in names):
            raise TypeError(f"workload, peer: expected texts, got {names}")
        cells = [f"{1e3 * value:.3g}" for value in (one["median_s"], row["median_s"], expected)]
        found.append([*names, *cells, f"{row['speedup']:.2f}"])
    return found
