"""The CUDA search's own sources, run on the CPU by tests/native/emulation, against the float64 oracle bit for bit."""

import ctypes
import math

import pytest
import torch
from emulated_search import (
    ADA,
    AMPERE,
    BLACKWELL,
    COLUMNS,
    EXACT,
    FILTER,
    FILTER_BY_MMA,
    HOPPER,
    NARROW,
    TURING,
    WIDE,
    Limits,
    check,
    device,
    kernels_in,
    normal,
    search,
)
from torch import Tensor

from naign_ext.ops import reference

NOT_SUPPORTED = 801


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return kernels_in(tmp_path_factory.mktemp("kernels"))


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("multiprocessors", [WIDE, NARROW])
@pytest.mark.parametrize("way", [FILTER, FILTER_BY_MMA])
@pytest.mark.parametrize("columns", [33, 300])
def test_filters_whenever_copies_and_products_happen(
    kernels: ctypes.CDLL, columns: int, way: int, multiprocessors: int, late: bool
) -> None:
    data, pool = normal(66, columns, 1), normal(300, columns, 2)
    check(kernels, data, pool, way=way, multiprocessors=multiprocessors, late=late)


@pytest.mark.parametrize("multiprocessors", [WIDE, NARROW])
@pytest.mark.parametrize("way", [FILTER, FILTER_BY_MMA, COLUMNS, EXACT])
def test_the_order_of_threads_and_blocks_does_not_matter(
    kernels: ctypes.CDLL, way: int, multiprocessors: int
) -> None:
    columns = 20 if way == COLUMNS else 140
    data, pool = normal(5, columns, 27), normal(90, columns, 28).round(decimals=1)
    check(kernels, data, pool, way=way, capacity=5, multiprocessors=multiprocessors, backwards=True)


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


def test_several_chunks_and_bounds_from_the_first(kernels: ctypes.CDLL) -> None:
    """Long lists take the pool at once, short ones and several neighbours chunk by chunk."""
    for k, reject, capacity in ((1, None, 0), (1, None, 100), (5, None, 0), (2, 40.0, 0)):
        check(kernels, normal(3, 40, 11), normal(2600, 40, 12), k, reject, way=FILTER, capacity=capacity)


def test_batches_and_small_problems_in_one_launch(kernels: ctypes.CDLL) -> None:
    data, pool = normal(20, 32, 13).view(20, 1, 32), normal(400, 32, 14).view(20, 20, 32)
    check(kernels, data, pool)
    check(kernels, normal(2, 200, 15), normal(900, 200, 16), 128)


def method_on(kernels: ctypes.CDLL, capability: int, *sizes: int) -> int:
    """What a search of so many batches, rows, pool rows and columns is done by."""
    device(kernels, capability, 40)
    return int(kernels.emulated_method(*(ctypes.c_int64(n) for n in sizes)))


@pytest.mark.parametrize("capability", [TURING, AMPERE, ADA, HOPPER, 100, BLACKWELL])
def test_the_way_that_suits_a_device(kernels: ctypes.CDLL, capability: int) -> None:
    long = EXACT if capability < AMPERE else FILTER
    expected = {
        (1, 4096, 262144, 1024): long,
        (1, 100, 10000, 12288): long,
        (1, 10**6, 10**6, 64): long,
        (2, 2, 10**7, 33): long,
        (1, 10**6, 10**6, 32): COLUMNS,
        (1, 10**6, 10**6, 2): COLUMNS,
        (1, 4, 10**7, 784): EXACT,
        (1, 64, 1024, 1024): EXACT,
        (1, 1000, 10000, 70000): EXACT,
        (1000, 8, 2000, 2): EXACT,
    }
    assert {sizes: method_on(kernels, capability, *sizes) for sizes in expected} == expected


def test_a_device_without_tensor_cores_gives_the_answer(kernels: ctypes.CDLL) -> None:
    """Work that later devices filter: the emulation stops where an instruction is missing."""
    data, pool = normal(6, 16384, 19), normal(700, 16384, 20)
    assert method_on(kernels, AMPERE, 1, *data.shape[:1], *pool.shape) == FILTER
    for multiprocessors in (WIDE, NARROW):
        check(kernels, data, pool, 3, capability=TURING, multiprocessors=multiprocessors)
    data, pool = problem("ties", 130, 300, 9)
    check(kernels, data, pool, 2, 5.0, way=COLUMNS, capability=TURING)


def test_a_filter_asked_for_where_there_is_none_is_an_error(kernels: ctypes.CDLL) -> None:
    device(kernels, TURING, WIDE)
    data, pool = normal(5, 40, 21), normal(50, 40, 22)
    for way in (FILTER, FILTER_BY_MMA):
        assert search(kernels, data, pool, 1, None, way, Limits())[0] == NOT_SUPPORTED


@pytest.mark.parametrize("capability", [AMPERE, ADA, BLACKWELL])
def test_devices_without_wgmma_take_the_other_filter(kernels: ctypes.CDLL, capability: int) -> None:
    check(kernels, normal(40, 200, 23), normal(300, 200, 24), way=FILTER, capability=capability)


@pytest.mark.parametrize(
    ("capability", "columns", "packs"),
    [
        (TURING, 16384, False),
        (HOPPER, 16384, True),
        (HOPPER, 32, False),
        (HOPPER, 60001, False),
    ],
)
def test_data_is_packed_only_where_a_filter_may_read_it(
    kernels: ctypes.CDLL, capability: int, columns: int, packs: bool
) -> None:
    """The chunks are large enough for a filter where there is one."""
    rows = 6
    pool_rows, chunk = (700, 690) if columns == 16384 else (60, 40)
    data, pool = normal(rows, columns, 25), normal(pool_rows, columns, 26)
    device(kernels, capability, NARROW)
    kernels.emulated_updates.restype = ctypes.c_int64
    found = reference.empty_neighbours(rows, 2, data.device)
    packed = kernels.emulated_updates(
        ctypes.c_void_p(data.data_ptr()),
        ctypes.c_void_p(pool.data_ptr()),
        *(ctypes.c_int64(n) for n in (rows, pool_rows, columns, 2, chunk)),
        *(ctypes.c_void_p(t.data_ptr()) for t in found),
    )
    assert packed > 0 if packs else packed == 0
    expected = reference.imle_knn(data, pool, 2, None)
    for actual, wanted in zip(reference.finish(data, *found), expected, strict=True):
        assert torch.equal(actual, wanted)
