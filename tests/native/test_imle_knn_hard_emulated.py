"""The CUDA search's filter on hard inputs, with lists so short that every fallback is taken, bit for bit."""

import ctypes
import functools
import math

import pytest
import torch
from emulated_search import AMPERE, FILTER, HOPPER, NARROW, WIDE, device, kernels_in, normal
from emulated_search import check as check_by

from naign_ext.ops import reference

check = functools.partial(check_by, way=FILTER)
# Pool rows of a tile, and the device and multiprocessors whose filter has such tiles.
TILES = {64: (HOPPER, NARROW), 128: (AMPERE, WIDE), 256: (HOPPER, WIDE)}


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return kernels_in(tmp_path_factory.mktemp("kernels"))


@pytest.mark.parametrize("columns", [33, 64, 127, 129, 257, 784])
@pytest.mark.parametrize("tile_columns", [64, 128, 256])
def test_exact_for_sizes_that_are_multiples_of_nothing(
    kernels: ctypes.CDLL, columns: int, tile_columns: int
) -> None:
    capability, multiprocessors = TILES[tile_columns]
    how = {"capability": capability, "multiprocessors": multiprocessors}
    passes = check(kernels, normal(7, columns, 1), normal(701, columns, 2), **how)
    assert passes.overflow == 0
    assert passes.candidates < 7 * 701 / 4


@pytest.mark.parametrize("k", [1, 2, 17, 128])
@pytest.mark.parametrize("capacity", [0, 3, 128])
def test_exact_for_every_k_and_any_length_of_lists(kernels: ctypes.CDLL, k: int, capacity: int) -> None:
    passes = check(kernels, normal(9, 40, 3), normal(900, 40, 4), k, capacity=capacity, chunk_rows=256)
    if capacity == 3:
        assert passes.overflow > 0


def test_a_first_filter_that_keeps_too_much_leads_to_the_second(kernels: ctypes.CDLL) -> None:
    """Differences far below the step of 8 bits, far above that of two digits."""
    data = normal(12, 48, 5)
    pool = data[torch.arange(600) % 12] + 3e-3 * normal(600, 48, 6)
    passes = check(kernels, data, pool, capacity=16, chunk_rows=256)
    assert passes.overflow > 0
    assert passes.exact == 0


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("k", [1, 3])
def test_lists_that_overflow_twice_lead_to_the_exact_comparison(
    kernels: ctypes.CDLL, k: int, parts: int
) -> None:
    data = normal(6, 48, 7)
    pool = data[torch.arange(700) % 6] + 1e-7 * normal(700, 48, 8)
    passes = check(kernels, data, pool, k, capacity=4, parts=parts)
    assert passes.overflow > 0
    assert passes.exact > 0


@pytest.mark.parametrize("k", [1, 4])
def test_a_constant_pool_is_all_ties(kernels: ctypes.CDLL, k: int) -> None:
    data, pool = normal(5, 65, 12), normal(1, 65, 13).expand(600, -1)
    assert (reference.imle_knn(data, pool, k, None)[1] == torch.arange(k)).all()
    passes = check(kernels, data, pool, k, capacity=16)
    # One neighbour: rows equal to the one before them are skipped.
    assert (passes.exact > 0) == (k > 1)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
@pytest.mark.parametrize("capacity", [0, 2])
def test_twins_one_unit_in_the_last_place_apart(kernels: ctypes.CDLL, offset: float, capacity: int) -> None:
    data = normal(40, 40, 19) + offset
    g = torch.Generator().manual_seed(20)
    pool = torch.cat([data] * 8)[torch.randperm(320, generator=g)]
    column = torch.randint(0, 40, (320,), generator=g)
    picked = pool[torch.arange(320), column]
    pool[torch.arange(320), column] = torch.nextafter(picked, picked + torch.randn(320, generator=g))
    check(kernels, data, pool, 2, capacity=capacity)


@pytest.mark.parametrize("exponent", [-44, -38, -30, -20, 20, 30, 37])
def test_scales_from_subnormal_to_huge(kernels: ctypes.CDLL, exponent: int) -> None:
    scale = 10.0**exponent
    data, pool = (normal(20, 35, 23) * scale), (normal(400, 35, 24) * scale)
    check(kernels, data.clamp(-3e38, 3e38), pool.clamp(-3e38, 3e38), 2)


def test_rows_of_wildly_different_scale_are_compared_with_everything(kernels: ctypes.CDLL) -> None:
    g = torch.Generator().manual_seed(25)
    data = normal(30, 33, 26) * torch.rand(30, 1, generator=g).mul(240).sub(120).exp2()
    pool = normal(300, 33, 27) * torch.rand(300, 1, generator=g).mul(240).sub(120).exp2()
    passes = check(kernels, data, pool, 3)
    assert passes.exact > 0
    assert passes.out_of_range > 0
    check(kernels, data, pool, 3, capacity=2)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("capacity", [0, 1])
def test_rows_with_nan_or_inf(kernels: ctypes.CDLL, bad: float, capacity: int) -> None:
    data, pool = normal(20, 50, 31), normal(300, 50, 32)
    data[3, 7] = bad
    pool[::4, 11] = bad
    check(kernels, data, pool, 3, capacity=capacity)
    check(kernels, data, torch.full((100, 50), bad), 1, capacity=capacity)


@pytest.mark.parametrize("quantile", [0.001, 0.1, 0.5, 1.1])
@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("capacity", [0, 5])
def test_reject_below(kernels: ctypes.CDLL, quantile: float, k: int, capacity: int) -> None:
    data, pool = normal(15, 37, 34), normal(400, 37, 35)
    everything = reference.squared_distances(data.repeat_interleave(400, 0), pool.repeat(15, 1))
    threshold = float(everything.quantile(min(1.0, quantile))) * max(1.0, quantile)
    check(kernels, data, pool, k, threshold, capacity=capacity)


def test_halves_and_strides(kernels: ctypes.CDLL) -> None:
    data, pool = normal(20, 130, 36).half(), normal(500, 130, 37).bfloat16()
    check(kernels, data[::2, ::3], pool[::3, ::3], 2)


@pytest.mark.parametrize("seed", range(20))
def test_many_small_problems(kernels: ctypes.CDLL, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=g))

    rows, pool_rows, columns = number(1, 20), number(1, 700), number(1, 150)
    data, pool = normal(rows, columns, seed), normal(pool_rows, columns, seed + 100)
    if seed % 4 == 1:
        data, pool = data.round(), pool.round()
    elif seed % 4 == 2:
        pool = pool[:1] + 10.0 ** -number(0, 8) * pool
    elif seed % 4 == 3:
        data, pool = data + 10.0 ** number(0, 6), pool + 10.0 ** number(0, 6)
    k = number(1, min(pool_rows, 12) + 1)
    for capacity in (0, 1, 7):
        limits = {"capacity": capacity, "chunk_rows": 256 * number(1, 4), "parts": number(1, 3)}
        check(kernels, data, pool, k, float(columns) if seed % 3 == 0 else None, **limits)


def products(
    kernels: ctypes.CDLL, a: torch.Tensor, b: torch.Tensor, digits: int, wgmma: bool
) -> torch.Tensor:
    """The integer sums of a filter kernel for rows of int8 digits."""
    sums = torch.zeros(len(a), len(b), dtype=torch.int64)
    sizes = (ctypes.c_int64(n) for n in (len(a), len(b), a.shape[1] // digits))
    kernels.emulated_products(
        ctypes.c_void_p(a.data_ptr()),
        ctypes.c_void_p(b.data_ptr()),
        *sizes,
        ctypes.c_int(digits),
        ctypes.c_bool(wgmma),
        ctypes.c_void_p(sums.data_ptr()),
    )
    return sums


# The instruction, and multiprocessors: few take wide tiles.
FILTERS = [(True, WIDE), (True, NARROW), (False, WIDE)]


@pytest.mark.parametrize(("wgmma", "multiprocessors"), FILTERS)
@pytest.mark.parametrize("columns", [32, 100, 128, 300])
def test_layouts_descriptors_and_fragments_give_the_matrix_product(
    kernels: ctypes.CDLL, columns: int, wgmma: bool, multiprocessors: int
) -> None:
    device(kernels, HOPPER, multiprocessors)
    g = torch.Generator().manual_seed(40)
    a = torch.randint(-128, 128, (128, columns), generator=g, dtype=torch.int8)
    b = torch.randint(-128, 128, (256, columns), generator=g, dtype=torch.int8)
    expected = a.long() @ b.long().T
    assert torch.equal(products(kernels, a, b, 1, wgmma), expected)


@pytest.mark.parametrize(("wgmma", "multiprocessors"), FILTERS)
@pytest.mark.parametrize("columns", [32, 100, 128, 150])
def test_products_of_two_digits(
    kernels: ctypes.CDLL, columns: int, wgmma: bool, multiprocessors: int
) -> None:
    """So small that a score, a float32, holds the sum."""
    device(kernels, HOPPER, multiprocessors)
    g = torch.Generator().manual_seed(41)
    a, b = (torch.randint(-200, 200, (rows, columns), generator=g) for rows in (130, 300))
    digits = []
    for values in (a, b):
        high = (values + 64) >> 7
        digits.append(torch.cat([high, values - 128 * high], dim=1).to(torch.int8))
    assert torch.equal(products(kernels, *digits, 2, wgmma), a @ b.T)


@pytest.mark.parametrize("kind", ["plain", "one", "shuffled", "holes"])
def test_a_seed_smaller_than_its_chunk(kernels: ctypes.CDLL, kind: str) -> None:
    """Bounds come from the first 2048 rows, which hold some of the near rows, none of them, far ones, or nothing."""
    data, pool = normal(5, 40, 50), normal(4000, 40, 51)
    if kind == "one":
        pool[:2048] += 100
    elif kind == "shuffled":
        pool[2048:] = 0.5 * data[torch.arange(1952) % 5] + 0.5 * pool[2048:]
    elif kind == "holes":
        pool[:2048, 3] = math.nan
    passes = check(kernels, data, pool)
    assert (passes.overflow > 0) == (kind == "one")
