"""The CUDA search against the float64 oracle, bit for bit, in every way that it can take."""

import math

import pytest
import torch
from torch import Tensor

from naign_ext import ImleSearch, Neighbours, imle_knn
from naign_ext.ops import reference

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("built_with_cuda")]

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# Rows that the filter takes (work above 2^26 numbers), one narrow tile and many wide ones.
FILTERED = [(130, 9000, 100), (1111, 3333, 257), (260, 70000, 40), (3000, 9000, 64)]


def normal(rows: int, columns: int, seed: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def assert_same(found: Neighbours, expected: Neighbours) -> None:
    assert torch.equal(found.indices.cpu(), expected.indices)
    torch.testing.assert_close(found.distances.cpu(), expected.distances, rtol=0, atol=0, equal_nan=True)


def check(data: Tensor, pool: Tensor, k: int = 1, reject_below: float | None = None) -> None:
    expected = imle_knn(data, pool, k, reject_below=reject_below)
    assert_same(imle_knn(data.cuda(), pool.cuda(), k, reject_below=reject_below), expected)


FILTER, FILTER_BY_MMA, COLUMNS, EXACT = 1, 2, 3, 4
WAYS = {FILTER: "filter", FILTER_BY_MMA: "mma", COLUMNS: "columns", EXACT: "exact"}


def problem(kind: str, rows: int, pool_rows: int, columns: int) -> tuple[Tensor, Tensor]:
    data, pool = normal(rows, columns, 50), normal(pool_rows, columns, 51)
    if kind == "ties":
        data, pool = data.round(), pool.round()
    elif kind == "collapsed":
        pool = 40 + pool[:1] + 1e-5 * pool
    elif kind == "twins":
        pool = data[torch.arange(pool_rows) % rows]
        pool = torch.nextafter(pool, pool + normal(pool_rows, columns, 52))
    elif kind == "scales":
        g = torch.Generator().manual_seed(53)
        data = data * torch.rand(rows, 1, generator=g).mul(240).sub(120).exp2()
        pool = pool * torch.rand(pool_rows, 1, generator=g).mul(240).sub(120).exp2()
    elif kind == "holes":
        data[rows // 2, 0], pool[::3, columns - 1], pool[-1] = math.inf, math.nan, -math.inf
    return data, pool


@pytest.mark.parametrize("way", WAYS, ids=WAYS.get)
@pytest.mark.parametrize("kind", ["plain", "ties", "collapsed", "twins", "scales", "holes"])
@pytest.mark.parametrize("columns", [1, 31, 32, 33, 100, 129, 300])
def test_every_way_gives_the_answer(way: int, kind: str, columns: int) -> None:
    if way == COLUMNS and columns > 32:
        return
    if way in (FILTER, FILTER_BY_MMA) and torch.cuda.get_device_capability() < (8, 0):
        with pytest.raises(RuntimeError, match="cudaErrorNotSupported"):
            torch.ops.naign._test_imle_knn_by(*(normal(2, columns, 1).cuda() for _ in "xy"), 1, None, way, 0)
        return
    for rows, pool_rows, k, capacity in [(1, 1, 1, 0), (129, 257, 1, 3), (70, 2500, 2, 5), (40, 700, 128, 0)]:
        data, pool = problem(kind, rows, pool_rows, columns)
        for reject in (None, float(columns)):
            expected = imle_knn(data, pool, k, reject_below=reject)
            found = torch.ops.naign._test_imle_knn_by(data.cuda(), pool.cuda(), k, reject, way, capacity)
            assert_same(Neighbours(*found), expected)


@pytest.mark.parametrize("columns", [1, 2, 3, 5, 8, 17, 31, 32, 33, 64, 65, 127, 128, 129, 784, 1030])
@pytest.mark.parametrize(("rows", "pool_rows"), [(1, 300), (33, 57), (70, 2057)])
def test_small_problems(rows: int, pool_rows: int, columns: int) -> None:
    for k in (1, 3):
        check(normal(rows, columns, 1), normal(pool_rows, columns, 2), k)


@pytest.mark.parametrize(("rows", "pool_rows", "columns"), FILTERED)
@pytest.mark.parametrize("k", [1, 2, 10, 128])
def test_filtered_problems(rows: int, pool_rows: int, columns: int, k: int) -> None:
    check(normal(rows, columns, 3), normal(pool_rows, columns, 4), k)


@pytest.mark.parametrize("columns", [1, 2, 4, 7, 16, 25, 32])
@pytest.mark.parametrize(("rows", "k"), [(3000, 1), (40000, 3), (500, 20)])
def test_few_columns(rows: int, k: int, columns: int) -> None:
    pool_rows = (1 << 27) // (rows * columns)
    check(normal(rows, columns, 5), normal(min(pool_rows, 60000), columns, 6).round(decimals=2), k)


@pytest.mark.parametrize(("k", "columns"), [(1, 3), (16, 40), (128, 70)])
def test_segments_of_a_row_that_improve_it_at_the_same_time(k: int, columns: int) -> None:
    """Pool rows come ever nearer, so that every segment of the exact comparison has something to write."""
    data, noise = normal(3, columns, 60), normal(100_000, columns, 61)
    pool = data[:1] + torch.linspace(2, 1, len(noise))[:, None] * noise.sign()
    expected = imle_knn(data, pool, k)
    for _ in range(10):
        found = torch.ops.naign._test_imle_knn_by(data.cuda(), pool.cuda(), k, None, EXACT, 0)
        assert_same(Neighbours(*found), expected)


@pytest.mark.parametrize("columns", [784, 1024, 3000, 12288])
def test_long_rows(columns: int) -> None:
    check(normal(150, columns, 7), normal(5000, columns, 8))


@pytest.mark.parametrize("data_dtype", DTYPES)
@pytest.mark.parametrize("pool_dtype", DTYPES)
def test_mixed_dtypes_and_strides(data_dtype: torch.dtype, pool_dtype: torch.dtype) -> None:
    data, pool = normal(600, 300, 9).to(data_dtype), normal(9000, 300, 10).to(pool_dtype)
    expected = imle_knn(data[::2, ::3], pool[::3, ::3], 2)
    assert_same(imle_knn(data.cuda()[::2, ::3], pool.cuda()[::3, ::3], 2), expected)
    check(data, pool, 2)
    check(data[:, 1:], pool[:, 1:])
    transposed = pool.cuda().T.contiguous().T
    assert_same(imle_knn(data.cuda(), transposed, 2), imle_knn(data, pool, 2))


@pytest.mark.parametrize("spread", [0.0, 1e-7, 1e-5, 3e-3])
@pytest.mark.parametrize("k", [1, 4])
def test_pools_that_fill_the_lists(spread: float, k: int) -> None:
    """Few distinct rows, many times over: the second filter, then the exact comparison."""
    data = normal(400, 130, 11)
    pool = data[torch.arange(9000) % 5] + spread * normal(9000, 130, 12)
    check(data, pool, k)
    check(data, 40 + pool, k)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
def test_twins_one_unit_in_the_last_place_apart(offset: float) -> None:
    data = normal(1500, 40, 13) + offset
    g = torch.Generator().manual_seed(14)
    pool = torch.cat([data, data])[torch.randperm(3000, generator=g)]
    column = torch.randint(0, 40, (3000,), generator=g)
    picked = pool[torch.arange(3000), column]
    pool[torch.arange(3000), column] = torch.nextafter(picked, picked + torch.randn(3000, generator=g))
    check(data, pool, 2)


@pytest.mark.parametrize("exponent", [-44, -38, -30, -20, 20, 30, 37])
def test_scales_from_subnormal_to_huge(exponent: int) -> None:
    scale = 10.0**exponent
    data, pool = normal(600, 36, 15) * scale, normal(4000, 36, 16) * scale
    check(data.clamp(-3e38, 3e38), pool.clamp(-3e38, 3e38), 2)


def test_rows_of_wildly_different_scale() -> None:
    g = torch.Generator().manual_seed(17)
    data = normal(700, 40, 18) * torch.rand(700, 1, generator=g).mul(240).sub(120).exp2()
    pool = normal(3000, 40, 19) * torch.rand(3000, 1, generator=g).mul(240).sub(120).exp2()
    check(data, pool, 3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("columns", [3, 50])
def test_rows_with_nan_or_inf(bad: float, columns: int) -> None:
    data, pool = normal(2000, columns, 20), normal(20000, columns, 21)
    data[3, 1] = bad
    pool[::4, 2] = bad
    check(data, pool)
    check(data[:40], pool[:400], 3)
    nothing = imle_knn(data.cuda(), torch.full_like(pool, bad).cuda())
    assert (nothing.indices == -1).all()
    assert nothing.distances[0].isinf().all()
    assert nothing.distances[3].isnan().all()


@pytest.mark.parametrize("quantile", [0.001, 0.1, 0.5, 1.1])
@pytest.mark.parametrize("k", [1, 4])
def test_reject_below(quantile: float, k: int) -> None:
    data, pool = normal(900, 37, 22), normal(4000, 37, 23)
    sample = reference.squared_distances(data, pool[:900])
    threshold = float(sample.quantile(min(1.0, quantile))) * max(1.0, quantile)
    check(data, pool, k, threshold)
    check(data[:20], pool[:300], k, threshold)


@pytest.mark.parametrize(("batches", "rows", "pool_rows", "columns"), [(128, 1, 20, 32), (3, 400, 5000, 40)])
def test_batches(batches: int, rows: int, pool_rows: int, columns: int) -> None:
    data = normal(batches * rows, columns, 24).view(batches, rows, columns)
    pool = normal(batches * pool_rows, columns, 25).view(batches, pool_rows, columns)
    check(data, pool, 2)
    swapped = data.cuda().transpose(0, 1).contiguous().transpose(0, 1)
    assert_same(imle_knn(swapped, pool.cuda(), 2), imle_knn(data, pool, 2))


def test_more_neighbours_than_a_block_keeps() -> None:
    check(normal(30, 40, 26), normal(700, 40, 27), 200)


@pytest.mark.parametrize("shape", [(0, 7), (2, 0, 7), (0, 4, 7)])
def test_empty_data(shape: tuple[int, ...]) -> None:
    pool = torch.randn(*shape[:-2], 9, 7) if len(shape) == 3 else torch.randn(9, 7)
    assert imle_knn(torch.empty(shape).cuda(), pool.cuda(), 2).distances.shape == (*shape[:-1], 2)


@pytest.mark.parametrize("columns", [2, 40, 200])
@pytest.mark.parametrize(("k", "reject_below"), [(1, None), (5, None), (3, 30.0)])
def test_streaming(columns: int, k: int, reject_below: float | None) -> None:
    data, pool = normal(900, columns, 28), normal(20000, columns, 29)
    search = ImleSearch(data.cuda(), k, reject_below=reject_below)
    for shift in (0.0, 1000.0):
        expected = imle_knn(data, pool + shift, k, reject_below=reject_below)
        for chunk in (pool + shift).cuda().split(7001):
            search.update(chunk)
        assert_same(search.neighbours(), expected)
        search.reset()


def test_nothing_waits_and_a_graph_replays_the_search() -> None:
    data, pool = normal(500, 100, 30).cuda(), normal(9000, 100, 31).cuda()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        imle_knn(data, pool)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        found = imle_knn(data, pool)
    for seed in (32, 33):
        fresh = normal(9000, 100, seed)
        pool.copy_(fresh)
        graph.replay()
        torch.cuda.synchronize()
        assert_same(found, imle_knn(data.cpu(), fresh))


def test_the_same_answer_every_time() -> None:
    data, pool = normal(2000, 96, 34).cuda(), normal(30000, 96, 35).round(decimals=1).cuda()
    expected = imle_knn(data, pool, 3)
    for _ in range(5):
        found = imle_knn(data, pool, 3)
        assert torch.equal(found.indices, expected.indices)
        assert torch.equal(found.distances, expected.distances)


def test_memory_is_bounded_for_a_large_pool() -> None:
    data, pool = torch.randn(1000, 128, device="cuda"), torch.randn(1 << 21, 128, device="cuda")
    imle_knn(data[:200], pool[:5000])
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    imle_knn(data, pool)
    assert torch.cuda.max_memory_allocated() - before <= 260 << 20
