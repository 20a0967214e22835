"""Benchmark of the exact search: workloads by name, peers side by side, every answer judged in float64."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from naign_bench import harness
from naign_bench.harness import DTYPES, OURS, Absent, Effort, Peer, Results, Row, device_kind
from naign_bench.knn_peers import PREPARED, Problem, build_peer, peer_names
from naign_bench.knn_workloads import Workload, grid, make, resolve
from naign_bench.memory import Job, MemoryProbe, cuda_peak_bytes
from naign_bench.oracle import truth
from naign_bench.peaks import measure_peaks
from torch import Tensor

COLUMNS: dict[str, str] = {
    **harness.COLUMNS,
    "data": "kind of data",
    "batch": "problems searched at once, null for a single one",
    "n": "data rows of a problem",
    "m": "pool rows of a problem",
    "d": "numbers in a row",
    "k": "neighbours wanted",
    "gflops": "2 N M D (times the batch) over the median, in 10^9 / s, whatever arithmetic the peer saved",
    "share_of_fp32": "that rate over the device's fp32 matrix product (header: peaks)",
    "share_of_bf16": "the same for bf16",
    "share_of_int8": "the same for int8",
    "checked": "queries whose answer was compared with float64 brute force; null for bare matrix products",
    "mismatches": "of those, queries with a neighbour farther than the true one at its rank",
    "max_relative_error": "largest |distance - float64| / float64 of them; null where a peer gives none",
    "ratio_naign": "this peer's median over that of imle_knn: above 1 where imle_knn is faster",
    "ratio_prepared": "this peer's median over that of a prepared ImleSearch",
}
_PEAKS = {"share_of_fp32": "fp32_gflops", "share_of_bf16": "bf16_gflops", "share_of_int8": "int8_gops"}
# Minutes of a GPU are scarce, and its clock is steadier than a CPU's.
CUDA_BUDGET_S = 3.0
GRID_EFFORT = Effort(repeats=3, min_repeats=2, budget_s=6.0)
_PRELOAD = ("naign_bench.imle_knn", "naign_ext", "faiss", "sklearn.neighbors", "scipy.spatial")
_WARM_ROWS = 64


def run_knn(
    workloads: Sequence[str] | None = None,
    *,
    device: str = "cpu",
    threads: int | None = None,
    dtype: str = "float32",
    k: int | None = None,
    peers: Sequence[str] | None = None,
    repeats: int = 7,
    seed: int = 0,
    grid_shapes: int = 0,
    queries: int = 64,
    memory: bool = True,
    peaks: bool = True,
    json_path: Path | str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Results:
    """Measure the exact search beside its peers and return the rows (written to json_path where given).

    workloads: names of workloads or sets (see `workload_names`); None: the set "quick", or none beside a
    grid. device: "cpu" or "cuda". threads: None keeps torch's number. dtype: type of both inputs, "float32",
    "float16" or "bfloat16". k: overrides the workloads' own. peers: names, None for all of the device.
    repeats: timed rounds, fewer for peers that take long. grid_shapes: that many random shapes drawn from
    the seed. queries: size of the sample that is compared with float64 brute force. memory: measure peak
    memory. peaks: measure the machine's own peaks first. progress: receives a line before each workload.
    Returns rows of `COLUMNS`. ValueError names a wrong argument.
    """
    chosen = _chosen(workloads, grid_shapes, seed, k)
    names = list(peer_names(device_kind(device)) if peers is None else peers)
    harness.check_choices(device=device, dtype=dtype, repeats=repeats, queries=queries)
    _check_peers(names)
    before = torch.get_num_threads()
    threads = harness.set_threads(threads)
    say = progress or (lambda _: None)
    try:
        results = Results(harness.environment(device, threads, "imle_knn"))
        if peaks:
            say("peaks of the machine")
            results.header["peaks"] = measure_peaks(device)
        with MemoryProbe(_PRELOAD, wanted=memory, device=device) as probe:
            results.header["memory_method"] = probe.method
            for number, workload in enumerate(chosen):
                say(f"{workload.name} {tuple(workload.shape)} ({number + 1} of {len(chosen)})")
                setting = _Setting(
                    device=device,
                    threads=threads,
                    dtype=dtype,
                    peers=[n for n in names if peers is not None or n in (workload.peers or names)],
                    seed=seed,
                    queries=queries,
                    effort=_effort(workload, device, repeats),
                    probe=probe,
                )
                results.rows += _run_workload(workload, setting, results.header)
                if json_path is not None:
                    harness.save(results, json_path)
        results.header["accelerator_after"] = harness.accelerator(device)
        if json_path is not None:
            harness.save(results, json_path)
    finally:
        harness.set_threads(before)
    return results


def _effort(workload: Workload, device: str, repeats: int) -> Effort:
    if workload.name.startswith("grid_"):
        return GRID_EFFORT
    if device_kind(device) == "cuda":
        return Effort(repeats=repeats, budget_s=CUDA_BUDGET_S)
    return Effort(repeats=repeats)


@dataclass(frozen=True)
class _Setting:
    """How a workload is measured."""

    device: str
    threads: int
    dtype: str
    peers: list[str]
    seed: int
    queries: int
    effort: Effort
    probe: MemoryProbe


def _chosen(workloads: Sequence[str] | None, grid_shapes: int, seed: int, k: int | None) -> list[Workload]:
    if workloads is None:
        workloads = () if grid_shapes else ("quick",)
    found = [*resolve(workloads), *grid(grid_shapes, seed)]
    if k is None:
        return found
    if k < 1 or any(k > workload.m for workload in found):
        raise ValueError(f"k: expected 1 to the number of pool rows of every workload, got {k}")
    return [replace(workload, k=k) for workload in found]


def _check_peers(peers: Sequence[str]) -> None:
    known = {*peer_names("cpu"), *peer_names("cuda")}
    if set(peers) - known:
        raise ValueError(f"peers: expected names among {sorted(known)}, got {sorted(set(peers) - known)}")


def _run_workload(workload: Workload, setting: _Setting, header: Mapping[str, Any]) -> list[Row]:
    columns = _workload_columns(workload, setting.dtype)
    try:
        data, pool = make(workload, setting.seed)
    except ImportError as error:
        missing = f"its data cannot be made: {error}"
        return harness.rows(columns, [Absent(name, missing) for name in setting.peers], {}, {})
    data, pool = (values.to(setting.device, DTYPES[setting.dtype]) for values in (data, pool))
    known = truth(data, pool, workload.k, queries=setting.queries, seed=setting.seed)
    problem = Problem(data, pool, workload.k, setting.threads, known)
    built = [build_peer(name, problem) for name in setting.peers]
    harness.set_threads(setting.threads)
    ready = [peer for peer in built if isinstance(peer, Peer)]
    peaks = _peak_memory(ready, problem, setting)
    measured = harness.measure(ready, setting.effort, device=setting.device, seed=setting.seed)
    return _with_rates(harness.rows(columns, built, measured, peaks), workload, header["peaks"])


def _workload_columns(workload: Workload, dtype: str) -> dict[str, Any]:
    sizes = {"n": workload.n, "m": workload.m, "d": workload.d, "k": workload.k, "batch": workload.batch}
    named = {"workload": workload.name, "shape": workload.shape, "data": workload.kind, "dtype": dtype}
    return {**dict.fromkeys(COLUMNS), **sizes, **named}


def _with_rates(rows: list[Row], workload: Workload, peaks: Mapping[str, float | None]) -> list[Row]:
    by_name = {row["peer"]: row for row in rows}
    for row in rows:
        if row["median_s"] is not None:
            row["gflops"] = workload.operations / row["median_s"] * 1e-9
            for column, name in _PEAKS.items():
                peak = peaks.get(name)
                row[column] = row["gflops"] / peak if peak else None
        row["ratio_naign"] = harness.ratio(row, by_name.get(OURS))
        row["ratio_prepared"] = harness.ratio(row, by_name.get(PREPARED))
    return rows


def _peak_memory(peers: Sequence[Peer], problem: Problem, setting: _Setting) -> dict[str, int | None]:
    """Peak memory of each peer, by name; what cannot be measured is missing."""
    if not setting.probe.wanted:
        return {}
    if device_kind(setting.device) == "cuda":
        return {peer.name: _cuda_peak(peer, setting.device) for peer in peers}
    found: dict[str, int | None] = {}
    with tempfile.TemporaryDirectory(prefix="naign-bench-") as folder:
        for name, values in (("data", problem.data), ("pool", problem.pool)):
            np.save(Path(folder) / f"{name}.npy", values.float().numpy())
        for peer in peers:
            arguments = {"folder": folder, "peer": peer.name, "k": problem.k, "dtype": setting.dtype}
            arguments["threads"] = setting.threads
            try:
                found[peer.name] = setting.probe.measure("naign_bench.imle_knn", "memory_job", arguments)
            except RuntimeError:
                found[peer.name] = None
    return found


def _cuda_peak(peer: Peer, device: str) -> int | None:
    try:
        return cuda_peak_bytes(peer.call, device)
    except Exception:  # the measurement that follows reports it
        return None


def memory_job(folder: str, peer: str, k: int, dtype: str, threads: int) -> Job:
    """A search in a fresh process, preparation included: the tiny call that warms it up, and the call."""
    data, pool = (
        torch.from_numpy(np.load(Path(folder) / f"{name}.npy")).to(DTYPES[dtype]) for name in ("data", "pool")
    )

    def search(data: Tensor, pool: Tensor) -> Any:
        built = build_peer(peer, Problem(data, pool, k, threads))
        if isinstance(built, Absent):
            raise RuntimeError(built.reason)
        harness.set_threads(threads)
        return built.call()

    few = max(k, _WARM_ROWS)
    return lambda: search(data[..., :2, :], pool[..., :few, :]), lambda: search(data, pool)
