"""fused_loss against the written-out expression in float64."""

import math

import pytest
import torch
from torch import Tensor

from naign_ext import fused_loss

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


@pytest.mark.parametrize("name", ["fused_loss", "fused_loss_reference"])
@pytest.mark.parametrize("present", [2, 3, 4])
def test_opcheck(name: str, present: int) -> None:
    inputs: list[Tensor | None] = [*tensors((4, 5), 4)[:present], *[None] * (4 - present)]
    torch.library.opcheck(getattr(torch.ops.naign, name), (*inputs, 1.0, 0.5, 0.2, False))
    torch.library.opcheck(getattr(torch.ops.naign, name), (*inputs, 1.0, 0.5, 0.2, True))


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
        "reconstruction: expected a floating dtype, got torch.int32",
    ),
    (
        {"matched": torch.zeros(3, 2)},
        ValueError,
        r"matched: expected shape \(2, 3\) as data has, got \(3, 2\)",
    ),
    ({"projected": ZERO}, ValueError, r"matched: expected f\(z\), got None"),
    ({"weights": (1.0, 2.0)}, ValueError, "weights: expected .* got 2 numbers"),
    ({"norm": "l3"}, ValueError, "norm: expected 'l2' or 'l1', got 'l3'"),
]


@pytest.mark.parametrize(("change", "error", "message"), MISTAKES)
def test_mistakes_are_named(change: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fused_loss(**{"data": ZERO, "reconstruction": ZERO, **change})
