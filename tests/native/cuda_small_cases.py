"""Runs every CUDA kernel on small inputs and compares with the CPU: a program for compute-sanitizer to watch.

usage: cuda_small_cases.py [loss] [search] [randn]

Cases come in an order drawn once, after one of each kind. No case starts once NAIGN_CASES_SECONDS have passed, where
that is set: a sanitizer can make a kernel a hundred times slower. Without one of each kind the program fails.
Inputs come from the host, so that initcheck has seen every byte written.
"""

import itertools
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from naign_ext import ImleSearch, _native, fused_loss, imle_knn
from naign_ext.ops import randn, randn_rows

FULL, HALF, BRIEF = torch.float32, torch.float16, torch.bfloat16
SHAPES = ((65, 900, 257), (3, 40, 2), (70, 600, 33), (130, 1500, 64), (2, 300, 784))
# Ways to search and lengths of lists: the public call, a stream; filters for Hopper and for Ampere, lists too short for
# them, columns, exact comparison.
WAYS = ("call", "stream", (1, 0), (1, 2), (2, 0), (2, 2), (3, 0), (4, 0))


@dataclass(frozen=True)
class Case:
    """A call that raises where CUDA and the CPU differ. `kind`: one of each runs first."""

    kind: str
    run: Callable[[], None]


def loss_case(
    types: tuple[torch.dtype, ...], present: int, norm: str, offset: int, device: str = "cuda"
) -> Case:
    """The loss of `present` inputs of these types, which begin `offset` elements after a multiple of 16 bytes."""

    def run() -> None:
        generator = torch.Generator().manual_seed(present)
        size = 4096 + 17 if present < 4 else 65536 + 3
        rooms = [torch.randn(size + offset, generator=generator).to(t) for t in types[:present]]
        answers = []
        for place in ("cpu", device):
            inputs = [room.to(place)[offset:].requires_grad_() for room in rooms]
            total = fused_loss(*inputs, norm=norm).total
            answers.append([total, *torch.autograd.grad(total * 2, inputs[1:])])
        for expected, found in zip(*answers, strict=True):
            torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=0)

    return Case(f"loss {types[0]} {types[1]}", run)


def loss_cases(device: str = "cuda") -> list[Case]:
    """Every kernel of the loss: types, alignment, tails, terms, norms, and the scaling of gradients."""
    dtypes = ((FULL,) * 4, (BRIEF,) * 4, (HALF,) * 4, (FULL, BRIEF, HALF, FULL))
    choices = itertools.product(dtypes, (4, 3, 2), ("l2", "l1"), (0, 1))
    return [loss_case(*choice, device) for choice in choices]


def search_by(
    way: str | tuple[int, int],
    data: torch.Tensor,
    pool: torch.Tensor,
    k: int,
    reject: float | None,
) -> torch.Tensor:
    """Indices found in this way."""
    if way == "call":
        return imle_knn(data, pool, k, reject_below=reject).indices
    if way == "stream":
        search = ImleSearch(data, k, reject_below=reject)
        for part in pool.split(len(pool) // 2 + 1):
            search.update(part)
        return search.neighbours().indices
    return torch.ops.naign._test_imle_knn_by(data, pool, k, reject, *way)[1]


def search_case(
    way: str | tuple[int, int],
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    k: int,
    rejects: bool,
    device: str,
) -> Case:
    """One search against the CPU's, bit for bit."""

    def run() -> None:
        generator = torch.Generator().manual_seed(sum(shape))
        data, pool = (torch.randn(rows, shape[2], generator=generator).to(dtype) for rows in shape[:2])
        reject = float(shape[2]) if rejects else None
        expected = imle_knn(data, pool, k, reject_below=reject).indices
        assert torch.equal(search_by(way, data.to(device), pool.to(device), k, reject).cpu(), expected)

    return Case(f"search {way}", run)


def batches_case(device: str) -> Case:
    """Small problems in one launch."""

    def run() -> None:
        generator = torch.Generator().manual_seed(1)
        data, pool = (torch.randn(4, rows, 32, generator=generator) for rows in (1, 20))
        found = imle_knn(data.to(device), pool.to(device)).indices
        assert torch.equal(found.cpu(), imle_knn(data, pool).indices)

    return Case("search batches", run)


def search_cases(device: str = "cuda") -> list[Case]:
    """Small searches of every kind: ways, sizes, types, neighbours, rejection, batches, streaming."""
    ways = WAYS if device == "cuda" else ("call", "stream")
    choices = itertools.product(ways, SHAPES, (FULL, BRIEF), (1, 5), (False, True))
    cases = [
        search_case(way, shape, dtype, k, rejects, device)
        for way, shape, dtype, k, rejects in choices
        if way != (3, 0) or shape[2] <= 32
    ]
    return [*cases, batches_case(device)]


def randn_case(rows: int, columns: int, device: str) -> Case:
    """A range of rows, and chosen ones."""

    def run() -> None:
        first = 2**32 - 3
        found = randn(2**64 - 1, first, rows, columns, scale=0.3, device=device)
        assert torch.equal(found.cpu(), randn(2**64 - 1, first, rows, columns, scale=0.3))
        chosen = torch.tensor([5, -1, 2**40, 0, 5])
        found = randn_rows(7, chosen.to(device), columns)
        assert torch.equal(found.cpu(), randn_rows(7, chosen, columns))

    return Case("randn", run)


def randn_cases(device: str = "cuda") -> list[Case]:
    """Whole counters and parts of one, and several for a thread."""
    sizes = itertools.product((1, 9, 700), (1, 2, 3, 4, 6, 33, 4096))
    return [randn_case(rows, columns, device) for rows, columns in sizes]


def ordered(cases: list[Case]) -> tuple[list[Case], int]:
    """The first of each kind, then the others shuffled; and how many kinds there are."""
    first = list({case.kind: case for case in reversed(cases)}.values())
    others = [case for case in cases if case not in first]
    random.Random(0).shuffle(others)
    return [*first, *others], len(first)


CASES = {"loss": loss_cases, "search": search_cases, "randn": randn_cases}


def main(names: list[str], device: str = "cuda") -> int:
    """Exit status: 0, or 3 where the time was over before one case of each kind had run."""
    started = time.monotonic()
    seconds = float(os.environ.get("NAIGN_CASES_SECONDS", "inf"))
    cases, kinds = ordered([case for name in names or CASES for case in CASES[name](device)])
    for done, case in enumerate(cases):
        if time.monotonic() - started > seconds:
            print(f"{done} of {len(cases)} cases, then the time was over", flush=True)
            return 0 if done >= kinds else 3
        case.run()
    print(f"{len(cases)} cases, all there are", flush=True)
    return 0


if __name__ == "__main__":
    assert "cuda" in _native.DEVICES_WITH_KERNELS, _native.status()
    status = main(sys.argv[1:])
    torch.cuda.synchronize()
    sys.exit(status)
