"""The CUDA search, emulated on the CPU with the kernels' own arithmetic, limits and layouts."""

import math

import pytest
import torch
from torch import Tensor

from naign_ext import Neighbours, _native
from naign_ext.ops import reference

pytestmark = pytest.mark.skipif(_native.extension is None, reason="the emulation is part of the extension")

PASSES = ("candidates", "overflow", "exact", "wild")


def normal(rows: int, columns: int, seed: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def emulate(
    data: Tensor,
    pool: Tensor,
    k: int = 1,
    reject_below: float | None = None,
    *,
    capacity: int = 0,
    chunk_rows: int = 0,
    parts: int = 0,
    tile_columns: int = 256,
) -> tuple[Neighbours, dict[str, int]]:
    distances, indices, passes = torch.ops.naign.imle_knn_emulated(
        data, pool, k, reject_below, capacity, chunk_rows, parts, tile_columns
    )
    found = Neighbours(*reference.finish(data, distances, indices))
    return found, dict(zip(PASSES, passes.tolist(), strict=True))


def check(
    data: Tensor, pool: Tensor, k: int = 1, reject_below: float | None = None, **limits: int
) -> dict[str, int]:
    found, passes = emulate(data, pool, k, reject_below, **limits)
    expected = Neighbours(*reference.imle_knn(data, pool, k, reject_below))
    assert torch.equal(found.indices, expected.indices)
    torch.testing.assert_close(found.distances, expected.distances, rtol=0, atol=0, equal_nan=True)
    return passes


@pytest.mark.parametrize("columns", [33, 64, 127, 129, 257, 784])
@pytest.mark.parametrize("tile_columns", [64, 128, 256])
def test_exact_for_sizes_that_are_multiples_of_nothing(columns: int, tile_columns: int) -> None:
    passes = check(normal(7, columns, 1), normal(701, columns, 2), tile_columns=tile_columns)
    assert passes["overflow"] == 0
    assert passes["candidates"] < 7 * 701 / 4


@pytest.mark.parametrize("k", [1, 2, 17, 128])
@pytest.mark.parametrize("capacity", [0, 3, 128])
def test_exact_for_every_k_and_any_length_of_lists(k: int, capacity: int) -> None:
    passes = check(normal(9, 40, 3), normal(900, 40, 4), k, capacity=capacity, chunk_rows=256)
    if capacity == 3:
        assert passes["overflow"] > 0


def test_a_first_filter_that_keeps_too_much_leads_to_the_second() -> None:
    """Differences far below the step of 8 bits, far above that of two digits."""
    data = normal(12, 48, 5)
    pool = data[torch.arange(600) % 12] + 3e-3 * normal(600, 48, 6)
    passes = check(data, pool, capacity=16, chunk_rows=256)
    assert passes["overflow"] > 0
    assert passes["exact"] == 0


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("k", [1, 3])
def test_lists_that_overflow_twice_lead_to_the_exact_comparison(k: int, parts: int) -> None:
    data = normal(6, 48, 7)
    pool = data[torch.arange(700) % 6] + 1e-7 * normal(700, 48, 8)
    passes = check(data, pool, k, capacity=4, parts=parts)
    assert passes["overflow"] > 0
    assert passes["exact"] > 0


@pytest.mark.parametrize("k", [1, 4])
def test_a_constant_pool_is_all_ties(k: int) -> None:
    data, pool = normal(5, 65, 12), normal(1, 65, 13).expand(600, -1)
    found, passes = emulate(data, pool, k, capacity=16)
    assert (found.indices == torch.arange(k)).all()
    # One neighbour: rows equal to the one before them are skipped.
    assert (passes["exact"] > 0) == (k > 1)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
@pytest.mark.parametrize("capacity", [0, 2])
def test_twins_one_unit_in_the_last_place_apart(offset: float, capacity: int) -> None:
    data = normal(40, 40, 19) + offset
    g = torch.Generator().manual_seed(20)
    pool = torch.cat([data] * 8)[torch.randperm(320, generator=g)]
    column = torch.randint(0, 40, (320,), generator=g)
    picked = pool[torch.arange(320), column]
    pool[torch.arange(320), column] = torch.nextafter(picked, picked + torch.randn(320, generator=g))
    check(data, pool, 2, capacity=capacity)


@pytest.mark.parametrize("exponent", [-44, -38, -30, -20, 20, 30, 37])
def test_scales_from_subnormal_to_huge(exponent: int) -> None:
    scale = 10.0**exponent
    data, pool = (normal(20, 35, 23) * scale), (normal(400, 35, 24) * scale)
    check(data.clamp(-3e38, 3e38), pool.clamp(-3e38, 3e38), 2)


def test_rows_of_wildly_different_scale_are_compared_with_everything() -> None:
    g = torch.Generator().manual_seed(25)
    data = normal(30, 33, 26) * torch.rand(30, 1, generator=g).mul(240).sub(120).exp2()
    pool = normal(300, 33, 27) * torch.rand(300, 1, generator=g).mul(240).sub(120).exp2()
    passes = check(data, pool, 3)
    assert passes["exact"] > 0
    assert passes["wild"] > 0
    check(data, pool, 3, capacity=2)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("capacity", [0, 1])
def test_rows_with_nan_or_inf(bad: float, capacity: int) -> None:
    data, pool = normal(20, 50, 31), normal(300, 50, 32)
    data[3, 7] = bad
    pool[::4, 11] = bad
    check(data, pool, 3, capacity=capacity)
    check(data, torch.full((100, 50), bad), 1, capacity=capacity)


@pytest.mark.parametrize("quantile", [0.001, 0.1, 0.5, 1.1])
@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("capacity", [0, 5])
def test_reject_below(quantile: float, k: int, capacity: int) -> None:
    data, pool = normal(15, 37, 34), normal(400, 37, 35)
    everything = reference.squared_distances(data.repeat_interleave(400, 0), pool.repeat(15, 1))
    threshold = float(everything.quantile(min(1.0, quantile))) * max(1.0, quantile)
    check(data, pool, k, threshold, capacity=capacity)


def test_halves_and_strides() -> None:
    data, pool = normal(20, 130, 36).half(), normal(500, 130, 37).bfloat16()
    check(data[::2, ::3], pool[::3, ::3], 2)


@pytest.mark.parametrize("seed", range(20))
def test_many_small_problems(seed: int) -> None:
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
        check(data, pool, k, float(columns) if seed % 3 == 0 else None, **limits)


@pytest.mark.parametrize("wgmma", [True, False])
@pytest.mark.parametrize("columns", [32, 100, 128, 300])
def test_layouts_descriptors_and_fragments_give_the_matrix_product(columns: int, wgmma: bool) -> None:
    g = torch.Generator().manual_seed(40)
    a = torch.randint(-128, 128, (128, columns), generator=g, dtype=torch.int8)
    b = torch.randint(-128, 128, (256, columns), generator=g, dtype=torch.int8)
    expected = a.long() @ b.long().T
    assert torch.equal(torch.ops.naign.imle_knn_emulated_products(a, b, wgmma).long(), expected)


@pytest.mark.parametrize(("row_tiles", "column_tiles"), [(1, 1), (16, 5), (17, 3), (5, 40), (33, 2)])
def test_every_tile_is_taken_once(row_tiles: int, column_tiles: int) -> None:
    order = torch.ops.naign.imle_knn_emulated_tiles(torch.empty(0), row_tiles, column_tiles)
    assert len(order) == row_tiles * column_tiles
    assert len({tuple(pair) for pair in order.tolist()}) == row_tiles * column_tiles
    assert order.amin() == 0
    assert order.amax(dim=0).tolist() == [row_tiles - 1, column_tiles - 1]


SIZES = [
    (1, 1, 33),
    (100, 10000, 12288),
    (4096, 262144, 1024),
    (60000, 100000, 784),
    (10**6, 10**6, 64),
    (300, 10**8, 60000),
]


@pytest.mark.parametrize(("rows", "pool_rows", "columns"), SIZES)
@pytest.mark.parametrize("k", [1, 128])
def test_memory_is_bounded_whatever_the_size(rows: int, pool_rows: int, columns: int, k: int) -> None:
    limits, chunks = torch.ops.naign.imle_knn_emulated_plan(torch.empty(0), rows, pool_rows, columns, k)
    group_rows, capacity, chunk_rows, parts, seed_rows, growth, first_rows = limits.tolist()
    row_bytes = -(-columns // 128) * 128
    pool_bytes = chunk_rows * (row_bytes * (1 if parts == 2 else 2) + 32)
    assert group_rows * (2 * row_bytes + 8 * capacity + 64) + pool_bytes <= 256 << 20
    assert group_rows % 128 == 0
    assert chunk_rows % 256 == 0
    lengths = [n for n in chunks.tolist() if n > 0]
    assert max(lengths) <= chunk_rows
    seen = 0
    for length in lengths:
        assert length <= max(seed_rows, growth * seen) if seen else length <= first_rows
        seen += length
    if len(lengths) < len(chunks):
        assert seen == pool_rows


@pytest.mark.parametrize(
    ("rows", "pool_rows", "columns", "k", "first"),
    [
        (100, 10000, 12288, 1, 10000),
        (2048, 32768, 64, 1, 32768),
        (100, 40000, 12288, 1, 2048),
        (2049, 10000, 64, 1, 2048),
        (100, 10000, 12288, 2, 2048),
    ],
)
def test_a_small_pool_and_few_rows_are_one_chunk(
    rows: int, pool_rows: int, columns: int, k: int, first: int
) -> None:
    chunks = torch.ops.naign.imle_knn_emulated_plan(torch.empty(0), rows, pool_rows, columns, k)[1]
    assert chunks[0] == first


@pytest.mark.parametrize("kind", ["plain", "one", "shuffled", "holes"])
def test_a_seed_smaller_than_its_chunk(kind: str) -> None:
    """Bounds come from the first 2048 rows, which hold some of the near rows, none of them, far ones, or nothing."""
    data, pool = normal(5, 40, 50), normal(4000, 40, 51)
    if kind == "one":
        pool[:2048] += 100
    elif kind == "shuffled":
        pool[2048:] = 0.5 * data[torch.arange(1952) % 5] + 0.5 * pool[2048:]
    elif kind == "holes":
        pool[:2048, 3] = math.nan
    passes = check(data, pool)
    assert (passes["overflow"] > 0) == (kind == "one")
