"""fused_loss on a CUDA device: the bits of the CPU, under everything that torch does to an operator."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from naign_ext import fused_loss

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("built_with_cuda")]

NORMS = ("l2", "l1")
WEIGHTS = (1.0, 0.7, 0.3)
HALF, BRIEF, FULL = torch.float16, torch.bfloat16, torch.float32
DTYPES = [(FULL,) * 4, (BRIEF,) * 4, (HALF,) * 4, (FULL, BRIEF, BRIEF, BRIEF), (HALF, FULL, BRIEF, FULL)]
COUNTS = [1, 15, 17, 4095, 4096, 4097, 65535, 65536, 65537, 3 * 65536 + 4099]


def normal(count: int, dtypes: tuple[torch.dtype, ...], seed: int, *, offset: int = 0) -> list[Tensor]:
    """Vectors on the CPU that begin `offset` elements after their storage."""
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(count + offset, generator=g).to(d)[offset:].requires_grad_() for d in dtypes]


def on_device(inputs: list[Tensor], offset: int = 0) -> list[Tensor]:
    """Copies with the same misalignment."""
    rooms = [torch.empty(t.numel() + offset, dtype=t.dtype, device="cuda") for t in inputs]
    return [room[offset:].copy_(t.detach()).requires_grad_() for room, t in zip(rooms, inputs, strict=True)]


def answers(inputs: list[Tensor], *, norm: str, scale: float = 1.0) -> list[Tensor]:
    """Total, terms and gradients of all inputs."""
    found = fused_loss(*inputs, weights=WEIGHTS, norm=norm)
    total = found.total if scale == 1 else found.total * scale
    return [*found, *torch.autograd.grad(total, inputs)]


def assert_same_bits(found: list[Tensor], expected: list[Tensor]) -> None:
    for actual, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(actual.cpu(), wanted.cpu(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("present", [2, 3, 4])
@pytest.mark.parametrize("dtypes", DTYPES)
def test_every_kernel_gives_the_bits_of_the_cpu(
    dtypes: tuple[torch.dtype, ...], present: int, norm: str
) -> None:
    for count in COUNTS:
        inputs = normal(count, dtypes, count)[:present]
        assert_same_bits(answers(on_device(inputs), norm=norm), answers(inputs, norm=norm))


@pytest.mark.parametrize("offset", [1, 2, 4, 8])
@pytest.mark.parametrize("dtypes", DTYPES)
def test_misaligned_views(dtypes: tuple[torch.dtype, ...], offset: int) -> None:
    inputs = normal(2 * 65536 + 3, dtypes, 2, offset=offset)
    assert_same_bits(answers(on_device(inputs, offset), norm="l2"), answers(inputs, norm="l2"))


def test_strides() -> None:
    inputs = [t.detach().view(40, 30).T.requires_grad_() for t in normal(1200, (FULL,) * 4, 3)]
    copies = [t.detach().cuda().requires_grad_() for t in inputs]
    assert not copies[1].is_contiguous()
    assert_same_bits(answers(copies, norm="l2"), answers(inputs, norm="l2"))
    rows = [t.detach().T.reshape(40, 30) for t in copies[1:]]
    expanded = [torch.zeros(1, 30, device="cuda").expand(40, 30), *rows]
    assert fused_loss(*expanded).total.item() == fused_loss(*[t.cpu() for t in expanded]).total.item()


@pytest.mark.parametrize("scale", [3.0, -0.5, 2.0**17])
@pytest.mark.parametrize("dtypes", DTYPES)
def test_a_scale_of_the_loss(dtypes: tuple[torch.dtype, ...], scale: float) -> None:
    inputs = normal(70001, dtypes, 4)
    found, expected = (answers(t, norm="l2", scale=scale) for t in (on_device(inputs), inputs))
    assert_same_bits(found, expected)


# Places in a list of four tensors of one size and three of another.
LISTS = {
    "two from the middle": [(0, 1, 1.0), (2, 0, 0.5)],
    "a star": [(1, 0, 1.0), (2, 0, 0.5), (3, 0, 0.25)],
    "every pair": [(i, j, 1.0 / (1 + i + j)) for i in range(4) for j in range(4) if i != j],
    "two sizes": [(1, 0, 1.0), (4, 5, 0.5), (2, 0, 0.25), (3, 0, 0.1), (6, 4, 0.125)],
    "more terms than a launch takes": [(1 + i % 3, 0, 1.0 / (i + 1)) for i in range(101)],
}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtypes", DTYPES)
@pytest.mark.parametrize("name", LISTS)
def test_lists_of_terms_give_the_bits_of_the_cpu(
    name: str, dtypes: tuple[torch.dtype, ...], norm: str
) -> None:
    for count, offset in ((17, 0), (65536 + 4099, 0), (65536 + 4099, 1)):
        inputs = [
            *normal(count, dtypes, count, offset=offset),
            *normal(count // 2, dtypes[:3], 3, offset=offset),
        ]
        places = sorted({place for *pair, _ in LISTS[name] for place in pair})
        both = []
        for tensors in (on_device(inputs, offset), inputs):
            found = fused_loss([(tensors[p], tensors[t], w) for p, t, w in LISTS[name]], norm=norm)
            gradients = torch.autograd.grad(found.total * 3, [tensors[i] for i in places])
            both.append([*found, *gradients])
        assert_same_bits(*both)


def test_a_gradient_scaler_loses_no_float16_gradient() -> None:
    g = torch.Generator().manual_seed(16)
    count = 128 * 3 * 64 * 64
    start = (torch.randn(count, generator=g) * 0.02).half().cuda()
    x = torch.zeros(count, device="cuda")
    gradients = []
    for loss in (lambda y: fused_loss([(y, x, 1.0)]).total, lambda y: (y.float() - x).square().mean()):
        y = start.clone().requires_grad_()
        gradients.append(torch.autograd.grad(loss(y) * 65536, y)[0])
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-7)
    assert not ((gradients[0] == 0) & (gradients[1] != 0)).any()


def test_second_derivatives_on_the_device() -> None:
    x, y = (t.detach() for t in on_device(normal(40, (FULL,) * 2, 17)))
    found = []
    for loss in (lambda y: fused_loss(x, y).total, lambda y: (y - x).square().mean()):
        leaf = y.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
        found.append(torch.autograd.grad(gradient.square().sum(), leaf)[0])
    torch.testing.assert_close(*found)


def test_a_scale_beyond_half_precision() -> None:
    x = torch.zeros(4096, device="cuda")
    r = torch.full((4096,), 2.0**-8, dtype=HALF, device="cuda", requires_grad=True)
    (found,) = torch.autograd.grad(fused_loss(x, r).total * 2.0**17, r)
    torch.testing.assert_close(found, torch.full_like(r, 2.0**-2), rtol=0, atol=0)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e-42, 3e38])
def test_extremes(bad: float, norm: str) -> None:
    inputs = [t.detach() for t in normal(5000, (FULL,) * 4, 5)]
    inputs[1][4321], inputs[2][17] = bad, -bad
    for t in inputs:
        t.requires_grad_()
    assert_same_bits(answers(on_device(inputs), norm=norm), answers(inputs, norm=norm))


@pytest.mark.parametrize("shape", [(0,), (0, 5)])
def test_empty_batches(shape: tuple[int, ...]) -> None:
    inputs = [torch.zeros(shape, device="cuda", requires_grad=True) for _ in range(4)]
    found = fused_loss(*inputs)
    assert found.total.item() == 0
    assert all(g.shape == shape for g in torch.autograd.grad(found.total, inputs))


def test_the_same_bits_every_time() -> None:
    inputs = on_device(normal(3_000_017, (FULL,) * 4, 6))
    first = [t.clone() for t in answers(inputs, norm="l2")]
    for _ in range(5):
        assert_same_bits(answers(inputs, norm="l2"), first)


def test_more_elements_than_32_bits_count() -> None:
    count = 2**31 + 4099
    if torch.cuda.mem_get_info()[0] < 14 * count:
        pytest.fail("needs 30 GB of free memory on the device")
    r = torch.zeros(count, dtype=BRIEF, device="cuda")
    x = torch.zeros(count, dtype=BRIEF, device="cuda")
    r[-1], r[2**31] = 3.0, 2.0
    columns = [1], [0], [float(count)]
    _, terms, (gradient,) = torch.ops.naign.fused_loss([x, r], *columns, False, [1])
    assert terms[0].item() == pytest.approx(13 / count, rel=1e-6)
    assert gradient[-1].item() == 6.0 and gradient[2**31].item() == 4.0
    assert gradient.count_nonzero().item() == 2


@pytest.mark.parametrize("present", [2, 3, 4])
def test_opcheck(present: int) -> None:
    inputs = on_device(normal(77, (FULL,) * 4, 7))[:present]
    columns = [column[: present - 1] for column in ([1, 2, 3], [0, 0, 2], [1.0, 0.5, 0.2])]
    for l1, wanted in itertools.product((False, True), (list(range(present)), [1], [])):
        torch.library.opcheck(torch.ops.naign.fused_loss, (inputs, *columns, l1, wanted))
        constants = [t.detach() for t in inputs]
        scale = torch.tensor(2.0, device="cuda")
        torch.library.opcheck(torch.ops.naign.fused_loss_gradients, (constants, *columns, l1, wanted, scale))


@pytest.mark.parametrize("norm", NORMS)
def test_gradcheck_of_float64_on_the_device(norm: str) -> None:
    inputs = [t.detach().double().cuda().requires_grad_() for t in normal(20, (FULL,) * 4, 8)]
    torch.autograd.gradcheck(lambda *t: fused_loss(*t, weights=(1.0, 2.0, 0.5), norm=norm).total, inputs)


@pytest.mark.slow
def test_compiles_to_a_full_graph() -> None:
    inputs = on_device(normal(33 * 7, (FULL,) * 4, 9))
    compiled = torch.compile(lambda *t: fused_loss(*t).total, fullgraph=True)
    expected = torch.autograd.grad(fused_loss(*inputs).total, inputs)
    torch.testing.assert_close(torch.autograd.grad(compiled(*inputs), inputs), expected)


def test_autocast() -> None:
    inputs = on_device(normal(64, (FULL,) * 4, 10))
    with torch.autocast("cuda", dtype=BRIEF):
        found = fused_loss(*inputs)
    assert found.total == fused_loss(*inputs).total


def test_the_host_never_waits(no_waiting: None) -> None:
    inputs = [torch.randn(70001, device="cuda", requires_grad=True) for _ in range(4)]
    fused_loss(*inputs).total.backward()
    (fused_loss(*inputs).total * 2).backward()


def test_a_graph_replays_on_other_values() -> None:
    inputs = on_device(normal(70001, (FULL,) * 4, 11))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            answers(inputs, norm="l2")
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = answers(inputs, norm="l2")
    for seed in (12, 13):
        fresh = normal(70001, (FULL,) * 4, seed)
        with torch.no_grad():
            for held, new in zip(inputs, fresh, strict=True):
                held.copy_(new)
        graph.replay()
        assert_same_bits(captured, answers(fresh, norm="l2"))


def test_the_current_stream_is_used() -> None:
    count = 1 << 24
    inputs = [torch.randn(count, device="cuda") for _ in range(3)]
    expected = fused_loss(*inputs).total.item()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        late = [torch.zeros(count, device="cuda") for _ in range(3)]
        torch.cuda._sleep(20_000_000)
        for target, source in zip(late, inputs, strict=True):
            target.copy_(source)
        total = fused_loss(*late).total
    stream.synchronize()
    assert total.item() == expected


def test_a_retained_graph_gives_its_gradients_again() -> None:
    inputs = on_device(normal(9 * 31, (FULL,) * 4, 14))
    total = fused_loss(*inputs).total * 3
    first = torch.autograd.grad(total, inputs, retain_graph=True)
    assert_same_bits(list(torch.autograd.grad(total, inputs, retain_graph=True)), list(first))
    assert_same_bits(list(torch.autograd.grad(total, inputs)), list(first))


def test_backward_hands_out_the_gradients_without_copying_them() -> None:
    _, r, m, q = on_device(normal(9 * 31, (FULL,) * 4, 15))
    total = fused_loss(torch.zeros(9 * 31, device="cuda"), r, m, q).total
    made = total.grad_fn.saved_tensors[4:]
    addresses = [t.data_ptr() for t in made]
    del made
    total.backward()
    assert [t.grad.data_ptr() for t in (r, m, q)] == addresses


def test_other_devices_are_refused() -> None:
    x = torch.zeros(4, device="cuda")
    with pytest.raises(ValueError, match="reconstruction: expected device"):
        fused_loss(x, torch.zeros(4))
    with pytest.raises(RuntimeError, match="tensors: expected all on one device"):
        torch.ops.naign.fused_loss([x, torch.zeros(4)], [1], [0], [1.0], False, [])
