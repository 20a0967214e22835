"""The CUDA kernels of the fused loss, run on the CPU by tests/native/emulation: the bits of the CPU's own kernels."""

import ctypes
import itertools

import numpy as np
import pytest
import torch
from emulated import build
from torch import Tensor

from naign_ext import _native

PIECE = 1 << 16
LANES = 16
NUMBERS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
WEIGHTS = (1.0, 0.7, -0.3)
MIXED = (torch.float32, torch.bfloat16, torch.float16, torch.float32)
UNIFORM = [(dtype,) * 4 for dtype in NUMBERS]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    if _native.extension is None:
        pytest.skip("needs the compiled extension")
    return build(tmp_path_factory.mktemp("emulation"), "fused_loss")


@pytest.fixture(autouse=True)
def _on_hopper(request: pytest.FixtureRequest) -> None:
    if "kernel" in request.fixturenames:
        request.getfixturevalue("kernel").emulated_device(ctypes.c_int(90), ctypes.c_int(0))


Terms = list[tuple[int, int, float]]
WHOLE = list(zip((1, 2, 3), (0, 0, 2), WEIGHTS, strict=True))  # reconstruction, IMLE, idempotence


class TensorRow(ctypes.Structure):
    """A tensor as tests/native/emulation/fused_loss.cpp takes it."""

    _fields_ = (
        ("values", ctypes.c_void_p),
        ("gradient", ctypes.c_void_p),
        ("elements", ctypes.c_int64),
        ("dtype", ctypes.c_int64),
    )


def table(tensors: list[Tensor], gradients: list[Tensor | None]) -> ctypes.Array:
    """A row for each tensor; those without room for a gradient want none."""
    rows = [
        TensorRow(t.data_ptr(), None if g is None else g.data_ptr(), t.numel(), NUMBERS[t.dtype])
        for t, g in zip(tensors, gradients, strict=True)
    ]
    return (TensorRow * len(rows))(*rows)


def columns(terms: Terms) -> tuple[ctypes.Array, ctypes.Array, ctypes.Array]:
    predictions, targets, weights = zip(*terms, strict=True)
    indices = ctypes.c_int64 * len(terms)
    return indices(*predictions), indices(*targets), (ctypes.c_double * len(terms))(*weights)


def run(
    kernel: ctypes.CDLL,
    inputs: list[Tensor],
    *,
    l1: bool,
    terms: Terms | None = None,
    wanted: list[int] | None = None,
    scale: float | None = None,
) -> list[Tensor]:
    """Total, terms and the wanted gradients (all but the first) as torch.ops.naign.fused_loss returns them."""
    terms = WHOLE[: len(inputs) - 1] if terms is None else terms
    wanted = list(range(1, len(inputs))) if wanted is None else wanted
    rooms = {i: torch.full((inputs[i].numel() + LANES,), 7.0, dtype=inputs[i].dtype) for i in wanted}
    gradients = [rooms[i][: t.numel()] if i in rooms else None for i, t in enumerate(inputs)]
    total, each = torch.full((), 7.0), torch.full((len(terms),), 7.0)
    factor = None if scale is None else torch.tensor(scale)
    status = kernel.emulated_fused_loss(
        table(inputs, gradients),
        ctypes.c_int(len(inputs)),
        *columns(terms),
        ctypes.c_int(len(terms)),
        ctypes.c_bool(l1),
        ctypes.c_void_p(None if factor is None else factor.data_ptr()),
        ctypes.c_void_p(total.data_ptr()),
        ctypes.c_void_p(each.data_ptr()),
    )
    assert status == 0
    assert all((room[-LANES:] == 7).all() for room in rooms.values())
    return [total, each, *[g for g in gradients if g is not None]]


def on_the_cpu(
    inputs: list[Tensor], *, l1: bool, terms: Terms | None = None, wanted: list[int] | None = None
) -> list[Tensor]:
    terms = WHOLE[: len(inputs) - 1] if terms is None else terms
    wanted = list(range(1, len(inputs))) if wanted is None else wanted
    columns = [list(column) for column in zip(*terms, strict=True)]
    total, each, gradients = torch.ops.naign.fused_loss(inputs, *columns, l1, wanted)
    return [total, each, *gradients]


def normal(count: int, dtypes: tuple[torch.dtype, ...], seed: int, *, offset: int = 0) -> list[Tensor]:
    """Four vectors that begin `offset` elements after a multiple of 64 bytes."""
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(count + offset, generator=g).to(dtype)[offset:] for dtype in dtypes]


def assert_same_bits(
    kernel: ctypes.CDLL,
    inputs: list[Tensor],
    *,
    l1: bool,
    terms: Terms | None = None,
    wanted: list[int] | None = None,
) -> None:
    pairs = zip(
        run(kernel, inputs, l1=l1, terms=terms, wanted=wanted),
        on_the_cpu(inputs, l1=l1, terms=terms, wanted=wanted),
        strict=True,
    )
    for actual, expected in pairs:
        torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("l1", [False, True])
@pytest.mark.parametrize("terms", [1, 2, 3])
@pytest.mark.parametrize("dtypes", [*UNIFORM, MIXED, MIXED[::-1]])
def test_every_kernel_gives_the_bits_of_the_cpu(
    kernel: ctypes.CDLL, dtypes: tuple[torch.dtype, ...], terms: int, l1: bool
) -> None:
    for count in (1, 4096 + 17, PIECE + 4096 + 5):
        assert_same_bits(kernel, normal(count, dtypes, count)[: terms + 1], l1=l1)


@pytest.mark.parametrize("capability", [75, 80, 89, 120])
@pytest.mark.parametrize("terms", [1, 2, 3])
def test_devices_with_less_shared_memory_and_fewer_threads(
    kernel: ctypes.CDLL, terms: int, capability: int
) -> None:
    """The emulation stops where a block asks for more than the device has."""
    kernel.emulated_device(ctypes.c_int(capability), ctypes.c_int(0))
    for dtypes, l1 in itertools.product([*UNIFORM, MIXED], (False, True)):
        for count in (1, 2048 * 2 + 17, PIECE + 5):
            assert_same_bits(kernel, normal(count, dtypes, count)[: terms + 1], l1=l1)
        assert_same_bits(kernel, normal(3000, dtypes, 8, offset=1)[: terms + 1], l1=l1)


@pytest.mark.parametrize("terms", [1, 2, 3])
def test_the_order_of_threads_and_blocks_does_not_matter(kernel: ctypes.CDLL, terms: int) -> None:
    kernel.emulated_device(ctypes.c_int(90), ctypes.c_int(1))
    for dtypes in (*UNIFORM, MIXED):
        assert_same_bits(kernel, normal(PIECE + 3 * 4096 + 5, dtypes, 9)[: terms + 1], l1=False)


@pytest.mark.parametrize("count", [2, 15, 16, 4095, 4096, 4097, 8192, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE])
def test_every_kind_of_tail(kernel: ctypes.CDLL, count: int) -> None:
    for dtype in NUMBERS:
        assert_same_bits(kernel, normal(count, (dtype,) * 4, 1), l1=False)


@pytest.mark.parametrize("offset", [1, 2, 4, 8])
@pytest.mark.parametrize("dtypes", [*UNIFORM, MIXED])
def test_inputs_that_begin_anywhere(
    kernel: ctypes.CDLL, dtypes: tuple[torch.dtype, ...], offset: int
) -> None:
    assert_same_bits(kernel, normal(4096 * 2 + 3, dtypes, 2, offset=offset), l1=False)


def test_only_one_input_begins_oddly(kernel: ctypes.CDLL) -> None:
    for odd in range(4):
        inputs = normal(5000, (torch.float32,) * 4, 3)
        inputs[odd] = normal(5000, (torch.float32,) * 4, 4, offset=1)[odd]
        assert_same_bits(kernel, inputs, l1=True)


@pytest.mark.parametrize("l1", [False, True])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e-42, 3e38])
def test_extremes(kernel: ctypes.CDLL, bad: float, l1: bool) -> None:
    inputs = normal(5000, (torch.float32,) * 4, 5)
    inputs[1][4321], inputs[2][17], inputs[3][4999] = bad, -bad, bad
    assert_same_bits(kernel, inputs, l1=l1)


def test_nothing_at_all(kernel: ctypes.CDLL) -> None:
    total, terms, *_ = run(kernel, normal(0, (torch.float32,) * 4, 6), l1=False)
    assert total == 0 and terms.tolist() == [0, 0, 0]


@pytest.mark.parametrize("scale", [1.0, 3.0, 2.0**17, float("nan")])
@pytest.mark.parametrize("offset", [0, 1])
def test_scaling(kernel: ctypes.CDLL, scale: float, offset: int) -> None:
    for count in (1, 7, 4096 * 3 + 5):
        gradients = [
            *normal(count, MIXED[1:], 7, offset=offset),
            *normal(count + 40, MIXED[1:], 8, offset=1 - offset),
            *normal(5, (torch.float32,) * 50, 9),
        ]
        expected = [(g.float() * scale).to(g.dtype) for g in gradients]
        number = torch.tensor(scale)
        rows = table(gradients, gradients)
        assert not kernel.emulated_scale_gradients(
            rows, ctypes.c_int(len(rows)), ctypes.c_void_p(number.data_ptr())
        )
        for actual, wanted in zip(gradients, expected, strict=True):
            torch.testing.assert_close(actual, wanted, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("scale", [1.0, 3.0, 2.0**17])
@pytest.mark.parametrize("dtypes", [*UNIFORM, MIXED])
def test_gradients_times_a_scale_are_rounded_once(
    kernel: ctypes.CDLL, dtypes: tuple[torch.dtype, ...], scale: float
) -> None:
    for terms in (WHOLE, [*WHOLE, (3, 1, 0.1)]):
        inputs, wanted = normal(4096 + 5, dtypes, 10), [0, 1, 2, 3]
        columns = [list(column) for column in zip(*terms, strict=True)]
        expected = torch.ops.naign.fused_loss_gradients(inputs, *columns, False, wanted, torch.tensor(scale))
        found = run(kernel, inputs, l1=False, terms=terms, wanted=wanted, scale=scale)[2:]
        for actual, of_cpu in zip(found, expected, strict=True):
            torch.testing.assert_close(actual, of_cpu, rtol=0, atol=0)


# Four tensors of one size, three of another.
SHAPES = {
    "a path in any order": [(2, 3, 0.3), (2, 1, 0.5), (1, 0, 0.7)],
    "two terms from the middle": [(0, 1, 1.0), (2, 0, 0.5)],
    "a star": [(1, 0, 1.0), (2, 0, 0.5), (3, 0, 0.25)],
    "a cycle": [(1, 0, 1.0), (2, 1, 0.5), (0, 2, 0.25)],
    "one pair twice": [(1, 0, 1.0), (0, 1, 0.5)],
    "every pair": [(i, j, 1.0 / (1 + i + j)) for i in range(4) for j in range(4) if i != j],
    "two groups": [(1, 0, 1.0), (5, 4, 0.5), (2, 0, 0.25), (6, 5, 0.125)],
    "two groups, one in steps": [(1, 0, 1.0), (4, 5, 0.5), (2, 0, 0.25), (3, 0, 0.1), (6, 4, 0.125)],
    "more terms than a launch takes": [(1 + i % 3, 0, 1.0 / (i + 1)) for i in range(101)],
}
STEPS = [[1], [1], [3], [3], [2], [12], [1, 1], [3, 1], [101]]


@pytest.mark.parametrize(
    ("terms", "expected"), list(zip(SHAPES.values(), STEPS, strict=True)), ids=list(SHAPES)
)
def test_paths_are_one_step(kernel: ctypes.CDLL, terms: Terms, expected: list[int]) -> None:
    inputs = [*normal(9, MIXED, 1), *normal(5, MIXED[:3], 1)]
    predictions, targets, _ = columns(terms)
    steps = (ctypes.c_int64 * 8)()
    rows = table(inputs, [None] * len(inputs))
    kernel.loss_steps(rows, ctypes.c_int(len(rows)), predictions, targets, ctypes.c_int(len(terms)), steps)
    assert [*itertools.takewhile(bool, steps)] == expected


@pytest.mark.parametrize("l1", [False, True])
@pytest.mark.parametrize("capability", [75, 90])
@pytest.mark.parametrize("name", SHAPES)
def test_terms_of_every_shape(kernel: ctypes.CDLL, name: str, capability: int, l1: bool) -> None:
    kernel.emulated_device(ctypes.c_int(capability), ctypes.c_int(0))
    many = len(SHAPES[name]) > 48
    for dtypes, offset in itertools.product([MIXED] if many else [*UNIFORM, MIXED], (0, 1)):
        count = PIECE + 4096 + 5 if dtypes is MIXED and not many else 4096 + 7
        inputs = [
            *normal(count, dtypes, 11, offset=offset),
            *normal(4099, dtypes[:3], 12, offset=offset),
        ]
        touched = sorted({place for *pair, _ in SHAPES[name] for place in pair})
        for wanted in (touched, touched[::2], []):
            assert_same_bits(kernel, inputs, l1=l1, terms=SHAPES[name], wanted=wanted)


def test_steps_in_any_order_of_threads(kernel: ctypes.CDLL) -> None:
    kernel.emulated_device(ctypes.c_int(90), ctypes.c_int(1))
    inputs = normal(PIECE + 4096 + 5, MIXED, 13)
    assert_same_bits(kernel, inputs, l1=False, terms=SHAPES["every pair"], wanted=[0, 1, 2, 3])


def ordered_mean(values: np.ndarray) -> np.float32:
    """The mean of values as the header orders its sum: lanes within a piece, then the lanes, then the pieces."""
    total = np.float64(0)
    for start in range(0, len(values), PIECE):
        piece = values[start : start + PIECE].astype(np.float64)
        steps = np.pad(piece, (0, -len(piece) % LANES)).reshape(-1, LANES)
        lanes = np.zeros(LANES)
        for step in steps:
            lanes = lanes + step
        of_piece = np.float64(0)
        for lane in lanes:
            of_piece += lane
        total += of_piece
    return np.float32(total / len(values))


def telling_values(count: int, seed: int) -> np.ndarray:
    """Numbers whose float32 mean depends on the order: crumbs that one large sum swallows and their own sum does not.

    The large ones add up to count * (1 + 2^-24), half way between two float32 numbers.
    """
    g = np.random.default_rng(seed)
    values = np.zeros(count, dtype=np.float32)
    where = g.permutation(count)
    values[where[0]], values[where[1]] = count, count * 2.0**-24
    crumbs = where[2 : 2 + int(g.integers(1, 40))]
    values[crumbs] = count * 2.0**-54
    return values


@pytest.mark.parametrize("count", [64, 4096, 2 * PIECE])
def test_the_order_of_summation_is_the_headers(kernel: ctypes.CDLL, count: int) -> None:
    outcomes = set()
    for seed in range(24):
        values = telling_values(count, seed)
        inputs = [torch.zeros(count), torch.from_numpy(values)]
        expected = ordered_mean(values)
        outcomes.add(float(expected))
        assert run(kernel, inputs, l1=True)[1][0].item() == expected
        assert on_the_cpu(inputs, l1=True)[1][0].item() == expected
    assert outcomes == {1.0, 1 + 2.0**-23}


def test_orders_can_be_told_apart() -> None:
    """Another order of the same values gives another answer: the test above can fail."""
    values = telling_values(4096, 0)
    answers = {
        float(np.float32(values[list(order)].astype(np.float64).cumsum()[-1] / 4096))
        for order in itertools.chain(
            [range(4096)], [np.argsort(values, kind="stable")], [np.argsort(-values, kind="stable")]
        )
    }
    assert len(answers) == 2
