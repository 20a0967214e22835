"""The CUDA search's own sources, run on the CPU by tests/emulation, against the float64 oracle bit for bit."""

import ctypes
import math

import pytest
import torch
from emulated import build
from torch import Tensor

from naign_ext import Neighbours
from naign_ext.ops import reference

FILTER, FILTER_BY_MMA, COLUMNS, EXACT = 1, 2, 3, 4
# One multiprocessor takes wide tiles, many take narrow ones.
WIDE, NARROW = 1, 64


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return build(tmp_path_factory.mktemp("kernels"), "imle_knn")


def run(
    kernels: ctypes.CDLL,
    data: Tensor,
    pool: Tensor,
    k: int,
    reject_below: float | None,
    way: int,
    capacity: int,
    multiprocessors: int,
    late: bool,
) -> Neighbours:
    batches = data.shape[0] if data.dim() == 3 else 1
    shape = (*data.shape[:-1], k)
    distances, indices = torch.full(shape, 7.0), torch.full(shape, 7)
    status = kernels.emulated_search(
        ctypes.c_void_p(data.data_ptr()),
        ctypes.c_void_p(pool.data_ptr()),
        *(ctypes.c_int64(n) for n in (batches, data.shape[-2], pool.shape[-2], data.shape[-1], k)),
        ctypes.c_double(-math.inf if reject_below is None else reject_below),
        ctypes.c_int(way),
        ctypes.c_int64(capacity),
        ctypes.c_int(multiprocessors),
        ctypes.c_int(late),
        ctypes.c_void_p(distances.data_ptr()),
        ctypes.c_void_p(indices.data_ptr()),
    )
    assert status == 0
    return Neighbours(distances, indices)


def check(
    kernels: ctypes.CDLL,
    data: Tensor,
    pool: Tensor,
    k: int = 1,
    reject_below: float | None = None,
    *,
    way: int = 0,
    capacity: int = 0,
    multiprocessors: int = WIDE,
    late: bool = False,
) -> None:
    found = run(kernels, data, pool, k, reject_below, way, capacity, multiprocessors, late)
    expected = Neighbours(*reference.imle_knn(data, pool, k, reject_below))
    assert torch.equal(found.indices, expected.indices)
    torch.testing.assert_close(found.distances, expected.distances, rtol=0, atol=0, equal_nan=True)


def normal(rows: int, columns: int, seed: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("multiprocessors", [WIDE, NARROW])
@pytest.mark.parametrize("way", [FILTER, FILTER_BY_MMA])
@pytest.mark.parametrize("columns", [33, 300])
def test_filters_whenever_copies_and_products_happen(
    kernels: ctypes.CDLL, columns: int, way: int, multiprocessors: int, late: bool
) -> None:
    data, pool = normal(66, columns, 1), normal(300, columns, 2)
    check(kernels, data, pool, way=way, multiprocessors=multiprocessors, late=late)


def problem(kind: str, rows: int, pool_rows: int, columns: int) -> tuple[Tensor, Tensor]:
    data, pool = normal(rows, columns, 3), normal(pool_rows, columns, 4)
    if kind == "ties":
        data, pool = data.round(), pool.round()
    elif kind == "collapsed":
        pool = 40 + pool[:1] + 1e-5 * pool
    elif kind == "twins":
        pool = data[torch.arange(pool_rows) % rows]
        pool = torch.nextafter(pool, pool + normal(pool_rows, columns, 5))
    elif kind == "scales":
        g = torch.Generator().manual_seed(6)
        data = data * torch.rand(rows, 1, generator=g).mul(240).sub(120).exp2()
        pool = pool * torch.rand(pool_rows, 1, generator=g).mul(240).sub(120).exp2()
    elif kind == "holes":
        data[rows // 2, 0], pool[::3, columns - 1], pool[-1] = math.inf, math.nan, -math.inf
    return data, pool


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "ties", "collapsed", "twins", "scales", "holes"])
@pytest.mark.parametrize("way", [FILTER, FILTER_BY_MMA, COLUMNS, EXACT])
def test_every_way_gives_the_answer(kernels: ctypes.CDLL, way: int, kind: str) -> None:
    for columns, k, capacity, reject in [(40, 1, 3, None), (31, 2, 2, 31.0), (32, 17, 0, None)]:
        if way == COLUMNS and columns > 32:
            continue
        data, pool = problem(kind, 5, 300, columns)
        check(kernels, data, pool, k, reject, way=way, capacity=capacity, late=True)


@pytest.mark.parametrize("columns", [1, 2, 5, 16])
def test_few_columns(kernels: ctypes.CDLL, columns: int) -> None:
    for k in (1, 7):
        data, pool = normal(130, columns, 7), normal(1500, columns, 8).round(decimals=1)
        check(kernels, data, pool, k, way=COLUMNS)


@pytest.mark.parametrize("columns", [600, 1100, 2100, 4300])
def test_long_rows_are_packed_by_larger_teams(kernels: ctypes.CDLL, columns: int) -> None:
    check(kernels, normal(3, columns, 9), normal(70, columns, 10), way=FILTER, multiprocessors=NARROW)


@pytest.mark.parametrize("columns", [33, 600, 1030, 2100, 4300])
def test_rows_equal_to_the_one_before_take_no_part(kernels: ctypes.CDLL, columns: int) -> None:
    pool = normal(7, columns, 16)[[0, 0, 0, 1, 2, 2, 1, 1, 3, 3, 4, 4, 5, 5, 6, 6]]
    pool[9, -1] += 1
    pool[10, 4] = 0.0
    pool[11, 4] = -0.0
    pool[12:14, 5] = math.nan
    pool[15, columns // 2] = 7
    taking_part = torch.zeros(len(pool), dtype=torch.bool)
    kernels.emulated_taking_part(
        ctypes.c_void_p(pool.data_ptr()),
        ctypes.c_int64(len(pool)),
        ctypes.c_int64(columns),
        ctypes.c_void_p(taking_part.data_ptr()),
    )
    assert taking_part.tolist() == [bool(b) for b in (1, 0, 0, 1, 1, 0, 1, 0, 1, 1, 1, 0, 0, 0, 1, 1)]


def test_runs_of_equal_rows(kernels: ctypes.CDLL) -> None:
    """Their first row is the answer, also where lists are too short for them."""
    data, pool = normal(6, 40, 17), normal(8, 40, 18)
    check(kernels, data, pool.repeat_interleave(33, 0), way=FILTER, capacity=2)
    check(kernels, data, pool[:1].repeat(300, 1), way=FILTER, capacity=2)


@pytest.mark.slow
def test_several_chunks_and_bounds_from_the_first(kernels: ctypes.CDLL) -> None:
    for k, reject in ((1, None), (5, None), (2, 40.0)):
        check(kernels, normal(3, 40, 11), normal(2600, 40, 12), k, reject, way=FILTER)


@pytest.mark.slow
def test_batches_and_small_problems_in_one_launch(kernels: ctypes.CDLL) -> None:
    data, pool = normal(20, 32, 13).view(20, 1, 32), normal(400, 32, 14).view(20, 20, 32)
    check(kernels, data, pool)
    check(kernels, normal(2, 200, 15), normal(900, 200, 16), 128)
