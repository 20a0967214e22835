"""Many small random problems, each answer compared bit for bit with the torch reference.

Sizes are multiples of nothing; values are drawn to hurt: ties, twins one unit in the last place apart, large
offsets, tiny and huge scales, collapsed pools, rows with NaN or Inf, half precision, rejected pairs. Every way to
search takes its turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from naign_bench.harness import environment
from torch import Tensor

from naign_ext import ImleSearch, Neighbours, _native, imle_knn
from naign_ext.json_files import write_json
from naign_ext.ops import reference

METHODS = ("", "packed", "tree", "differences", "lane_sums", "lanes")
Between = Callable[[int, int], int]
_DTYPES = (torch.float32, torch.float32, torch.float32, torch.float16, torch.bfloat16)
_BATCH = 64


@dataclass(frozen=True)
class Outcome:
    """Problems tried, those with a wrong answer, what drew the first of these, and the seconds it took."""

    cases: int
    mismatches: int
    first: str | None
    seconds: float


def run_exactness(
    cases: int,
    *,
    seed: int = 0,
    json_path: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> Outcome:
    """Search `cases` random problems on the CPU and compare every index and every distance with the reference.

    The problems of one call of the operator share shape and kind. ValueError if cases < 1 or the extension is
    missing: the reference would be compared with itself.
    """
    if cases < 1:
        raise ValueError(f"cases: expected at least 1, got {cases}")
    if _native.extension is None:
        raise ValueError(f"extension: expected it to be there, but it is {_native.missing_because}")
    start = time.perf_counter()
    tried = wrong = 0
    first = None
    for batch in _batches(seed):
        if tried >= cases:
            break
        bad = _wrong_answers(batch)
        first = first or (batch.describe() if bad else None)
        tried, wrong = tried + len(batch.data), wrong + bad
        if progress is not None and tried // 50_000 > (tried - len(batch.data)) // 50_000:
            progress(f"{tried} problems, {wrong} wrong, {time.perf_counter() - start:.0f} s")
    outcome = Outcome(tried, wrong, first, time.perf_counter() - start)
    if json_path is not None:
        header = environment("cpu", torch.get_num_threads(), "exactness")
        write_json(json_path, {"header": header, "seed": seed, **asdict(outcome)})
    return outcome


@dataclass(frozen=True)
class _Batch:
    data: Tensor
    pool: Tensor
    k: int
    reject_below: float | None
    method: str
    kind: str
    seed: int

    def describe(self) -> str:
        shape = f"{tuple(self.data.shape)} {self.data.dtype} x {tuple(self.pool.shape)} {self.pool.dtype}"
        return f"{shape} k={self.k} reject_below={self.reject_below} {self.method!r} {self.kind} {self.seed}"


def _batches(seed: int) -> Iterator[_Batch]:
    """Batches of problems without end, each from a seed of its own."""
    number = 0
    while True:
        yield _draw(seed * 1_000_003 + number)
        number += 1


def _draw(seed: int) -> _Batch:
    generator = torch.Generator().manual_seed(seed)

    def between(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    n, m, d = between(1, 40), between(1, 90), between(1, 70)
    if between(0, 9) == 0:
        n, m, d = between(1, 5), between(1, 20), between(100, 1500)
    shape = (_BATCH if n * m * d < 100_000 else 8, n, m, d)
    kind = KINDS[between(0, len(KINDS) - 1)]
    data, pool = _values(kind, shape, generator, between)
    data, pool = data.to(_DTYPES[between(0, 4)]), pool.to(_DTYPES[between(0, 4)])
    if between(0, 3) == 0:
        data, pool = data.mT.contiguous().mT, pool.mT.contiguous().mT
    reject = None
    if between(0, 3) == 0:
        distances = reference.imle_knn(data[0], pool[0], 1, None)[0]
        reject = float(distances.double().nan_to_num(0, 1, 1).median()) * between(0, 20) / 10
    k = 1 if between(0, 1) else between(1, min(m, 9))
    return _Batch(data, pool, k, reject, METHODS[between(0, len(METHODS) - 1)], kind, seed)


def _values(
    kind: str, shape: tuple[int, int, int, int], generator: torch.Generator, between: Between
) -> tuple[Tensor, Tensor]:
    batch, n, m, d = shape
    data = torch.randn(batch, n, d, generator=generator)
    pool = torch.randn(batch, m, d, generator=generator)
    return _KINDS[kind](data, pool, between)


def _scaled(data: Tensor, pool: Tensor, between: Between) -> tuple[Tensor, Tensor]:
    return data * 2.0 ** between(-148, 125), pool * 2.0 ** between(-148, 125)


def _offset(data: Tensor, pool: Tensor, between: Between) -> tuple[Tensor, Tensor]:
    shift = float(between(-(10**5), 10**5))
    return data + shift, pool + shift


def _twins(data: Tensor, pool: Tensor, between: Between) -> tuple[Tensor, Tensor]:
    near = data[:, torch.arange(pool.shape[1]) % data.shape[1]]
    return data, torch.nextafter(near, near + (2 * between(0, 1) - 1))


def _rows_of_all_sizes(data: Tensor, pool: Tensor, between: Between) -> tuple[Tensor, Tensor]:
    exponents = torch.arange(pool.shape[1]).roll(between(0, 90)) % 81 - 40
    return data, pool * 2.0 ** exponents[:, None]


def _not_finite(data: Tensor, pool: Tensor, between: Between) -> tuple[Tensor, Tensor]:
    columns = data.shape[2] - 1
    data[:, between(0, data.shape[1] - 1), between(0, columns)] = torch.inf
    for value in (torch.nan, -torch.inf):
        pool[:, between(0, pool.shape[1] - 1), between(0, columns)] = value
    return data, pool


def _data_in_pool(data: Tensor, pool: Tensor, between: Between) -> tuple[Tensor, Tensor]:
    shared = min(data.shape[1], pool.shape[1])
    pool[:, :shared] = data[:, :shared].roll(between(0, shared), 1)
    return data, pool


_KINDS: dict[str, Callable[[Tensor, Tensor, Between], tuple[Tensor, Tensor]]] = {
    "normal": lambda data, pool, _: (data, pool),
    "integers": lambda data, pool, _: (data.round(), pool.round()),
    "offset": _offset,
    "scaled": _scaled,
    "collapsed": lambda data, pool, between: (data, pool[:, :1] + 10.0 ** -between(3, 9) * pool),
    "constant": lambda data, pool, _: (data, pool[:, :1].expand_as(pool).clone()),
    "twins": _twins,
    "rows of all sizes": _rows_of_all_sizes,
    "not finite": _not_finite,
    "heavy tails": lambda data, pool, _: (data / pool[:, :1].square(), pool / pool.square()),
    "sparse": lambda data, pool, _: (data * (data > 1), pool * (pool > 1)),
    "data in pool": _data_in_pool,
}
KINDS = tuple(_KINDS)


def _wrong_answers(batch: _Batch) -> int:
    """How many problems of the batch got another answer than the reference's, from either interface."""
    assert _native.extension is not None
    expected = Neighbours(*reference.imle_knn(batch.data, batch.pool, batch.k, batch.reject_below))
    _native.extension.force_method(batch.method)
    try:
        found = imle_knn(batch.data, batch.pool, batch.k, reject_below=batch.reject_below)
        streamed = _streamed(batch)
    finally:
        _native.extension.force_method("")
    wrong = _differ(found, expected)
    wrong[0] |= _differ(streamed, Neighbours(expected.distances[0], expected.indices[0])).any()
    return int(wrong.sum())


def _streamed(batch: _Batch) -> Neighbours:
    """The batch's first problem by ImleSearch, the pool in three pieces."""
    search = ImleSearch(batch.data[0], batch.k, reject_below=batch.reject_below)
    for part in batch.pool[0].tensor_split(3):
        search.update(part)
    return search.neighbours()


def _differ(found: Neighbours, expected: Neighbours) -> Tensor:
    """True for each problem of the leading dimension that differs in an index or in a bit of a distance."""
    distances = found.distances.view(torch.int32) != expected.distances.view(torch.int32)
    nans = found.distances.isnan() & expected.distances.isnan()
    return ((distances & ~nans) | (found.indices != expected.indices)).flatten(1).any(1)
