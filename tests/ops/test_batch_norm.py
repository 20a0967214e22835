"""Batch normalisation over several processes: its three operators, and the layer in one process."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from naign_ext import _native
from naign_ext.distributed.batch_norm import SharedBatchNorm, sync_batch_norm
from naign_ext.ops import reference
from naign_ext.ops.batch_norm import batch_norm_backward, batch_norm_forward, batch_norm_sums

ROOT = Path(__file__).parents[2]
ISAS = ("avx512", "avx2", "portable")
SHAPES = (
    (384, 512),
    (7, 3),
    (33, 71),
    (1, 5),
    (6, 1),
    (5, 3, 4, 4),
    (4, 19, 25, 25),
    (9, 5, 7),
    (3, 2, 1, 17),
    (0, 4),
)

ANSWERS = """
import hashlib, torch
from naign_ext import _native
from tests.ops.test_batch_norm import SHAPES, all_of, inputs
for threads in (1, 2, 3):
    torch.set_num_threads(threads)
    digest = hashlib.sha256()
    for seed, shape in enumerate(SHAPES):
        for result in all_of(*inputs(shape, seed)):
            digest.update(result.numpy().tobytes())
    print(_native.status()["isa"], digest.hexdigest())
"""


def inputs(
    shape: tuple[int, ...], seed: int = 0, scale: float = 3.0, mean: float = 5.0
) -> tuple[Tensor, ...]:
    """x, a gradient of y, weight, bias, running mean and variance."""
    generator = torch.Generator().manual_seed(seed)
    channels = shape[1]
    x, gradient = (torch.randn(shape, generator=generator) for _ in range(2))
    weight, bias, running = (torch.randn(channels, generator=generator) for _ in range(3))
    return x * scale + mean, gradient, weight, bias, running * scale + mean, torch.ones(channels)


def all_of(x, gradient, weight, bias, running_mean, running_var) -> list[Tensor]:
    """Everything that the operators make of x, as one process alone would."""
    running_mean, running_var = running_mean.clone(), running_var.clone()
    sums = batch_norm_sums(x, running_mean)
    y, mean, scale = batch_norm_forward(x, sums, running_mean, running_var, weight, bias, momentum=0.2)
    back = batch_norm_sums(x, mean.to(x.dtype), gradient)
    gradients = batch_norm_backward(x, gradient, back, back, mean, scale, weight)
    return [sums, y, mean, scale, running_mean, running_var, back, *gradients]


def by_torch(x, gradient, weight, bias, running_mean, running_var) -> list[Tensor]:
    """y, running statistics and gradients of torch's own layer in float64."""
    layer = nn.BatchNorm1d(len(weight), momentum=0.2).double()
    for to, value in (
        (layer.weight.data, weight), (layer.bias.data, bias),
        (layer.running_mean, running_mean), (layer.running_var, running_var),
    ):  # fmt: skip
        to.copy_(value)
    x, gradient = (t.double().reshape(*t.shape[:2], -1) for t in (x, gradient))
    y = layer(x.requires_grad_())
    y.backward(gradient)
    gradients = (x.grad, layer.weight.grad, layer.bias.grad)
    return [t.detach() for t in (y, layer.running_mean, layer.running_var, *gradients)]


def ours(given: tuple[Tensor, ...]) -> list[Tensor]:
    results = all_of(*given)
    return [results[i] for i in (1, 4, 5, 7, 8, 9)]


def close(found: list[Tensor], expected: list[Tensor], given: tuple[Tensor, ...], tolerance: float) -> None:
    """Within a tolerance of the largest number that goes into a sum: a sum itself may be zero."""
    x, gradient, weight, *_ = given
    elements = x[:, 0].numel()
    largest_gradient = float(gradient.abs().max())
    slope = float((weight.abs() * x.double().transpose(0, 1).flatten(1).var(dim=1).add(1e-5).rsqrt()).max())
    sizes = [
        *(float(e.abs().max()) for e in expected[:3]),
        slope * largest_gradient * elements**0.5,
        largest_gradient * elements,
        largest_gradient * elements,
    ]
    for a, b, size in zip(found, expected, sizes, strict=True):
        torch.testing.assert_close(a.double().view_as(b), b, rtol=0, atol=tolerance * size)


@pytest.mark.parametrize("shape", [s for s in SHAPES if s[0] > 1])
def test_it_is_batch_normalisation(shape: tuple[int, ...]) -> None:
    given = inputs(shape)
    close(ours(given), by_torch(*given), given, 1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_sums_are_those_of_the_reference(shape: tuple[int, ...]) -> None:
    x, gradient, centre, *_ = inputs(shape)
    for g in (None, gradient):
        found, expected = batch_norm_sums(x, centre, g), reference.batch_norm_sums(x, g, centre)
        assert found[-1] == expected[-1] == x[:, 0].numel()
        torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-10)


@pytest.mark.parametrize("shape", [(20, 37), (6, 5, 9)])
def test_double_precision_goes_by_the_reference(shape: tuple[int, ...]) -> None:
    given = tuple(t.double() for t in inputs(shape))
    close(ours(given), by_torch(*given), given, 1e-13)


@settings(max_examples=60, deadline=None)
@given(
    outer=st.integers(2, 40),
    channels=st.integers(1, 70),
    inner=st.integers(1, 40),
    seed=st.integers(0, 1000),
    exponent=st.integers(-12, 12),
)
def test_any_shape_and_scale(outer: int, channels: int, inner: int, seed: int, exponent: int) -> None:
    given = inputs((outer, channels, inner), seed, scale=10.0**exponent, mean=0.0)
    close(ours(given), ours(tuple(t.double() for t in given)), given, 1e-6)


def test_a_large_mean_does_not_cancel() -> None:
    x, gradient, weight, bias, *_ = inputs((500, 6), scale=1.0, mean=1e4)
    given = (x, gradient, weight, bias, torch.full((6,), 1e4), torch.ones(6))
    close(ours(given), by_torch(*given), given, 1e-6)


@pytest.mark.parametrize("layout", ["channels last", "transposed", "every other"])
def test_strides(layout: str) -> None:
    x, gradient, *others = inputs((4, 6, 5, 5))
    if layout == "channels last":
        strided = x.contiguous(memory_format=torch.channels_last)
    elif layout == "transposed":
        strided = x.transpose(2, 3).contiguous().transpose(2, 3)
    else:
        strided = torch.stack([x, x], dim=-1)[..., 0]
    assert torch.equal(strided, x)
    results = ours((strided, gradient, *others))
    for found, expected in zip(results, ours((x, gradient, *others)), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    if layout == "channels last":
        assert results[0].is_contiguous(memory_format=torch.channels_last)


def test_nan_and_inf_stay_in_their_channel() -> None:
    for bad in (torch.nan, torch.inf):
        x, *others = inputs((10, 5))
        x[3, 2] = bad
        y = all_of(x, *others)[1]
        assert y[:, 2].isnan().any()
        assert y[:, [0, 1, 3, 4]].isfinite().all()


def test_arguments_that_do_not_fit_are_named() -> None:
    x, gradient, weight, bias, mean, variance = inputs((4, 5))
    with pytest.raises(RuntimeError, match="centre: expected 5 numbers, got 4"):
        batch_norm_sums(x, mean[:4].clone())
    with pytest.raises(RuntimeError, match="gradient: expected 20 numbers"):
        batch_norm_sums(x, mean, gradient[:2])
    with pytest.raises(RuntimeError, match="x: expected"):
        batch_norm_sums(x[0], mean)
    with pytest.raises(RuntimeError, match="sums: expected contiguous float64"):
        batch_norm_forward(x, mean, mean, variance, weight, bias)
    with pytest.raises(RuntimeError, match="weight: expected 5 numbers"):
        batch_norm_forward(x, batch_norm_sums(x, mean), mean, variance, weight[:1])


def test_operators_pass_opcheck() -> None:
    x, gradient, weight, bias, mean, variance = inputs((6, 5, 3))
    sums = batch_norm_sums(x, mean)
    scale = torch.ones(5, dtype=torch.float64)
    for ending in ("", "_reference"):
        for name, arguments in (
            ("sums", (x, gradient, mean)),
            ("forward", (x, sums, mean.clone(), variance.clone(), weight, bias, 0.1, 1e-5)),
            ("backward", (x, gradient, sums, sums, mean.double(), scale, weight)),
        ):
            torch.library.opcheck(getattr(torch.ops.naign, f"batch_norm_{name}{ending}").default, arguments)


@pytest.mark.parametrize("isa", ISAS)
def test_every_instruction_set_and_number_of_threads_gives_the_same_bits(isa: str) -> None:
    if not _native.status()["cpu_features"].get(isa, True):
        pytest.skip(f"this processor has no {isa}")
    done = subprocess.run(
        [sys.executable, "-c", ANSWERS],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "NAIGN_ISA": isa},
    )
    assert done.returncode == 0, done.stderr
    digest = hashlib.sha256()
    for seed, shape in enumerate(SHAPES):
        for result in all_of(*inputs(shape, seed)):
            digest.update(result.numpy().tobytes())
    assert done.stdout.split() == [isa, digest.hexdigest()] * 3


@pytest.fixture
def a_group_of_one() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("a_group_of_one")
def test_the_layer_in_one_process_is_torchs() -> None:
    torch.manual_seed(0)
    for plain, shape in ((nn.BatchNorm1d(9), (20, 9)), (nn.BatchNorm2d(3, affine=False), (6, 3, 5, 4))):
        nn.init.normal_(plain.running_mean)
        shared = sync_batch_norm(nn.Sequential(plain), torch.device("cpu"))[0]
        assert isinstance(shared, SharedBatchNorm)
        given = torch.randn(shape) * 2 + 1
        results = []
        for layer in (plain, shared):
            x = given.clone().requires_grad_()
            for mode in (True, True, False):
                layer.train(mode)
                y = layer(x)
                y.pow(3).sum().backward()
            results.append([y.detach(), x.grad, *(p.grad for p in layer.parameters()), *layer.buffers()])
        torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("a_group_of_one")
def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(1)
    layer = SharedBatchNorm(3, momentum=0.0).double()
    x = torch.randn(5, 3, 2, dtype=torch.float64, requires_grad=True)
    weight, bias = (torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def normalised(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(normalised, (x, weight, bias))


@pytest.mark.usefixtures("a_group_of_one")
def test_half_precision_is_computed_in_single() -> None:
    layer = SharedBatchNorm(4)
    x = torch.randn(8, 4).bfloat16().requires_grad_()
    y = layer(x)
    y.float().square().sum().backward()
    assert y.dtype == x.grad.dtype == torch.bfloat16
    torch.testing.assert_close(y, SharedBatchNorm(4)(x.float()).bfloat16())
