"""imle_knn against the float64 oracle: every answer bit for bit."""

import contextlib
import math
import os
from collections.abc import Iterator

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from torch import Tensor

from naign_ext import ImleSearch, Neighbours, _native, imle_knn
from naign_ext.ops import reference

METHODS = ("packed", "tree", "differences", "lane_sums", "lanes")
HALVES = (torch.float16, torch.bfloat16)
DTYPES = (torch.float32, *HALVES)


def brute_force(data: Tensor, pool: Tensor, k: int = 1, reject_below: float | None = None) -> Neighbours:
    """The contract, pair by pair: nothing but the definition of the distance and a stable sort."""
    n, m = len(data), len(pool)
    pairs_x = data.repeat_interleave(m, dim=0)
    pairs_y = pool.repeat(n, 1)
    distances = reference.squared_distances(pairs_x, pairs_y).view(n, m)
    admissible = reference.finite_rows(pool)[None, :] & reference.finite_rows(data)[:, None]
    if reject_below is not None:
        admissible &= distances >= reject_below
    distances = distances.masked_fill(~admissible, math.inf)
    order = distances.argsort(dim=1, stable=True)[:, :k]
    found = distances.gather(1, order)
    indices = order.masked_fill(found == math.inf, -1)
    return Neighbours(*reference.finish(data, found, indices))


def assert_same(actual: Neighbours, expected: Neighbours) -> None:
    torch.testing.assert_close(actual.indices, expected.indices, rtol=0, atol=0)
    torch.testing.assert_close(actual.distances, expected.distances, rtol=0, atol=0, equal_nan=True)


def normal(rows: int, columns: int, seed: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@contextlib.contextmanager
def forced(method: str) -> Iterator[None]:
    """Search by this method, where it applies."""
    assert _native.extension is not None
    _native.extension.force_method(method)
    try:
        yield
    finally:
        _native.extension.force_method("")


def check(data: Tensor, pool: Tensor, k: int = 1, reject_below: float | None = None) -> None:
    expected = brute_force(data, pool, k, reject_below)
    for method in ("", *METHODS):
        with forced(method):
            assert_same(imle_knn(data, pool, k, reject_below=reject_below), expected)
    fallback = reference.imle_knn(data, pool, k, reject_below)
    assert_same(Neighbours(*fallback), expected)


def test_the_extension_is_under_test() -> None:
    assert _native.extension is not None
    assert _native.status()["isa"] == os.environ.get("NAIGN_ISA", _native.status()["isa"])


@pytest.mark.parametrize("columns", [1, 2, 3, 7, 16, 17, 31, 33, 63, 65, 100, 511, 513, 784, 1030])
@pytest.mark.parametrize(("rows", "pool_rows"), [(1, 300), (33, 57), (70, 257)])
def test_exact_for_sizes_that_are_multiples_of_nothing(rows: int, pool_rows: int, columns: int) -> None:
    check(normal(rows, columns, 1), normal(pool_rows, columns, 2))


@pytest.mark.parametrize("k", [1, 2, 5, 56, 57, 200, 301])
def test_exact_for_every_k(k: int) -> None:
    check(normal(41, 19, 3), normal(301, 19, 4), k)


def test_reference_distance_is_the_true_distance() -> None:
    data, pool = normal(20, 333, 5), normal(20, 333, 6)
    found = reference.squared_distances(data, pool)
    for x, y, distance in zip(data.tolist(), pool.tolist(), found.tolist(), strict=True):
        true = math.fsum((a - b) ** 2 for a, b in zip(x, y, strict=True))
        assert abs(distance - true) <= 1e-14 * true


@pytest.mark.parametrize("data_dtype", DTYPES)
@pytest.mark.parametrize("pool_dtype", DTYPES)
def test_exact_for_mixed_dtypes(data_dtype: torch.dtype, pool_dtype: torch.dtype) -> None:
    check(normal(37, 45, 7).to(data_dtype), normal(230, 45, 8).to(pool_dtype), 3)


@pytest.mark.parametrize("dtype", HALVES)
def test_every_half_precision_number_is_read_exactly(dtype: torch.dtype) -> None:
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    values = bits.view(dtype)[:, None]
    found = imle_knn(torch.zeros(1, 1), values[values.isfinite()][:, None], 1)
    assert found.distances.item() == 0
    for target in (float(values[0x3C01]), float(values[0x0001]), -float(values[0x7B00])):
        check(torch.tensor([[target]]), values, 3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_strides_do_not_matter(dtype: torch.dtype) -> None:
    data, pool = normal(90, 130, 9).to(dtype), normal(600, 130, 10).to(dtype)
    expected = brute_force(data[::2, ::3], pool[::3, ::3], 2)
    assert_same(imle_knn(data[::2, ::3], pool[::3, ::3], 2), expected)
    transposed = pool[::3, ::3].T.contiguous().T
    assert_same(imle_knn(data[::2, ::3], transposed, 2), expected)
    same_row = data[:1].expand(50, -1)
    assert_same(imle_knn(same_row, pool), brute_force(same_row, pool))


def test_integers_and_their_many_ties() -> None:
    g = torch.Generator().manual_seed(11)
    data = torch.randint(-2, 3, (60, 5), generator=g).float()
    pool = torch.randint(-2, 3, (900, 5), generator=g).float()
    check(data, pool, 1)
    check(data, pool, 7)


@pytest.mark.parametrize("k", [1, 4])
def test_a_constant_pool_is_all_ties(k: int) -> None:
    data, pool = normal(40, 65, 12), normal(1, 65, 13).expand(700, -1)
    found = imle_knn(data, pool, k)
    assert (found.indices == torch.arange(k)).all()
    check(data, pool, k)


@pytest.mark.parametrize("k", [1, 3])
def test_a_collapsed_pool(k: int) -> None:
    data = normal(50, 96, 14)
    check(data, 40 + normal(1, 96, 15) + 1e-5 * normal(800, 96, 16), k)


def test_duplicates_far_apart_go_to_the_lowest_index() -> None:
    data, pool = normal(64, 70, 17), normal(2000, 70, 18)
    pool[1000:] = pool[:1000]
    assert (imle_knn(data, pool).indices < 1000).all()
    check(data, pool, 2)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
def test_twins_one_unit_in_the_last_place_apart(offset: float) -> None:
    data = normal(150, 40, 19) + offset
    g = torch.Generator().manual_seed(20)
    pool = torch.cat([data, data])[torch.randperm(300, generator=g)]
    column = torch.randint(0, 40, (300,), generator=g)
    picked = pool[torch.arange(300), column]
    pool[torch.arange(300), column] = torch.nextafter(picked, picked + torch.randn(300, generator=g))
    check(data, pool, 2)


def test_pool_that_holds_the_data() -> None:
    data = normal(80, 130, 21)
    pool = torch.cat([normal(500, 130, 22), data])
    found = imle_knn(data, pool)
    assert (found.distances == 0).all()
    assert (found.indices[:, 0] == torch.arange(80) + 500).all()


@pytest.mark.parametrize("exponent", [-44, -38, -30, -20, 20, 30, 37])
def test_scales_from_subnormal_to_huge(exponent: int) -> None:
    scale = 10.0**exponent
    data, pool = (normal(60, 33, 23) * scale), (normal(400, 33, 24) * scale)
    data, pool = data.clamp(-3e38, 3e38), pool.clamp(-3e38, 3e38)
    check(data, pool, 2)


def test_rows_of_wildly_different_scale() -> None:
    g = torch.Generator().manual_seed(25)
    data = normal(60, 33, 26) * torch.rand(60, 1, generator=g).mul(240).sub(120).exp2()
    pool = normal(500, 33, 27) * torch.rand(500, 1, generator=g).mul(240).sub(120).exp2()
    check(data, pool, 3)


def test_heavy_tails_and_sparse_rows() -> None:
    g = torch.Generator().manual_seed(28)
    tails = torch.distributions.StudentT(1.5)
    torch.manual_seed(28)
    check(tails.sample((50, 80)), tails.sample((700, 80)))
    mask = torch.rand(700, 80, generator=g) < 0.05
    check(normal(50, 80, 29) * mask[:50], normal(700, 80, 30) * mask, 3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("k", [1, 3])
def test_rows_with_nan_or_inf(bad: float, k: int) -> None:
    data, pool = normal(40, 50, 31), normal(300, 50, 32)
    data[3, 7] = bad
    pool[::4, 11] = bad
    found = imle_knn(data, pool, k)
    assert (found.indices[3] == -1).all()
    assert found.distances[3].isnan().all()
    assert (found.indices % 4 != 0).logical_or(found.indices == -1).all()
    check(data, pool, k)


def test_a_pool_without_a_finite_row() -> None:
    pool = torch.full((100, 20), math.nan)
    found = imle_knn(normal(30, 20, 33), pool)
    assert (found.indices == -1).all()
    assert (found.distances == math.inf).all()


@pytest.mark.parametrize("quantile", [0.0, 0.001, 0.1, 0.5, 1.1])
@pytest.mark.parametrize("k", [1, 4])
def test_reject_below(quantile: float, k: int) -> None:
    data, pool = normal(45, 37, 34), normal(400, 37, 35)
    everything = reference.squared_distances(data.repeat_interleave(400, 0), pool.repeat(45, 1))
    threshold = float(everything.quantile(min(1.0, quantile))) * max(1.0, quantile)
    check(data, pool, k, threshold)


def test_reject_below_keeps_a_distance_equal_to_it() -> None:
    data = torch.zeros(1, 40)
    pool = torch.zeros(900, 40)
    pool[:, 0] = torch.arange(900)
    found = imle_knn(data, pool, 2, reject_below=25.0)
    assert found.indices.tolist() == [[5, 6]]
    assert found.distances.tolist() == [[25.0, 36.0]]


def test_batches() -> None:
    data, pool = normal(5 * 12, 21, 36).view(5, 12, 21), normal(5 * 90, 21, 37).view(5, 90, 21)
    found = imle_knn(data, pool, 3)
    for b in range(5):
        assert_same(Neighbours(found.distances[b], found.indices[b]), brute_force(data[b], pool[b], 3))
    robot = imle_knn(normal(128, 32, 38).view(128, 1, 32), normal(128 * 20, 32, 39).view(128, 20, 32))
    assert robot.indices.shape == (128, 1, 1)
    swapped = imle_knn(data.transpose(0, 1).contiguous().transpose(0, 1), pool, 3)
    assert_same(swapped, found)


@pytest.mark.parametrize("shape", [(0, 7), (2, 0, 7), (0, 4, 7)])
def test_empty_data(shape: tuple[int, ...]) -> None:
    pool = torch.randn(*shape[:-2], 9, 7) if len(shape) == 3 else torch.randn(9, 7)
    found = imle_knn(torch.empty(shape), pool, 2)
    assert found.distances.shape == (*shape[:-1], 2)
    assert found.indices.dtype == torch.int64
    assert Neighbours(*reference.imle_knn(torch.empty(shape), pool, 2, None)).indices.shape == (
        *shape[:-1],
        2,
    )


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_the_answer_does_not_depend_on_threads(threads: int) -> None:
    data, pool = normal(130, 64, 40), normal(3000, 64, 41).round(decimals=1)
    expected = imle_knn(data, pool, 4)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert_same(imle_knn(data, pool, 4), expected)
        assert_same(imle_knn(data[:3], pool, 4), Neighbours(expected.distances[:3], expected.indices[:3]))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("columns", [1, 15, 16, 17, 40, 79, 200])
@pytest.mark.parametrize("rows", [1, 4])
def test_few_data_rows_and_a_large_pool(rows: int, columns: int) -> None:
    data, pool = normal(rows, columns, 60), normal(20000, columns, 61).round(decimals=1)
    pool[77], pool[19000] = math.nan, math.inf
    for k, reject in ((1, None), (6, None), (3, float(columns))):
        expected = Neighbours(*reference.imle_knn(data, pool, k, reject))
        assert_same(imle_knn(data, pool, k, reject_below=reject), expected)
        assert_same(
            imle_knn(data.half().float(), pool.bfloat16(), k),
            Neighbours(*reference.imle_knn(data.half().float(), pool.bfloat16(), k, None)),
        )


@pytest.mark.parametrize("columns", [2, 40, 1100])
def test_larger_problems_against_the_fallback(columns: int) -> None:
    data, pool = normal(300, columns, 42), normal(4000, columns, 43)
    pool[3000:] = pool[:1000]
    for k in (1, 10):
        expected = Neighbours(*reference.imle_knn(data, pool, k, None))
        for method in ("", *METHODS):
            with forced(method):
                assert_same(imle_knn(data, pool, k), expected)


def test_sums_that_overflow_or_vanish_are_compared_exactly() -> None:
    for scale in (1e-30, 3e18, 2e19, 1e36):
        data, pool = normal(50, 5, 46) * scale, normal(400, 5, 47) * scale
        pool[300:] = pool[:100]
        check(data, pool)


@contextlib.contextmanager
def flushing() -> Iterator[None]:
    """Subnormal numbers become zeros in this thread."""
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor does not flush subnormal numbers")
    try:
        yield
        assert torch.tensor([1e-40]).mul(1).item() == 0, "the search left the thread as it was"
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("columns", [3, 40, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threads", [1, 2])
def test_flushing_subnormal_numbers_changes_no_answer(threads: int, dtype: torch.dtype, columns: int) -> None:
    data = (normal(40, columns, 90) * 1e-40).to(dtype)
    pool = normal(600, columns, 91) * 1e-40
    expected = [imle_knn(data, pool, k) for k in (1, 3)]
    streamed = ImleSearch(data, 3).update(pool).neighbours()
    assert expected[0].distances.max() > 0 or dtype == torch.float32
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for method in ("", *METHODS):
            with forced(method), flushing():
                for k, wanted in zip((1, 3), expected, strict=True):
                    assert_same(imle_knn(data, pool, k), wanted)
                assert_same(ImleSearch(data, 3).update(pool).neighbours(), streamed)
    finally:
        torch.set_num_threads(before)


def test_flushing_does_not_round_small_distances_to_zero() -> None:
    data, pool = torch.zeros(1, 4), torch.tensor([[3e-20, 0, 0, 0], [2e-20, 0, 0, 0]])
    with flushing():
        found = imle_knn(data, pool)
        streamed = ImleSearch(data).update(pool).neighbours()
    assert found.distances.item() == streamed.distances.item() == pytest.approx(4e-40, rel=1e-5)
    assert found.indices.item() == 1


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match=r"method: expected packed, tree, .* got 'guess'"), forced("guess"):
        pass


def test_nothing_of_the_size_of_all_pairs_is_stored() -> None:
    import resource

    data, pool = normal(20000, 8, 44), normal(20000, 8, 45)
    imle_knn(data[:100], pool[:100])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    imle_knn(data, pool)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 64 * 1024, f"{grown} KiB more for 20000 x 20000 pairs, which would take 1.6e6 KiB"


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, Tensor, int, float | None]:
    n, m, d = draw(st.integers(1, 40)), draw(st.integers(1, 150)), draw(st.integers(1, 70))
    seed = draw(st.integers(0, 2**31))
    data, pool = normal(n, d, seed), normal(m, d, seed + 1)
    kind = draw(st.sampled_from(["plain", "integers", "offset", "scaled", "collapsed", "twins", "holes"]))
    if kind == "integers":
        data, pool = data.round(), pool.round()
    elif kind == "offset":
        shift = draw(st.floats(-1e6, 1e6))
        data, pool = data + shift, pool + shift
    elif kind == "scaled":
        data, pool = data * 2.0 ** draw(st.integers(-140, 120)), pool * 2.0 ** draw(st.integers(-140, 120))
    elif kind == "collapsed":
        pool = pool[:1] + draw(st.sampled_from([0.0, 1e-7, 1e-3])) * pool
    elif kind == "twins":
        pool = data[torch.arange(m) % n]
        pool = torch.nextafter(pool, pool + 1)
    elif kind == "holes":
        pool[draw(st.integers(0, m - 1)), draw(st.integers(0, d - 1))] = math.nan
        data[draw(st.integers(0, n - 1)), draw(st.integers(0, d - 1))] = math.inf
    data, pool = data.to(draw(st.sampled_from(DTYPES))), pool.to(draw(st.sampled_from(DTYPES)))
    reject = draw(st.one_of(st.none(), st.floats(0, 4 * d)))
    return data, pool, draw(st.integers(1, min(m, 9))), reject


@hypothesis.settings(max_examples=150, deadline=None, derandomize=True)
@hypothesis.given(problems())
def test_exact_whatever_comes(problem: tuple[Tensor, Tensor, int, float | None]) -> None:
    check(*problem)


def test_float64_takes_the_reference_and_returns_float64() -> None:
    data, pool = normal(20, 9, 46).double(), normal(80, 9, 47)
    found = imle_knn(data, pool, 2)
    assert found.distances.dtype == torch.float64
    assert_same(found, brute_force(data, pool.double(), 2))


@pytest.mark.parametrize("batched", [False, True])
def test_gradients(batched: bool) -> None:
    g = torch.Generator().manual_seed(48)
    shape = (2,) if batched else ()
    data = torch.randn(*shape, 6, 5, dtype=torch.float64, generator=g, requires_grad=True)
    pool = torch.randn(*shape, 9, 5, dtype=torch.float64, generator=g, requires_grad=True)
    torch.autograd.gradcheck(lambda x, y: imle_knn(x, y, 3).distances, (data, pool))


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_equal_those_of_the_written_out_distance(dtype: torch.dtype) -> None:
    data = normal(30, 17, 49).to(dtype).requires_grad_()
    pool = normal(50, 17, 50).to(dtype).requires_grad_()
    found = imle_knn(data, pool, 4)
    weight = normal(30, 4, 51)
    actual = torch.autograd.grad((found.distances * weight).sum(), (data, pool))
    written_out = (data.double()[:, None] - pool.double()[found.indices]).square().sum(-1)
    expected = torch.autograd.grad((written_out * weight.double()).sum(), (data, pool))
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(
            a, e, rtol=2e-2 if dtype in HALVES else 1e-5, atol=1e-2 if dtype in HALVES else 1e-5
        )


def test_gradients_of_rows_without_a_neighbour() -> None:
    data = normal(3, 8, 52)
    data[1, 2] = math.nan
    data.requires_grad_()
    pool = normal(20, 8, 53).requires_grad_()
    found = imle_knn(data, pool, 1, reject_below=0.0)
    grad_data, grad_pool = torch.autograd.grad(found.distances[[0, 1, 2]].sum(), (data, pool))
    assert grad_data[1].isnan().all()
    assert grad_data[[0, 2]].isfinite().all()
    assert grad_pool.isfinite().all()
    nothing = imle_knn(data, pool, 1, reject_below=1e9)
    assert (torch.autograd.grad(nothing.distances[0, 0], pool)[0] == 0).all()


@pytest.mark.parametrize("name", ["imle_knn", "imle_knn_reference"])
@pytest.mark.parametrize("batched", [False, True])
def test_opcheck(name: str, batched: bool) -> None:
    data, pool = normal(12, 6, 54).requires_grad_(), normal(40, 6, 55).requires_grad_()
    if batched:
        data, pool = data.detach().view(2, 6, 6), pool.detach().view(2, 20, 6)
    torch.library.opcheck(getattr(torch.ops.naign, name), (data, pool, 2, None))
    torch.library.opcheck(getattr(torch.ops.naign, name), (data.detach(), pool.detach(), 1, 3.0))


def test_opcheck_without_gradients() -> None:
    data, pool = normal(12, 6, 54), normal(40, 6, 55)
    torch.library.opcheck(torch.ops.naign.imle_knn, (data, pool, 2, None))


@pytest.mark.slow
def test_compiles_to_a_full_graph() -> None:
    def distance(data: Tensor, pool: Tensor) -> Tensor:
        return imle_knn(data * 2, pool, 2, reject_below=0.1).distances.sum()

    data, pool = normal(25, 10, 56).requires_grad_(), normal(90, 10, 57).requires_grad_()
    compiled = torch.compile(distance, fullgraph=True)
    expected = torch.autograd.grad(distance(data, pool), (data, pool))
    actual = torch.autograd.grad(compiled(data, pool), (data, pool))
    torch.testing.assert_close(actual, expected)


def test_autocast_and_inference_mode() -> None:
    data, pool = normal(25, 10, 58), normal(90, 10, 59)
    expected = imle_knn(data, pool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_same(imle_knn(data, pool), expected)
    with torch.inference_mode():
        assert_same(imle_knn(data, pool), expected)


GOOD = torch.zeros(4, 3)
MISTAKES = [
    ({"data": [[1.0]]}, TypeError, "data: expected a torch.Tensor, got list"),
    ({"data": GOOD.int()}, TypeError, "data: expected one of the dtypes .* got int32"),
    ({"pool": GOOD.long()}, TypeError, "pool: expected one of the dtypes .* got int64"),
    ({"data": torch.zeros(3)}, ValueError, r"data: expected 2 or 3 dimensions .* got shape \(3,\)"),
    (
        {"data": torch.zeros(3)},
        ValueError,
        r"data: .* use data\[None\] for one row, data\[:, None\] for rows of",
    ),
    ({"data": torch.tensor(1.0)}, ValueError, r"data: .* got shape \(\); use data\[None, None\]"),
    ({"data": torch.zeros(2, 3, 4, 4)}, ValueError, r"data: .* use data.flatten\(1\)"),
    ({"pool": torch.zeros(3)}, ValueError, r"pool: .* use pool\[None\] for one row"),
    ({"data": GOOD.to_sparse()}, TypeError, r"data: .* got the layout sparse_coo; use data.to_dense\(\)"),
    ({"pool": GOOD.to_sparse()}, TypeError, r"pool: .* got the layout sparse_coo; use pool.to_dense\(\)"),
    ({"data": GOOD.to_mkldnn()}, TypeError, r"data: .* got the layout mkldnn; use data.to_dense\(\)"),
    (
        {"data": torch.nested.nested_tensor([GOOD, GOOD[:2]])},
        TypeError,
        r"data: expected a dense tensor, got a nested one; use torch.cat\(data.unbind\(\)\)",
    ),
    ({"data": torch.zeros(2, 4, 3)}, ValueError, r"pool: expected 3 .* use pool.expand\(2, -1, -1\)"),
    ({"pool": torch.zeros(2, 4, 3)}, ValueError, r"pool: expected 2 .* use pool.flatten\(0, 1\)"),
    ({"data": torch.zeros(4, 0)}, ValueError, r"data: expected D >= 1"),
    ({"pool": torch.zeros(1, 4, 3)}, ValueError, "pool: expected 2 dimensions"),
    ({"pool": torch.zeros(4, 5)}, ValueError, "pool: expected D = 3 as data has, got D = 5"),
    ({"pool": torch.zeros(0, 3)}, ValueError, "pool: expected at least one row"),
    ({"k": 0}, ValueError, "k: expected at least 1, got 0"),
    ({"k": 5}, ValueError, "k: expected at most the pool's 4 rows, got 5"),
    ({"k": 1.0}, TypeError, "k: expected an int, got float"),
    ({"k": True}, TypeError, "k: expected an int, got bool"),
    ({"k": torch.tensor(True)}, TypeError, "k: expected an int, got Tensor"),
    ({"k": np.bool_(True)}, TypeError, "k: expected an int, got bool"),
    ({"k": torch.tensor(1.5)}, TypeError, "k: expected an int, got Tensor"),
    ({"k": torch.tensor([1, 2])}, TypeError, "k: expected an int, got Tensor"),
    ({"k": None}, TypeError, "k: expected an int, got NoneType"),
    ({"k": np.int64(0)}, ValueError, "k: expected at least 1, got 0"),
    ({"reject_below": math.nan}, ValueError, "reject_below: expected a squared distance, got nan"),
    ({"reject_below": 10**400}, ValueError, "reject_below: expected at most 1.8e308"),
    (
        {"pool": torch.masked.MaskedTensor(GOOD, GOOD == GOOD)},
        TypeError,
        "pool: expected a dense tensor, got a masked one",
    ),
    ({"reject_below": "1"}, TypeError, "reject_below: expected a float or None, got str"),
    (
        {"pool": torch.zeros(4, 3, device="meta")},
        ValueError,
        "pool: expected device cpu as data has, got meta",
    ),
    (
        {"data": torch.zeros(2, 4, 3), "pool": torch.zeros(3, 4, 3)},
        ValueError,
        "pool: expected B = 2 .* got B = 3",
    ),
]


@pytest.mark.parametrize(("change", "error", "message"), MISTAKES)
def test_mistakes_are_named(change: dict, error: type[Exception], message: str) -> None:
    arguments = {"data": GOOD, "pool": GOOD, "k": 1, "reject_below": None, **change}
    with pytest.raises(error, match=message):
        imle_knn(arguments["data"], arguments["pool"], arguments["k"], reject_below=arguments["reject_below"])


@pytest.mark.parametrize(
    "k", [np.int64(2), np.uint8(2), torch.tensor(2), torch.tensor([2], dtype=torch.int32)]
)
def test_k_may_be_whatever_counts_as_an_int(k: int) -> None:
    data, pool = normal(9, 6, 80), normal(40, 6, 81)
    assert_same(imle_knn(data, pool, k), imle_knn(data, pool, 2))
    assert_same(ImleSearch(data, k).update(pool).neighbours(), imle_knn(data, pool, 2))


@pytest.mark.parametrize("reject_below", [np.float32(4), np.int64(4), 4])
def test_reject_below_may_be_any_real_number(reject_below: float) -> None:
    data, pool = normal(9, 6, 82), normal(40, 6, 83)
    assert_same(imle_knn(data, pool, 2, reject_below=reject_below), imle_knn(data, pool, 2, reject_below=4.0))


def test_the_advice_of_the_messages_works() -> None:
    data, pool = normal(4, 3, 84), normal(10, 3, 85)
    expected = imle_knn(data, pool)
    for dense in (data.to_sparse().to_dense(), data.to_sparse_csr().to_dense(), data.to_mkldnn().to_dense()):
        assert_same(imle_knn(dense, pool), expected)
    nested = torch.nested.nested_tensor([data, data[:2]])
    assert_same(imle_knn(torch.cat(nested.unbind()), pool), imle_knn(torch.cat([data, data[:2]]), pool))
    row = data[0]
    assert imle_knn(row[None], pool).indices.shape == (1, 1)
    assert imle_knn(row[:, None], pool[:, :1]).indices.shape == (3, 1)
    assert imle_knn(row[0][None, None], pool[:, :1]).indices.shape == (1, 1)
    batches = torch.stack([data, data + 1])
    one_pool = imle_knn(batches, pool.expand(2, -1, -1))
    assert_same(Neighbours(one_pool.distances[0], one_pool.indices[0]), expected)
    assert_same(imle_knn(data, torch.stack([pool, pool]).flatten(0, 1)), expected)
