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


def run(kernel: ctypes.CDLL, inputs: list[Tensor], *, l1: bool) -> list[Tensor]:
    """Total, terms and gradients as torch.ops.naign.fused_loss returns them; no gradient where there is no input."""
    present = [*inputs, *[None] * (4 - len(inputs))]
    rooms = [torch.full((t.numel() + LANES,), 7.0, dtype=t.dtype) for t in inputs[1:]]
    gradients = [room[: t.numel()] for room, t in zip(rooms, inputs[1:], strict=True)]
    values = (ctypes.c_void_p * 4)(*[None if t is None else t.data_ptr() for t in present])
    outputs = (ctypes.c_void_p * 4)(*[None, *[g.data_ptr() for g in gradients], *[None] * (4 - len(inputs))])
    dtypes = (ctypes.c_int * 4)(*[0 if t is None else NUMBERS[t.dtype] for t in present])
    total, terms = torch.full((), 7.0), torch.full((3,), 7.0)
    status = kernel.emulated_fused_loss(
        values,
        outputs,
        dtypes,
        ctypes.c_int64(inputs[0].numel()),
        (ctypes.c_double * 3)(*WEIGHTS),
        ctypes.c_bool(l1),
        ctypes.c_void_p(total.data_ptr()),
        ctypes.c_void_p(terms.data_ptr()),
    )
    assert status == 0
    assert all((room[-LANES:] == 7).all() for room in rooms)
    return [total, terms, *gradients]


def on_the_cpu(inputs: list[Tensor], *, l1: bool) -> list[Tensor]:
    found = torch.ops.naign.fused_loss(*inputs, *[None] * (4 - len(inputs)), *WEIGHTS, l1)
    return list(found[: 1 + len(inputs)])


def normal(count: int, dtypes: tuple[torch.dtype, ...], seed: int, *, offset: int = 0) -> list[Tensor]:
    """Four vectors that begin `offset` elements after a multiple of 64 bytes."""
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(count + offset, generator=g).to(dtype)[offset:] for dtype in dtypes]


def assert_same_bits(kernel: ctypes.CDLL, inputs: list[Tensor], *, l1: bool) -> None:
    for actual, expected in zip(run(kernel, inputs, l1=l1), on_the_cpu(inputs, l1=l1), strict=True):
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
        gradients = normal(count, MIXED[1:], 7, offset=offset)
        expected = [(g.float() * scale).to(g.dtype) for g in gradients]
        places = (ctypes.c_void_p * 3)(gradients[0].data_ptr(), None, gradients[2].data_ptr())
        dtypes = (ctypes.c_int * 3)(*[NUMBERS[g.dtype] for g in gradients])
        expected[1] = gradients[1].clone()
        number = torch.tensor(scale)
        assert not kernel.emulated_scale_gradients(
            places, dtypes, ctypes.c_int64(count), ctypes.c_void_p(number.data_ptr())
        )
        for actual, wanted in zip(gradients, expected, strict=True):
            torch.testing.assert_close(actual, wanted, rtol=0, atol=0, equal_nan=True)


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
