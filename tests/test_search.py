"""Streaming search: any cut of the pool, many pools, many ranks."""

import math
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

import naign_ext.search
from naign_ext import ImleSearch, Neighbours, _native, imle_knn
from naign_ext.ops.imle_knn_state import NativeState


@pytest.fixture(params=["", "packed"], autouse=True)
def method(request: pytest.FixtureRequest) -> Iterator[None]:
    """By the method of choice, and by the one that uses what ImleSearch prepares."""
    assert _native.extension is not None
    _native.extension.force_method(request.param)
    yield
    _native.extension.force_method("")


def normal(rows: int, columns: int, seed: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def assert_same(actual: Neighbours, expected: Neighbours) -> None:
    torch.testing.assert_close(actual.indices, expected.indices, rtol=0, atol=0)
    torch.testing.assert_close(actual.distances, expected.distances, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("chunk", [1, 7, 300, 1000])
def test_equal_to_one_call_however_the_pool_is_cut(chunk: int, k: int, dtype: torch.dtype) -> None:
    data, pool = normal(60, 40, 1).to(dtype), normal(1000, 40, 2).to(dtype)
    search = ImleSearch(data, k)
    for part in pool[: 200 if chunk == 1 else None].split(chunk):
        search.update(part)
    assert_same(search.neighbours(), imle_knn(data, pool[: search.count], k))


def test_reset_keeps_the_preparation_and_forgets_the_pool() -> None:
    data = normal(60, 40, 3)
    search = ImleSearch(data, 2, reject_below=30.0)
    for seed in range(4):
        pool = normal(500, 40, 10 + seed)
        search.reset()
        assert search.count == 0
        for part in pool.split(123):
            search.update(part)
        assert_same(search.neighbours(), imle_knn(data, pool, 2, reject_below=30.0))


def test_a_pool_that_moves_away_between_resets() -> None:
    data = normal(50, 64, 4)
    search = ImleSearch(data)
    for shift, scale in ((0, 1), (1e4, 1e-3), (0, 1e-30), (0, 1e25), (-5, 1), (math.nan, 1), (0, 1)):
        pool = (normal(400, 64, 5) + shift) * scale
        search.reset()
        search.update(pool[:100]).update(pool[100:])
        assert_same(search.neighbours(), imle_knn(data, pool))


def test_mixed_dtypes_across_chunks() -> None:
    data = normal(50, 20, 6)
    parts = [
        normal(90, 20, 7),
        normal(90, 20, 8).half(),
        normal(90, 20, 9).bfloat16(),
        normal(90, 20, 10).double(),
    ]
    search = ImleSearch(data, 3)
    for part in parts:
        search.update(part)
    assert_same(search.neighbours(), imle_knn(data, torch.cat([p.float() for p in parts]), 3))


def structured(rows: int, columns: int, seed: int, noise: float) -> Tensor:
    """Rows near a subspace of 8 dimensions, as images are near few."""
    return normal(rows, 8, seed) @ normal(8, columns, 99) + noise * normal(rows, columns, seed + 50)


@pytest.fixture
def projected(method: None) -> None:
    """With a projection from the first chunk on, where the instruction set has one."""
    assert _native.extension is not None
    _native.extension.force_method("projected")


def projects(search: ImleSearch) -> bool:
    assert isinstance(search._state, NativeState)
    found: bool = torch.ops.naign._test_imle_knn_projects(search._state._handle, search.data)
    return found


@pytest.mark.usefixtures("projected")
@pytest.mark.parametrize("noise", [0.0, 1e-3, 0.1, 3.0, 100.0])
@pytest.mark.parametrize(("k", "reject_below"), [(1, None), (4, None), (1, 200.0), (3, 1e4)])
def test_a_projection_discards_pairs_but_no_neighbours(
    noise: float, k: int, reject_below: float | None
) -> None:
    data = structured(600, 300, 30, noise)
    search = ImleSearch(data, k, reject_below=reject_below)
    for seed in range(2):
        pool = structured(3000, 300, 40 + seed, noise)
        pool[7], pool[1500:1530], pool[2000] = math.nan, pool[1499], 1e30
        pool[2500:2600] = pool[100:200].nextafter(pool[100:200] + 1)
        search.reset()
        for part in pool.split(1700):
            search.update(part)
        assert_same(search.neighbours(), imle_knn(data, pool, k, reject_below=reject_below))
    if noise < 1 and k == 1 and reject_below is None:
        assert projects(search) == (_native.status()["isa"] != "portable")


@pytest.mark.usefixtures("projected")
@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_a_projection_of_half_precision_and_odd_scales(scale: float) -> None:
    data, pool = structured(520, 257, 31, 0.05), structured(2500, 257, 32, 0.05)
    data[5, 5], data[9] = math.inf, 1e6
    for x, y in ((data * scale, pool * scale), (data.half(), pool.bfloat16()), (data, pool.T.contiguous().T)):
        assert_same(ImleSearch(x).update(y).neighbours(), imle_knn(x, y))


@pytest.mark.usefixtures("projected")
def test_data_without_principal_axes() -> None:
    pool = normal(2000, 256, 33)
    for data in (torch.zeros(512, 256), torch.full((512, 256), math.nan), normal(1, 256, 34).expand(512, -1)):
        assert_same(ImleSearch(data).update(pool).neighbours(), imle_knn(data, pool))


def test_empty_chunks_and_empty_data() -> None:
    data, pool = normal(9, 4, 11), normal(30, 4, 12)
    search = ImleSearch(data).update(pool[:0]).update(pool).update(pool[:0])
    assert_same(search.neighbours(), imle_knn(data, pool))
    assert ImleSearch(data[:0]).update(pool).neighbours().indices.shape == (0, 1)


def test_offsets_name_the_rows() -> None:
    data, pool = normal(30, 16, 13), normal(400, 16, 14)
    search = ImleSearch(data, 2)
    search.update(pool[200:], offset=200).update(pool[:200], offset=0)
    assert_same(search.neighbours(), imle_knn(data, pool, 2))
    far = ImleSearch(data).update(pool, offset=2**40).neighbours()
    assert (far.indices - 2**40 == imle_knn(data, pool).indices).all()


@pytest.mark.parametrize("offset", [-1, -5, 2**63 - 1, 2**63, 2**64, np.int64(-1)])
def test_offsets_out_of_range_are_refused(offset: int) -> None:
    search = ImleSearch(torch.zeros(1, 1))
    with pytest.raises(ValueError, match=rf"offset: expected an int from 0 to 2\^63 - rows .* got {offset}"):
        search.update(torch.zeros(2, 1), offset=offset)
    assert search.count == 0


@pytest.mark.parametrize("offset", [1.5, "1", True, torch.tensor(1.5), [1]])
def test_offsets_that_are_no_int_are_refused(offset: object) -> None:
    with pytest.raises(TypeError, match=r"offset: expected an int from 0 to 2\^63 - rows, got"):
        ImleSearch(torch.zeros(1, 1)).update(torch.zeros(2, 1), offset=offset)  # type: ignore[arg-type]


@pytest.mark.parametrize("offset", [0, 2**63 - 2, np.int64(7), torch.tensor(7)])
def test_offsets_up_to_the_last_index(offset: int) -> None:
    found = ImleSearch(torch.zeros(1, 1)).update(torch.tensor([[1.0], [0.5]]), offset=offset).neighbours()
    assert found.indices.item() == int(offset) + 1
    reference_path = ImleSearch(torch.zeros(1, 1).double()).update(
        torch.tensor([[1.0], [0.5]]), offset=offset
    )
    assert reference_path.neighbours().indices.item() == int(offset) + 1


def test_nothing_is_recorded_for_autograd() -> None:
    data, pool = normal(5, 4, 15).requires_grad_(), normal(9, 4, 16).requires_grad_()
    assert not ImleSearch(data).update(pool).neighbours().distances.requires_grad


CHANGES = {
    "add": lambda data: data.add_(1),
    "one number": lambda data: data[2].fill_(0),
    "copy": lambda data: data.copy_(normal(30, 16, 70)),
    "same numbers": lambda data: data.mul_(1),
}


@pytest.mark.parametrize("change", sorted(CHANGES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_data_changed_in_place_are_noticed(change: str, dtype: torch.dtype) -> None:
    data, pool = normal(30, 16, 71).to(dtype), normal(90, 16, 72)
    search = ImleSearch(data).update(pool)
    CHANGES[change](data)
    for call in (search.neighbours, lambda: search.update(pool), lambda: pickle.dumps(search)):
        with pytest.raises(RuntimeError, match=r"data: changed in place .* build a new ImleSearch\(data\)"):
            call()
    assert_same(ImleSearch(data).update(pool).neighbours(), imle_knn(data, pool))


def test_data_that_are_a_view_of_what_changed() -> None:
    whole, pool = normal(4, 30, 73), normal(90, 30, 74)
    search = ImleSearch(whole[1:]).update(pool)
    whole.zero_()
    with pytest.raises(RuntimeError, match="data: changed in place"):
        search.neighbours()


def test_data_without_a_version() -> None:
    with torch.inference_mode():
        data = normal(30, 16, 75) * 1
    pool = normal(90, 16, 76)
    assert_same(ImleSearch(data).update(pool).neighbours(), imle_knn(data, pool))


def test_a_forced_instruction_set_repacks() -> None:
    from naign_ext import _native

    assert _native.extension is not None
    data, pool = normal(40, 30, 17), normal(300, 30, 18)
    search = ImleSearch(data)
    expected = search.update(pool).neighbours()
    before = _native.extension.isa()
    try:
        _native.extension.force_isa("portable")
        search.reset()
        assert_same(search.update(pool).neighbours(), expected)
        with pytest.raises(ValueError, match="expected avx512, avx2 or portable, got 'sse9'"):
            _native.extension.force_isa("sse9")
    finally:
        _native.extension.force_isa(before)


def test_mistakes_are_named() -> None:
    search = ImleSearch(torch.zeros(4, 3), 2)
    with pytest.raises(ValueError, match="pool: expected D = 3 as data has, got D = 2"):
        search.update(torch.zeros(5, 2))
    with pytest.raises(ValueError, match="k: expected at most the 1 pool rows seen since reset, got 2"):
        search.update(torch.zeros(1, 3)).neighbours()
    with pytest.raises(ValueError, match="data: expected 2 dimensions"):
        ImleSearch(torch.zeros(2, 4, 3))
    with pytest.raises(ValueError, match=r"k: expected at most 2147483647, got 10{30}"):
        ImleSearch(torch.zeros(3, 2), 10**30)
    with pytest.raises(ValueError, match="k: expected at least 1, got 0"):
        ImleSearch(torch.zeros(4, 3), 0)


@pytest.mark.parametrize("kind", ["negative", "zero"])
def test_data_of_which_torch_keeps_no_numbers_are_written_out(kind: str) -> None:
    lazy = torch.complex(normal(6, 3, 1), normal(6, 3, 2)).conj().imag
    if kind == "zero":
        lazy = torch._efficientzerotensor((6, 3))
    pool = normal(20, 3, 3)
    assert_same(ImleSearch(lazy, 2).update(pool).neighbours(), imle_knn(lazy, pool, 2))


# k, and the rows times ranks up to which a merge of k = 1 gathers: each of the ways of a merge.
MERGES = {"many": (3, 0), "gathered": (1, 120), "minimum": (1, 119)}


def _search_a_shard(rank: int, ranks: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    data, pool = normal(40, 12, 19), normal(301, 12, 20).round()
    start, stop = 301 * rank // ranks, 301 * (rank + 1) // ranks
    for name, (k, gathered) in MERGES.items():
        naign_ext.search.MOST_GATHERED = gathered
        search = ImleSearch(data.round(), k).update(pool[start:stop], offset=start).merge()
        assert search.count == 301
        torch.save(search.neighbours()._asdict(), f"{folder}/{name}-{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_merge_across_ranks(tmp_path: Path) -> None:
    mp.spawn(_search_a_shard, args=(3, str(tmp_path)), nprocs=3)
    for name, (k, _) in MERGES.items():
        expected = imle_knn(normal(40, 12, 19).round(), normal(301, 12, 20).round(), k)
        for rank in range(3):
            assert_same(Neighbours(**torch.load(tmp_path / f"{name}-{rank}.pt")), expected)
