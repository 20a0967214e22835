"""Benchmark of the fused loss, forward and backward, against torch's own expression of it and a plain copy.

The loss does almost no arithmetic, so its ceiling is memory: every input must be read and every gradient
written once. GB/s counts these bytes and no others, whatever a peer moves in addition; the peer "copy" moves
as many.
"""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from naign_bench import harness
from naign_bench.harness import (
    DTYPES,
    OURS,
    Absent,
    Effort,
    Peer,
    Results,
    Row,
    chosen_of,
    device_kind,
    names_in,
)
from naign_bench.knn_peers import Unavailable
from naign_bench.memory import Job, MemoryProbe, cuda_peak_bytes
from naign_bench.peaks import copy_rate
from torch import Tensor
from torch.nn import functional

COPY = "copy"
WEIGHTS = (1.0, 0.7, 0.3)
COLUMNS: dict[str, str] = {
    **harness.COLUMNS,
    "terms": "2: reconstruction and IMLE; 3: idempotence as well",
    "norm": "l2 or l1",
    "traffic_bytes": "inputs read once and gradients written once",
    "gbs": "traffic_bytes over the median, in 10^9 / s",
    "share_of_copy": "that rate over the rate of the peer copy",
    "loss_error": "|total - float64| / float64; null for the copy",
    "gradient_error": "largest |gradient - float64| over the largest |float64 gradient|; null for the copy",
    "ratio_naign": "this peer's median over that of fused_loss: above 1 where fused_loss is faster",
}


@dataclass(frozen=True)
class Workload:
    """Inputs of one shape: data, f(x), f(z), and f(f(z)) where there are three terms."""

    name: str
    shape: tuple[int, ...]
    terms: int = 2
    norm: str = "l2"

    def traffic_bytes(self, dtype: torch.dtype) -> int:
        """`terms` + 1 inputs read and `terms` gradients written."""
        return (2 * self.terms + 1) * math.prod(self.shape) * dtype.itemsize


QUICK = (
    Workload("loss_mnist", (256, 784)),
    Workload("loss_images", (256, 3, 64, 64)),
    Workload("loss_images_l1", (256, 3, 64, 64), norm="l1"),
    Workload("loss_images_idempotence", (256, 3, 64, 64), terms=3),
)
FULL = (
    *QUICK,
    Workload("loss_large", (512, 3, 128, 128)),
    Workload("loss_large_three", (512, 3, 128, 128), 3),
)
CUDA = (
    Workload("loss_cuda", (1024, 3, 256, 256)),
    Workload("loss_cuda_l1", (1024, 3, 256, 256), norm="l1"),
    Workload("loss_cuda_idempotence", (1024, 3, 256, 256), terms=3),
)
SETS = {"quick": QUICK, "full": FULL, "cuda": CUDA}


@dataclass(frozen=True)
class Problem:
    """data and the tensors that get gradients: reconstruction, matched and, with three terms, projected."""

    data: Tensor
    outputs: tuple[Tensor, ...]
    norm: str


def run_loss(
    workloads: Sequence[str] | None = None,
    *,
    device: str = "cpu",
    threads: int | None = None,
    dtype: str = "float32",
    peers: Sequence[str] | None = None,
    repeats: int = 11,
    seed: int = 0,
    memory: bool = True,
    json_path: Path | str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Results:
    """Measure fused_loss forward and backward beside its peers and return the rows (written to json_path).

    workloads: names of workloads or sets (see `workload_names`); None: the set "quick". dtype: type of all
    inputs. The other arguments are those of `run_knn`. Returns rows of `COLUMNS`. ValueError names a wrong
    argument.
    """
    chosen = resolve(("quick",) if workloads is None else workloads)
    names = list(PEERS if peers is None else peers)
    harness.check_choices(device=device, dtype=dtype, repeats=repeats)
    if set(names) - set(PEERS):
        raise ValueError(f"peers: expected names among {list(PEERS)}, got {sorted(set(names) - set(PEERS))}")
    before = torch.get_num_threads()
    threads = harness.set_threads(threads)
    say = progress or (lambda _: None)
    try:
        results = Results(harness.environment(device, threads, "fused_loss"))
        results.header["peaks"] = {"copy_gbs": copy_rate(device)}
        with MemoryProbe(("naign_bench.fused_loss", "naign_ext"), wanted=memory, device=device) as probe:
            results.header["memory_method"] = probe.method
            for number, workload in enumerate(chosen):
                say(f"{workload.name} {workload.shape} ({number + 1} of {len(chosen)})")
                problem = make(workload, seed, device, DTYPES[dtype])
                built = [build_peer(name, problem) for name in names]
                peaks = _peak_memory(built, workload, probe, (seed, device, dtype, threads))
                ready = [peer for peer in built if isinstance(peer, Peer)]
                measured = harness.measure(ready, Effort(repeats=repeats), device=device, seed=seed)
                columns = _workload_columns(workload, dtype)
                rows = harness.rows(columns, built, measured, peaks)
                results.rows += _with_rates(rows, workload.traffic_bytes(DTYPES[dtype]))
                if json_path is not None:
                    harness.save(results, json_path)
        results.header["accelerator_after"] = harness.accelerator(device)
        if json_path is not None:
            harness.save(results, json_path)
    finally:
        harness.set_threads(before)
    return results


def workload_names() -> list[str]:
    """Names of single workloads and of the sets quick, full and cuda."""
    return names_in(SETS)


def resolve(names: Sequence[str]) -> list[Workload]:
    """Workloads of these names, sets expanded, each once, in order."""
    return chosen_of(SETS, names)


def make(workload: Workload, seed: int, device: str, dtype: torch.dtype) -> Problem:
    """Normal data and outputs that differ from them by normal errors of deviation 0.5."""
    generator = torch.Generator(device=device).manual_seed(seed)

    def normal() -> Tensor:
        return torch.randn(workload.shape, generator=generator, device=device)

    data = normal()
    outputs = [data + 0.5 * normal() for _ in range(workload.terms)]
    leaves = tuple(output.to(dtype).requires_grad_() for output in outputs)
    return Problem(data.to(dtype), leaves, workload.norm)


def plain_loss(norm: str, data: Tensor, *outputs: Tensor) -> Tensor:
    """The weighted sum of the loss in torch's own functions."""
    term = functional.mse_loss if norm == "l2" else functional.l1_loss
    pairs = zip(outputs, (data, data, outputs[1]), strict=False)
    return sum((w * term(a, b) for w, (a, b) in zip(WEIGHTS, pairs, strict=False)), data.new_zeros(()))


def build_peer(name: str, problem: Problem) -> Peer | Absent:
    """The peer of this name for this problem, or why there is none."""
    try:
        call = PEERS[name](problem)
    except Unavailable as reason:
        return Absent(name, str(reason))
    except ImportError as error:
        return Absent(name, f"cannot be imported: {error}")
    if name == COPY:
        return Peer(name, call)
    expected: list[tuple[Tensor, ...]] = []

    def check(answer: Any) -> Mapping[str, Any]:
        if not expected:
            expected.append(_float64_answer(problem))
        return _errors(answer, expected[0])

    return Peer(name, call, check)


def _float64_answer(problem: Problem) -> tuple[Tensor, ...]:
    leaves = [output.detach().double().requires_grad_() for output in problem.outputs]
    return _with_gradients(plain_loss(problem.norm, problem.data.double(), *leaves), leaves)


def _errors(answer: Sequence[Tensor], expected: Sequence[Tensor]) -> dict[str, float]:
    total = float((answer[0].double() - expected[0]).abs() / expected[0])
    pairs = zip(answer[1:], expected[1:], strict=True)
    gradient = max(float((found.double() - exact).abs().max() / exact.abs().max()) for found, exact in pairs)
    return {"loss_error": total, "gradient_error": gradient}


def _with_gradients(total: Tensor, outputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return (total.detach(), *torch.autograd.grad(total, outputs))


def _naign(problem: Problem) -> Callable[[], Any]:
    from naign_ext import fused_loss

    padding = (None,) * (3 - len(problem.outputs))

    def call() -> Any:
        total = fused_loss(problem.data, *problem.outputs, *padding, weights=WEIGHTS, norm=problem.norm).total  # type: ignore[call-overload]
        return _with_gradients(total, problem.outputs)

    return call


def _torch(problem: Problem) -> Callable[[], Any]:
    return lambda: _with_gradients(plain_loss(problem.norm, problem.data, *problem.outputs), problem.outputs)


def _torch_compiled(problem: Problem) -> Callable[[], Any]:
    reason = _no_compiler(problem.data.device.type)
    if reason:
        raise Unavailable(reason)
    torch._dynamo.reset()
    compiled = torch.compile(plain_loss, fullgraph=True, dynamic=False)
    return lambda: _with_gradients(compiled(problem.norm, problem.data, *problem.outputs), problem.outputs)


def _no_compiler(device: str) -> str | None:
    """Why torch.compile cannot work here, None where it can."""
    if device == "cuda":
        return (
            None
            if importlib.util.find_spec("triton")
            else "torch.compile needs Triton, which is not installed"
        )
    candidates = [os.environ.get("CXX", ""), "g++", "clang++", "c++"]
    if any(name and shutil.which(name) for name in candidates):
        return None
    return "torch.compile needs a C++ compiler (g++, clang++ or CXX), and none is found"


def _copy(problem: Problem) -> Callable[[], Any]:
    """As many bytes as the loss must move, half of them read and half written."""
    moved = (2 * len(problem.outputs) + 1) * problem.data.nbytes
    source = torch.rand(moved // 8, device=problem.data.device)
    target = torch.ones_like(source)
    return lambda: target.copy_(source)


PEERS: dict[str, Callable[[Problem], Callable[[], Any]]] = {
    OURS: _naign,
    "torch": _torch,
    "torch compile": _torch_compiled,
    COPY: _copy,
}


def _workload_columns(workload: Workload, dtype: str) -> dict[str, Any]:
    named = {"workload": workload.name, "shape": list(workload.shape), "dtype": dtype}
    return {
        **dict.fromkeys(COLUMNS),
        **named,
        "terms": workload.terms,
        "norm": workload.norm,
        "traffic_bytes": workload.traffic_bytes(DTYPES[dtype]),
    }


def _with_rates(rows: list[Row], traffic: int) -> list[Row]:
    by_name = {row["peer"]: row for row in rows}
    for row in rows:
        row["ratio_naign"] = harness.ratio(row, by_name.get(OURS))
        if row["median_s"] is not None:
            row["gbs"] = traffic / row["median_s"] * 1e-9
            of_copy = harness.ratio(row, by_name.get(COPY))
            row["share_of_copy"] = None if of_copy is None else 1 / of_copy
    return rows


def _peak_memory(
    built: Sequence[Peer | Absent], workload: Workload, probe: MemoryProbe, how: tuple[int, str, str, int]
) -> dict[str, int | None]:
    """Peak memory of a call of each peer, gradients included; the copy needs none."""
    seed, device, dtype, threads = how
    ready = [peer for peer in built if isinstance(peer, Peer) and peer.name != COPY]
    if device_kind(device) == "cuda":
        return {peer.name: cuda_peak_bytes(peer.call, device) for peer in ready if probe.wanted}
    shared = {"workload": workload.name, "seed": seed, "dtype": dtype, "threads": threads}
    return {
        peer.name: probe.measure("naign_bench.fused_loss", "memory_job", {**shared, "peer": peer.name})
        for peer in ready
    }


def memory_job(workload: str, peer: str, seed: int, dtype: str, threads: int) -> Job:
    """Forward and backward in a fresh process; the warming call is a full one, so that all is compiled."""
    harness.set_threads(threads)
    problem = make(resolve([workload])[0], seed, "cpu", DTYPES[dtype])
    built = build_peer(peer, problem)
    if isinstance(built, Absent):
        raise RuntimeError(built.reason)
    return built.call, built.call
