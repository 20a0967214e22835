"""fused_loss against the written-out expression in float64."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from naign_ext import _native, fused_loss

NORMS = ("l2", "l1")


def tensors(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=g).to(dtype).requires_grad_() for _ in range(4)]


def written_out(
    inputs: list[Tensor], weights: tuple[float, float, float], norm: str
) -> tuple[Tensor, list[Tensor]]:
    x, r, m, q = (t.double() for t in inputs)
    terms = [
        (a - b).square().mean() if norm == "l2" else (a - b).abs().mean() for a, b in ((r, x), (m, x), (q, m))
    ]
    return sum(w * t for w, t in zip(weights, terms, strict=True)), terms


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(1,), (3, 5), (7, 3, 11, 13), (2049,), (65537,), (3, 70001)])
def test_values_and_gradients(shape: tuple[int, ...], dtype: torch.dtype, norm: str) -> None:
    inputs = tensors(shape, 1, dtype)
    weights = (1.0, 0.7, 0.3)
    found = fused_loss(*inputs, weights=weights, norm=norm)
    total, terms = written_out(inputs, weights, norm)
    torch.testing.assert_close(found.total.double(), total, rtol=1e-6, atol=0)
    for actual, expected in zip(found[1:], terms, strict=True):
        assert not actual.requires_grad
        torch.testing.assert_close(actual.double(), expected.detach(), rtol=1e-6, atol=0)
    actual_gradients = torch.autograd.grad(found.total * 3, inputs)
    expected_gradients = torch.autograd.grad(total * 3, inputs)
    for actual, expected in zip(actual_gradients, expected_gradients, strict=True):
        assert actual.dtype == dtype
        spread = expected.abs().max()
        tolerance = {torch.float64: 1e-14, torch.float32: 1e-6, torch.float16: 3e-3, torch.bfloat16: 2e-2}[
            dtype
        ]
        floor = 6e-8 * 4 if dtype == torch.float16 else 0
        torch.testing.assert_close(actual, expected, rtol=0, atol=float(spread) * tolerance + floor)


@pytest.mark.parametrize("norm", NORMS)
def test_absent_terms(norm: str) -> None:
    x, r, m, _ = tensors((6, 9), 2)
    both = fused_loss(x, r, m, norm=norm)
    assert both.idempotence == 0
    only = fused_loss(x, r, norm=norm)
    assert only.imle == 0
    assert only.reconstruction == both.reconstruction
    torch.testing.assert_close(only.total, only.reconstruction)
    grad_x, grad_r = torch.autograd.grad(only.total, (x, r))
    torch.testing.assert_close(grad_x, -grad_r)


@pytest.mark.parametrize("norm", NORMS)
def test_gradcheck(norm: str) -> None:
    inputs = tensors((4, 5), 3, torch.float64)
    torch.autograd.gradcheck(lambda *t: fused_loss(*t, weights=(1.0, 2.0, 0.5), norm=norm).total, inputs)
    torch.autograd.gradcheck(lambda *t: fused_loss(*t, weights=(1.0, 2.0, 0.5), norm=norm).total, inputs[:3])


COLUMNS = ([1, 2, 3], [0, 0, 2], [1.0, 0.5, 0.2])


@pytest.mark.parametrize("suffix", ["", "_reference"])
@pytest.mark.parametrize("present", [2, 3, 4])
@pytest.mark.parametrize("l1", [False, True])
def test_opcheck(suffix: str, present: int, l1: bool) -> None:
    inputs = tensors((4, 5), 4)[:present]
    columns = [column[: present - 1] for column in COLUMNS]
    for wanted in (list(range(present)), [1], []):
        torch.library.opcheck(getattr(torch.ops.naign, f"fused_loss{suffix}"), (inputs, *columns, l1, wanted))
        constants = [t.detach() for t in inputs]
        torch.library.opcheck(
            getattr(torch.ops.naign, f"fused_loss_gradients{suffix}"),
            (constants, *columns, l1, wanted, torch.tensor(2.0)),
        )


@pytest.mark.slow
def test_compiles_to_a_full_graph() -> None:
    inputs = tensors((33, 7), 5)
    compiled = torch.compile(lambda *t: fused_loss(*t).total, fullgraph=True)
    expected = torch.autograd.grad(fused_loss(*inputs).total, inputs)
    torch.testing.assert_close(torch.autograd.grad(compiled(*inputs), inputs), expected)


def test_mixed_dtypes_and_strides() -> None:
    x, r, m, q = (t.detach() for t in tensors((40, 30), 6))
    inputs = [x, r.half(), m.T.contiguous().T, q.bfloat16()[:, :]]
    for t in inputs:
        t.requires_grad_()
    found = fused_loss(*inputs)
    total, _ = written_out(inputs, (1.0, 1.0, 1.0), "l2")
    torch.testing.assert_close(found.total.double(), total, rtol=1e-6, atol=0)
    gradients = torch.autograd.grad(found.total, inputs)
    for gradient, expected in zip(gradients, torch.autograd.grad(total, inputs), strict=True):
        assert gradient.dtype == expected.dtype
        # The gradient of data is the sum of the others, of which one is bfloat16.
        torch.testing.assert_close(gradient, expected, rtol=1e-2, atol=2.0**-8 * float(expected.abs().max()))


def test_the_result_does_not_depend_on_threads() -> None:
    inputs = tensors((300, 1001), 7)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found = fused_loss(*inputs)
            results.append((found.total.item(), torch.autograd.grad(found.total, inputs)))
    finally:
        torch.set_num_threads(before)
    for total, gradients in results[1:]:
        assert total == results[0][0]
        for actual, expected in zip(gradients, results[0][1], strict=True):
            torch.testing.assert_close(actual, expected, rtol=0, atol=0)


DTYPE_CHOICES = [
    (torch.float32,) * 4,
    (torch.bfloat16,) * 4,
    (torch.float16,) * 4,
    (torch.float32, torch.bfloat16, torch.float16, torch.float32),
    (torch.float16, torch.float32, torch.float32, torch.bfloat16),
]


@pytest.fixture
def isas() -> Iterator[list[str]]:
    """The instruction sets of this processor; the one in use is restored afterwards."""
    assert _native.extension is not None
    before = _native.extension.isa()
    features = _native.extension.cpu_features()
    yield ["portable", *(isa for isa in ("avx2", "avx512") if features[isa])]
    _native.extension.force_isa(before)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtypes", DTYPE_CHOICES)
@pytest.mark.parametrize("count", [1, 15, 16, 17, 33, 65536 + 31])
def test_instruction_sets_agree_bit_for_bit(
    isas: list[str], count: int, dtypes: tuple[torch.dtype, ...], norm: str
) -> None:
    inputs = [
        t.detach().to(dtype).requires_grad_() for t, dtype in zip(tensors((count,), 12), dtypes, strict=True)
    ]
    answers = []
    for isa in isas:
        _native.extension.force_isa(isa)
        for present in (2, 3, 4):
            found = fused_loss(*inputs[:present], weights=(1.0, 0.7, 0.3), norm=norm)
            answers.append((isa, present, [*found, *torch.autograd.grad(found.total, inputs[:present])]))
    for _, present, answer in answers:
        for actual, expected in zip(answer, answers[present - 2][2], strict=True):
            torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("count", [2**20, 2**20 * 2 + 5])
def test_large_inputs(isas: list[str], count: int, norm: str) -> None:
    inputs = tensors((count,), 13)
    total, terms = written_out(inputs, (1.0, 0.5, 0.25), norm)
    x, r, m, q = (t.detach() for t in inputs)
    slope = [torch.tensor(w * (2 if norm == "l2" else 1) / count).float() for w in (1.0, 0.5, 0.25)]
    a, b, c = (
        s * (d if norm == "l2" else d.sign()) for s, d in zip(slope, (r - x, m - x, q - m), strict=True)
    )
    for isa in isas:
        _native.extension.force_isa(isa)
        found = fused_loss(*inputs, weights=(1.0, 0.5, 0.25), norm=norm)
        torch.testing.assert_close(found.total.double(), total, rtol=1e-7, atol=0)
        for actual, term in zip(found[1:], terms, strict=True):
            torch.testing.assert_close(actual.double(), term.detach(), rtol=1e-7, atol=0)
        gradients = torch.autograd.grad(found.total, inputs[1:])
        for gradient, expected in zip(gradients, (a, b - c, c), strict=True):
            torch.testing.assert_close(gradient, expected, rtol=0, atol=0)


def gradients_by_hand(inputs: list[Tensor]) -> list[Tensor]:
    leaves = [t.detach().double().requires_grad_() for t in inputs]
    return list(torch.autograd.grad(written_out(leaves, (1.0, 1.0, 1.0), "l2")[0], leaves))


def assert_gradients(actual: list[Tensor], inputs: list[Tensor], times: float) -> None:
    for gradient, expected in zip(actual, gradients_by_hand(inputs), strict=True):
        torch.testing.assert_close(gradient.double(), expected * times, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_a_retained_graph_gives_its_gradients_again(factor: float) -> None:
    inputs = tensors((9, 31), 14)
    total = fused_loss(*inputs).total * factor if factor != 1 else fused_loss(*inputs).total
    for calls in (1, 2, 3):
        total.backward(retain_graph=True)
        assert_gradients([t.grad for t in inputs], inputs, factor * calls)
    for t in inputs:
        t.grad.zero_()
    for gradient in torch.autograd.grad(total, inputs, retain_graph=True):
        gradient.fill_(7)
    total.backward()
    assert_gradients([t.grad for t in inputs], inputs, factor)
    with pytest.raises(RuntimeError, match="second time"):
        total.backward()


def test_gradients_accumulate() -> None:
    inputs = tensors((9, 31), 15)
    for calls in (1, 2, 3):
        fused_loss(*inputs).total.backward()
        assert_gradients([t.grad for t in inputs], inputs, calls)


def test_a_shared_input_gets_the_sum_of_its_gradients() -> None:
    x, r, _, _ = tensors((9, 31), 16)
    y = r * 1
    first, second = fused_loss(x, y, y).total, fused_loss(x, y).total
    total = first + second
    for calls in (1, 2):
        total.backward(retain_graph=calls == 1)
        expected = (r.detach() - x.detach()).double() * (6 * calls / r.numel())
        torch.testing.assert_close(r.grad.double(), expected, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(x.grad.double(), -expected, rtol=1e-5, atol=1e-7)


def test_backward_hands_out_the_gradients_without_copying_them() -> None:
    _, r, m, q = tensors((9, 31), 17)
    x = torch.zeros(9, 31)
    total = fused_loss(x, r, m, q).total
    made = total.grad_fn.saved_tensors[4:]
    addresses = [t.data_ptr() for t in made]
    del made
    total.backward()
    assert [t.grad.data_ptr() for t in (r, m, q)] == addresses


def test_only_wanted_gradients() -> None:
    inputs = tensors((9, 31), 18)
    for wanted in range(4):
        for position, t in enumerate(inputs):
            t.requires_grad_(position == wanted)
        found = torch.autograd.grad(fused_loss(*inputs).total, inputs[wanted])
        expected = gradients_by_hand(inputs)[wanted]
        torch.testing.assert_close(found[0].double(), expected, rtol=1e-5, atol=1e-7)


def test_batched_gradients() -> None:
    inputs = tensors((4, 5), 19)
    total = fused_loss(*inputs).total
    scales = torch.tensor([1.0, -2.0, 0.5])
    found = torch.autograd.grad(total, inputs, scales, is_grads_batched=True)
    for row, scale in enumerate(scales.tolist()):
        assert_gradients([g[row] for g in found], inputs, scale)


def test_a_scale_beyond_half_precision() -> None:
    x = torch.zeros(4096)
    r = torch.full((4096,), 2.0**-8, dtype=torch.float16, requires_grad=True)
    (found,) = torch.autograd.grad(fused_loss(x, r).total * 2.0**17, r)
    torch.testing.assert_close(found, torch.full_like(r, 2.0**-2), rtol=0, atol=0)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_inf_are_not_hidden(bad: float, norm: str) -> None:
    inputs = [t.detach() for t in tensors((8, 8), 8)]
    inputs[1][2, 3] = bad
    for t in inputs:
        t.requires_grad_()
    found = fused_loss(*inputs, norm=norm)
    assert not math.isfinite(found.total.item())
    assert math.isfinite(found.imle.item())
    if math.isnan(bad):
        assert torch.autograd.grad(found.total, inputs[1])[0][2, 3].isnan()


def test_every_half_survives_the_way_in_and_out() -> None:
    values = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.float16)
    values = values[values.isfinite()]
    n = len(values)
    x = torch.zeros(n).requires_grad_()
    r = values.clone().requires_grad_()
    found = fused_loss(x, r, weights=(n / 2, 0.0, 0.0))
    torch.testing.assert_close(torch.autograd.grad(found.total, r)[0], values, rtol=0, atol=0)
    exact = values.double().square().sum() / n
    torch.testing.assert_close(found.reconstruction.double(), exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_are_rounded_to_nearest(dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(9)
    r = (torch.randn(5000, generator=g) * torch.rand(5000, generator=g).mul(30).sub(20).exp2()).to(dtype)
    x = torch.randn(5000, generator=g) * 1e-3
    r.requires_grad_()
    found = fused_loss(x, r, weights=(2500.0, 0.0, 0.0))
    expected = (r.detach().float() - x).to(dtype)
    torch.testing.assert_close(torch.autograd.grad(found.total, r)[0], expected, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(0,), (0, 5)])
def test_empty_batches(shape: tuple[int, ...]) -> None:
    inputs = tensors(shape, 10)
    found = fused_loss(*inputs)
    assert found.total == 0
    assert all(g.shape == shape for g in torch.autograd.grad(found.total, inputs))


def test_autocast() -> None:
    inputs = tensors((8, 8), 11)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = fused_loss(*inputs)
    assert found.total == fused_loss(*inputs).total


ZERO = torch.zeros(2, 3)
MISTAKES = [
    ({"data": 1.0}, TypeError, "data: expected a torch.Tensor, got float"),
    (
        {"reconstruction": ZERO.int()},
        TypeError,
        r"reconstruction: expected one of the dtypes .*, got int32; use reconstruction\.float\(\)",
    ),
    (
        {"matched": torch.zeros(3, 2)},
        ValueError,
        r"matched: expected shape \(2, 3\) as data has, got \(3, 2\)",
    ),
    ({"projected": ZERO}, ValueError, r"matched: expected f\(z\), got None"),
    ({"weights": (1.0, 2.0)}, ValueError, "weights: expected .* got 2 numbers"),
    ({"norm": "l3"}, ValueError, "norm: expected 'l2' or 'l1', got 'l3'"),
    (
        {"data": ZERO.to_sparse()},
        TypeError,
        r"^data: expected a dense tensor, got the layout sparse_coo; use data.to_dense",
    ),
    (
        {"data": torch.nested.nested_tensor([ZERO])},
        TypeError,
        r"^data: expected a dense tensor, got a nested",
    ),
    ({"matched": ZERO.to_mkldnn()}, TypeError, r"^matched: expected a dense tensor, got the layout mkldnn"),
    (
        {"data": torch.masked.MaskedTensor(ZERO, ZERO == 0)},
        TypeError,
        r"^data: expected a dense tensor, got a masked one; use data.to_tensor\(0.0\)",
    ),
    ({"weights": torch.ones(3, dtype=torch.complex64)}, TypeError, "^weights: expected a number, got Tensor"),
    ({"weights": (10**400, 1, 1)}, ValueError, "^weights: expected at most 1.8e308"),
    ({"weights": None}, TypeError, "^weights: expected three numbers, got NoneType"),
    ({"weights": 1.0}, TypeError, "^weights: expected three numbers, got float"),
    ({"weights": (1.0, None, 1.0)}, TypeError, "^weights: expected a number, got NoneType"),
    ({"weights": "abc"}, TypeError, "^weights: expected a number, got str"),
    (
        {"weights": torch.ones(3, requires_grad=True)},
        TypeError,
        "^weights: expected a number, got a tensor that requires grad",
    ),
    ({"data": [(ZERO, ZERO, 1.0)]}, TypeError, "^reconstruction: expected nothing beside a list of terms"),
]


@pytest.mark.parametrize(("change", "error", "message"), MISTAKES)
def test_mistakes_are_named(change: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fused_loss(**{"data": ZERO, "reconstruction": ZERO, **change})


TERM_MISTAKES: list[tuple[list, type[Exception], str]] = [
    ([], ValueError, "^terms: expected one or more"),
    ([ZERO], TypeError, r"^terms\[0\]: expected \(prediction, target, weight\), got Tensor"),
    ([(ZERO, ZERO)], TypeError, r"^terms\[0\]: expected \(prediction, target, weight\), got 2 items"),
    ([(ZERO, None, 1.0)], TypeError, r"^terms\[0\], target: expected a torch.Tensor, got NoneType"),
    (
        [(ZERO, ZERO, 1.0), (ZERO.int(), ZERO, 1.0)],
        TypeError,
        r"^terms\[1\], prediction: expected one of the dtypes",
    ),
    (
        [(ZERO, ZERO[:1], 1.0)],
        ValueError,
        r"^terms\[0\], target: expected shape \(2, 3\) as the prediction has",
    ),
    ([(ZERO, ZERO, None)], TypeError, r"^terms\[0\], weight: expected a number, got NoneType"),
    ([(ZERO, ZERO.to("meta"), 1.0)], ValueError, r"^terms\[0\], target: expected device cpu"),
    (
        [(ZERO, ZERO, 1.0), (ZERO.to("meta"), ZERO.to("meta"), 1.0)],
        ValueError,
        r"^terms\[1\], prediction: expected device",
    ),
]


@pytest.mark.parametrize(("terms", "error", "message"), TERM_MISTAKES)
def test_mistakes_in_terms_are_named(terms: list, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fused_loss(terms)


def test_weights_beside_terms_are_refused() -> None:
    with pytest.raises(TypeError, match=r"^weights: expected nothing beside a list of terms"):
        fused_loss([(ZERO, ZERO, 1.0)], weights=(1.0, 2.0, 3.0))
