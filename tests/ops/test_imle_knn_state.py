"""The state of a streaming search: one handle for the operators, safe against every other tensor."""

import copy
import pickle
import threading

import pytest
import torch
from torch import Tensor

from naign_ext import ImleSearch, Neighbours, _native, imle_knn
from naign_ext.ops.imle_knn_state import NativeState, ReferenceState, prepare

operators = torch.ops.naign


def normal(rows: int, columns: int, seed: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def assert_same(actual: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    assert torch.equal(actual[0], expected[0])
    assert torch.equal(actual[1], expected[1])


def test_the_operators_search() -> None:
    data, pool = normal(30, 20, 1), normal(400, 20, 2)
    state = operators.imle_knn_prepare(data, 3, None)
    for _ in range(2):
        operators.imle_knn_update(state, data, pool[:150], 0)
        operators.imle_knn_update(state, data, pool[150:], 150)
        assert_same(operators.imle_knn_result(state, data), imle_knn(data, pool, 3))
        operators.imle_knn_reset(state, data)
    distances, indices = operators.imle_knn_running(state, data)
    assert distances.dtype == torch.float64 and (distances == torch.inf).all()
    assert (indices == -1).all()


def test_running_neighbours_are_copies_that_can_be_put_back() -> None:
    data, pool = normal(30, 20, 3), normal(400, 20, 4)
    state = operators.imle_knn_prepare(data, 2, None)
    operators.imle_knn_update(state, data, pool[:200], 0)
    halfway = operators.imle_knn_running(state, data)
    operators.imle_knn_update(state, data, pool[200:], 200)
    expected = operators.imle_knn_result(state, data)
    other = operators.imle_knn_prepare(data, 2, None)
    operators.imle_knn_set_running(other, data, *halfway, 200)
    halfway[0].zero_()
    operators.imle_knn_update(other, data, pool[200:], 200)
    assert_same(operators.imle_knn_result(other, data), expected)


def others(state: Tensor) -> dict[str, Tensor]:
    """Tensors that are no state of a search."""
    return {
        "empty": torch.empty(0),
        "floats": torch.randn(8),
        "the same bytes": torch.frombuffer(bytearray(state.numpy().tobytes()), dtype=torch.uint8),
        "clone": state.clone(),
        "deep copy": copy.deepcopy(state),
        "pickled": pickle.loads(pickle.dumps(state)),
        "a part": state[1:],
        "large": torch.zeros(1 << 16, dtype=torch.uint8),
    }


@pytest.mark.parametrize("name", sorted(others(torch.zeros(8, dtype=torch.uint8))))
def test_another_tensor_is_refused(name: str) -> None:
    data = normal(5, 4, 5)
    state = operators.imle_knn_prepare(data, 1, None)
    other = others(state)[name]
    calls = [
        lambda: operators.imle_knn_update(other, data, data, 0),
        lambda: operators.imle_knn_result(other, data),
        lambda: operators.imle_knn_reset(other, data),
        lambda: operators.imle_knn_running(other, data),
        lambda: operators.imle_knn_set_running(other, data, data[:, :1].double(), torch.ones(5, 1).long(), 1),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="state: expected what imle_knn_prepare returned"):
            call()


def test_a_handle_whose_bytes_were_overwritten_is_still_one() -> None:
    data, pool = normal(5, 4, 6), normal(50, 4, 7)
    state = operators.imle_knn_prepare(data, 1, None)
    state.fill_(255)
    operators.imle_knn_update(state, data, pool, 0)
    assert_same(operators.imle_knn_result(state, data), imle_knn(data, pool))


def test_a_handle_outlives_neither_its_storage_nor_less() -> None:
    data, pool = normal(5, 4, 8), normal(50, 4, 9)
    state = operators.imle_knn_prepare(data, 1, None)
    alias = state.view(8)
    del state
    operators.imle_knn_update(alias, data, pool, 0)
    address = alias.data_ptr()
    del alias
    for _ in range(100):
        impostor = torch.zeros(8, dtype=torch.uint8)
        if impostor.data_ptr() == address:
            break
    with pytest.raises(RuntimeError, match="state: expected what imle_knn_prepare returned"):
        operators.imle_knn_result(impostor, data)


def test_other_data_are_refused() -> None:
    data = normal(5, 4, 10)
    state = operators.imle_knn_prepare(data, 1, None)
    for other in (data.clone(), data[:4], data.T.contiguous().T, data.view(torch.float16)):
        with pytest.raises(RuntimeError, match="data: expected the tensor that the state was prepared for"):
            operators.imle_knn_update(state, other, other, 0)
    with pytest.raises(RuntimeError, match="data: expected float32, float16 or bfloat16"):
        operators.imle_knn_prepare(data.double(), 1, None)


@pytest.mark.parametrize(
    ("distances", "indices"),
    [
        (torch.zeros(5, 2).double(), torch.zeros(5, 2).long()),
        (torch.zeros(5, 1), torch.zeros(5, 1).long()),
        (torch.zeros(5, 1).double(), torch.zeros(5, 1).int()),
        (torch.zeros(5, 2).double()[:, ::2], torch.zeros(5, 1).long()),
        (torch.zeros(5).double(), torch.zeros(5).long()),
    ],
)
def test_running_neighbours_of_another_shape_are_refused(distances: Tensor, indices: Tensor) -> None:
    data = normal(5, 4, 11)
    state = operators.imle_knn_prepare(data, 1, None)
    with pytest.raises(RuntimeError, match="distances, indices: expected contiguous float64 and int64"):
        operators.imle_knn_set_running(state, data, distances, indices, 1)


@pytest.mark.gpu
def test_a_state_of_another_device_is_refused() -> None:
    data = normal(5, 4, 12)
    for here, there in ((data, data.cuda()), (data.cuda(), data)):
        state = operators.imle_knn_prepare(here, 1, None)
        with pytest.raises(RuntimeError, match="state: prepared for data on another device"):
            operators.imle_knn_update(state, there, there, 0)


def test_threads_take_turns() -> None:
    data, pool = normal(300, 40, 13), normal(6000, 40, 14)
    state = operators.imle_knn_prepare(data, 2, None)
    parts = [
        threading.Thread(
            target=lambda first=first: operators.imle_knn_update(
                state, data, pool[first : first + 500], first
            )
        )
        for first in range(0, 6000, 500)
    ]
    for part in parts:
        part.start()
    for part in parts:
        part.join()
    assert_same(operators.imle_knn_result(state, data), imle_knn(data, pool, 2))


def test_inference_mode_and_back() -> None:
    data, pool = normal(20, 12, 15), normal(90, 12, 16)
    expected = imle_knn(data, pool)
    with torch.inference_mode():
        search = ImleSearch(data).update(pool[:40])
    assert_same(search.update(pool[40:]).neighbours(), expected)
    search.reset()
    with torch.inference_mode():
        assert_same(search.update(pool).neighbours(), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda search: pickle.loads(pickle.dumps(search))]
)
def test_a_copy_goes_on_where_the_original_was(copied, dtype: torch.dtype) -> None:  # type: ignore[no-untyped-def]
    data, pool = normal(60, 30, 17).to(dtype), normal(700, 30, 18).to(dtype)
    search = ImleSearch(data, 2, reject_below=9.0).update(pool[:300])
    other: ImleSearch = copied(search)
    search.update(pool[:10], offset=0)
    assert (other.count, other.k, other.reject_below) == (300, 2, 9.0)
    assert_same(other.update(pool[300:]).neighbours(), imle_knn(data, pool, 2, reject_below=9.0))
    other.reset()
    assert_same(other.update(pool).neighbours(), imle_knn(data, pool, 2, reject_below=9.0))


def test_a_pickle_opens_under_another_instruction_set() -> None:
    data, pool = normal(60, 30, 19), normal(700, 30, 20)
    pickled = pickle.dumps(ImleSearch(data).update(pool[:300]))
    assert _native.extension is not None
    before = _native.extension.isa()
    _native.extension.force_isa("portable")
    try:
        assert_same(pickle.loads(pickled).update(pool[300:]).neighbours(), imle_knn(data, pool))
    finally:
        _native.extension.force_isa(before)


def test_an_instruction_set_forced_between_chunks() -> None:
    data, pool = normal(600, 300, 21), normal(3000, 300, 22)
    assert _native.extension is not None
    before = _native.extension.isa()
    _native.extension.force_method("projected")
    search = ImleSearch(data).update(pool[:1000])
    try:
        _native.extension.force_isa("portable")
        search.update(pool[1000:2000])
        _native.extension.force_isa(before)
        search.update(pool[2000:])
    finally:
        _native.extension.force_isa(before)
        _native.extension.force_method("")
    assert_same(search.neighbours(), imle_knn(data, pool))


@pytest.mark.parametrize("seed", [None, 7])
def test_no_generator_of_torch_is_touched(monkeypatch: pytest.MonkeyPatch, seed: int | None) -> None:
    """Finding axes for the projection takes no random numbers from anybody."""
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    if seed is not None:
        torch.manual_seed(seed)
        seeded.clear()
    before = torch.get_rng_state()
    data, pool = normal(600, 300, 23), normal(8000, 300, 24)
    search = ImleSearch(data)
    for chunk in (*pool.split(4000), *pool.split(4000)):
        search.update(chunk)
    assert torch.equal(torch.get_rng_state(), before)
    assert not seeded


def test_the_reference_keeps_the_same_state() -> None:
    data, pool = normal(20, 12, 25), normal(90, 12, 26)
    states = [NativeState(data, 3, 4.0), ReferenceState(data, 3, 4.0)]
    for state in states:
        state.update(pool[:50], 0)
        state.update(pool[50:].double(), 50)
        assert state.count == 90
    assert_same(states[0].running(), states[1].running())
    assert_same(states[0].result(), states[1].result())
    for state in states:
        state.reset()
        state.update(pool[:10], 100)
        assert state.count == 10
    assert_same(states[0].result(), states[1].result())
    assert isinstance(prepare(data.double(), 1, None), ReferenceState)
    assert Neighbours(*states[0].result()).indices.min() >= -1
