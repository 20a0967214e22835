"""fused_loss of any list of terms, its second derivatives, and float16 under a gradient scaler, against torch."""

import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from naign_ext import _native, fused_loss

NORMS = ("l2", "l1")
Triples = list[tuple[int, int, float]]
# Places in a list of four tensors of one shape and three of another.
LISTS: dict[str, Triples] = {
    "one": [(0, 1, 0.7)],
    "the objective's": [(1, 0, 1.0), (2, 0, 0.7), (3, 2, -0.3)],
    "a path in another order": [(2, 3, 0.3), (2, 1, 0.5), (1, 0, 0.7)],
    "two from the middle": [(0, 1, 1.0), (2, 0, 0.5)],
    "a star": [(1, 0, 1.0), (2, 0, 0.5), (3, 0, 0.25)],
    "a cycle": [(1, 0, 1.0), (2, 1, 0.5), (0, 2, 0.25)],
    "one pair twice": [(1, 0, 1.0), (0, 1, 0.5)],
    "with itself": [(1, 1, 1.0), (1, 0, 0.5)],
    "two shapes": [(1, 0, 1.0), (4, 5, 0.5), (2, 0, 0.25), (6, 5, 0.125)],
    "many": [(1 + i % 3, 0, 1.0 / (i + 1)) for i in range(60)],
}
UNIFORM = [(dtype,) * 7 for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64)]
MIXED = (
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.float32,
    torch.float16,
    torch.float32,
    torch.bfloat16,
)


def normal(count: int, dtypes: tuple[torch.dtype, ...], seed: int) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    counts = [count] * 4 + [count // 2 + 3] * 3
    return [torch.randn(n, generator=g).to(d).requires_grad_() for n, d in zip(counts, dtypes, strict=True)]


def listed(inputs: list[Tensor], triples: Triples) -> list[tuple[Tensor, Tensor, float]]:
    return [(inputs[p], inputs[t], w) for p, t, w in triples]


def by_torch(inputs: list[Tensor], triples: Triples, norm: str) -> tuple[Tensor, Tensor]:
    function = functional.mse_loss if norm == "l2" else functional.l1_loss
    terms = [function(inputs[p].double(), inputs[t].double()) for p, t, _ in triples]
    total = torch.stack([w * term for (*_, w), term in zip(triples, terms, strict=True)]).sum()
    return total, torch.stack(terms).detach()


def touched(triples: Triples) -> list[int]:
    return sorted({place for *pair, _ in triples for place in pair})


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtypes", [*UNIFORM, MIXED])
@pytest.mark.parametrize("name", LISTS)
def test_values_and_gradients(name: str, dtypes: tuple[torch.dtype, ...], norm: str) -> None:
    for count in (1, 33, 70001):
        inputs = normal(count, dtypes, count)
        triples = LISTS[name]
        found = fused_loss(listed(inputs, triples), norm=norm)
        total, terms = by_torch(inputs, triples, norm)
        assert found.terms.shape == (len(triples),) and not found.terms.requires_grad
        torch.testing.assert_close(found.total.double(), total, rtol=2e-6, atol=1e-12)
        torch.testing.assert_close(found.terms.double(), terms, rtol=1e-6, atol=0)
        places = touched(triples)
        leaves = [inputs[i] for i in places]
        expected_gradients = torch.autograd.grad(total * 3, leaves)
        for actual, expected in zip(
            torch.autograd.grad(found.total * 3, leaves), expected_gradients, strict=True
        ):
            assert actual.dtype == expected.dtype
            eps = torch.finfo(actual.dtype).eps
            floor = 6e-8 if actual.dtype == torch.float16 else 0
            atol = float(expected.abs().max()) * max(2 * eps, 1e-15 if eps < 1e-10 else 1e-6) + floor
            torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def test_todays_form_is_a_list_of_terms() -> None:
    x, r, m, q, *_ = normal(70001, UNIFORM[0], 1)
    named = fused_loss(x, r, m, q, weights=(1.0, 0.7, 0.3))
    listed_terms = fused_loss([(r, x, 1.0), (m, x, 0.7), (q, m, 0.3)])
    assert named.total == listed_terms.total
    assert torch.equal(torch.stack(named[1:]), listed_terms.terms)
    found, expected = (torch.autograd.grad(f.total, (x, r, m, q)) for f in (named, listed_terms))
    for actual, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=0)


@pytest.fixture
def isas() -> Iterator[list[str]]:
    """The instruction sets of this processor; the one in use is restored afterwards."""
    assert _native.extension is not None
    before = _native.extension.isa()
    features = _native.extension.cpu_features()
    yield ["portable", *(isa for isa in ("avx2", "avx512") if features[isa])]
    _native.extension.force_isa(before)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtypes", [*UNIFORM[:3], MIXED])
@pytest.mark.parametrize("name", LISTS)
def test_instruction_sets_and_threads_agree_bit_for_bit(
    isas: list[str], name: str, dtypes: tuple[torch.dtype, ...], norm: str
) -> None:
    inputs = normal(2 * 65536 + 4096 + 31, dtypes, 12)
    leaves = [inputs[i] for i in touched(LISTS[name])]
    answers = []
    before = torch.get_num_threads()
    for isa, threads in [*((isa, 1) for isa in isas), (isas[-1], 3)]:
        _native.extension.force_isa(isa)
        torch.set_num_threads(threads)
        found = fused_loss(listed(inputs, LISTS[name]), norm=norm)
        answers.append([*found, *torch.autograd.grad(found.total * 3, leaves)])
    torch.set_num_threads(before)
    for answer in answers[1:]:
        for actual, expected in zip(answer, answers[0], strict=True):
            torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_large_lists_bypass_the_caches(norm: str) -> None:
    inputs = normal(2**20 + 5, UNIFORM[0], 13)
    for name in ("a star", "one pair twice", "two shapes"):
        leaves = [inputs[i] for i in touched(LISTS[name])]
        total = fused_loss(listed(inputs, LISTS[name]), norm=norm).total
        expected = torch.autograd.grad(by_torch(inputs, LISTS[name], norm)[0], leaves)
        for actual, wanted in zip(torch.autograd.grad(total, leaves), expected, strict=True):
            torch.testing.assert_close(actual, wanted, rtol=1e-5, atol=1e-6 * float(wanted.abs().max()))


def test_only_the_wanted_gradients_are_stored() -> None:
    inputs = normal(33, UNIFORM[0], 14)
    for wanted in itertools.chain.from_iterable(itertools.combinations(range(4), n) for n in range(5)):
        for place, t in enumerate(inputs):
            t.requires_grad_(place in wanted)
        total = fused_loss(listed(inputs, LISTS["the objective's"])).total
        assert total.requires_grad == bool(wanted)
        if not wanted:
            continue
        assert len(total.grad_fn.saved_tensors) == 4 + len(wanted)
        leaves = [inputs[i] for i in wanted]
        expected = torch.autograd.grad(by_torch(inputs, LISTS["the objective's"], "l2")[0], leaves)
        for actual, by_hand in zip(torch.autograd.grad(total, leaves), expected, strict=True):
            torch.testing.assert_close(actual, by_hand, rtol=1e-5, atol=1e-7)


def test_shapes_and_strides_differ_between_terms() -> None:
    g = torch.Generator().manual_seed(15)
    image, other = torch.randn(3, 4, 5, generator=g), torch.randn(5, 4, 3, generator=g).permute(2, 1, 0)
    scalar, target = torch.randn((), generator=g), torch.zeros(())
    leaves = [t.requires_grad_() for t in (image, other, scalar)]
    found = fused_loss([(image, other, 2.0), (scalar, target, 0.5)])
    expected = 2 * functional.mse_loss(image, other) + 0.5 * scalar.square()
    torch.testing.assert_close(found.total, expected)
    for actual, by_hand in zip(
        torch.autograd.grad(found.total, leaves), torch.autograd.grad(expected, leaves), strict=True
    ):
        torch.testing.assert_close(actual, by_hand)


@pytest.mark.parametrize("empty", [[(0, 0)], [(0, 0), (1, 3)]])
def test_empty_terms_are_zero(empty: list[tuple[int, int]]) -> None:
    x, y = torch.zeros(empty[0], requires_grad=True), torch.zeros(empty[0])
    a, b = torch.ones(2, requires_grad=True), torch.zeros(2)
    found = fused_loss([(x, y, 1.0), (a, b, 1.0)])
    assert found.terms.tolist() == [0, 1]
    assert torch.autograd.grad(found.total, x)[0].shape == empty[0]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", [name for name in LISTS if name != "many"])
def test_second_derivatives(name: str, norm: str) -> None:
    def total(*inputs: Tensor) -> Tensor:
        return fused_loss(listed(list(inputs), LISTS[name]), norm=norm).total

    inputs = normal(5, (torch.float64,) * 7, 16)
    for place, t in enumerate(inputs):
        t.requires_grad_(place in touched(LISTS[name]))
    torch.autograd.gradcheck(total, inputs)
    # A term of a tensor with itself has a gradient of exactly zero, which numbers cannot be told from.
    torch.autograd.gradgradcheck(total, inputs)


def penalised(loss: Callable[[Tensor], Tensor], start: Tensor) -> list[Tensor]:
    """The gradient of a loss with a penalty on its gradient, and a Hessian times the gradient."""
    y = start.clone().requires_grad_()
    value = loss(y)
    (g,) = torch.autograd.grad(value, y, create_graph=True)
    (value * 2 + 100 * g.float().square().sum()).backward()
    (again,) = torch.autograd.grad(loss(y), y, create_graph=True)
    (third,) = torch.autograd.grad(again.float().pow(3).sum(), y, create_graph=True)
    return [y.grad, third.detach()]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_penalties_on_the_gradient_are_torchs(dtype: torch.dtype, norm: str) -> None:
    g = torch.Generator().manual_seed(17)
    x, start = torch.randn(8, 5, generator=g), torch.randn(8, 5, generator=g).to(dtype)
    by_function = functional.mse_loss if norm == "l2" else functional.l1_loss
    expected = penalised(lambda y: by_function(y.float(), x), start)
    found = penalised(lambda y: fused_loss([(y, x, 1.0)], norm=norm).total, start)
    named = penalised(lambda y: fused_loss(x, y, norm=norm).total, start)
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}[dtype]
    assert (expected[1] != 0).any() == (norm == "l2")
    for actual, wanted in zip([*found, *named], [*expected, *expected], strict=True):
        torch.testing.assert_close(actual, wanted, rtol=tolerance, atol=tolerance * float(wanted.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["the objective's", "a star", "two shapes"])
@pytest.mark.parametrize("dtypes", [UNIFORM[0], MIXED])
def test_lists_compile_to_a_full_graph(name: str, dtypes: tuple[torch.dtype, ...]) -> None:
    inputs = normal(33, dtypes, 18)

    def total(*inputs: Tensor) -> Tensor:
        return fused_loss(listed(list(inputs), LISTS[name])).total * 3

    leaves = [inputs[i] for i in touched(LISTS[name])]
    compiled = torch.compile(total, fullgraph=True)(*inputs)
    expected = torch.autograd.grad(total(*inputs), leaves)
    torch.testing.assert_close(torch.autograd.grad(compiled, leaves), expected, rtol=0, atol=0)


@pytest.mark.slow
def test_a_compiled_loss_never_has_a_second_derivative_of_zero() -> None:
    g = torch.Generator().manual_seed(19)
    x, y = torch.randn(8, 5, generator=g), torch.randn(8, 5, generator=g).requires_grad_()
    total = torch.compile(lambda y: fused_loss(x, y).total, fullgraph=True)(y)
    (gradient,) = torch.autograd.grad(total, y, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        (total + gradient.square().sum()).backward()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("count", [64, 128 * 3 * 64 * 64])
def test_a_gradient_scaler_loses_no_float16_gradient(count: int, norm: str) -> None:
    g = torch.Generator().manual_seed(20)
    x, z = torch.zeros(count), (torch.randn(count, generator=g) * 0.3).half()
    start = (torch.randn(count, generator=g) * torch.rand(count, generator=g).mul(12).sub(14).exp2()).half()
    scale = 65536.0
    by_function = functional.mse_loss if norm == "l2" else functional.l1_loss
    gradients = []
    for fused in (True, False):
        y, m = start.clone().requires_grad_(), z.clone().requires_grad_()
        if fused:
            total = fused_loss([(y, x, 1.0), (y, m, 0.5)], norm=norm).total
        else:
            total = by_function(y.float(), x) + 0.5 * by_function(y.float(), m.float())
        gradients.append([t.double() for t in torch.autograd.grad(total * scale, (y, m))])
    leaves = [start.double().requires_grad_(), z.double().requires_grad_()]
    exact = by_function(leaves[0], x.double()) + 0.5 * by_function(*leaves)
    for found, torchs, exactly in zip(*gradients, torch.autograd.grad(exact * scale, leaves), strict=True):
        assert not ((found == 0) & (torchs != 0)).any()
        assert (found - exactly).norm() <= 1.01 * (torchs - exactly).norm() + 1e-6 * exactly.norm()


def test_transformations_of_functions() -> None:
    g = torch.Generator().manual_seed(21)
    x, y, v = (torch.randn(4, 6, generator=g) for _ in range(3))

    def total(b: Tensor, a: Tensor) -> Tensor:
        return fused_loss([(b, a, 1.0), (b * 2, a, 0.5)]).total

    def expected(b: Tensor, a: Tensor) -> Tensor:
        return functional.mse_loss(b, a) + 0.5 * functional.mse_loss(b * 2, a)

    func = torch.func
    calls: list[Callable[[Callable[[Tensor, Tensor], Tensor]], Tensor]] = [
        lambda f: func.grad(f)(y, x),
        lambda f: func.vmap(f)(y, x),
        lambda f: func.vmap(func.grad(f))(y, x),
        lambda f: func.jvp(lambda b: f(b, x), (y,), (v,))[1],
        lambda f: func.hessian(f)(y, x),
        lambda f: func.grad(lambda b: func.grad(f)(b, x).square().sum())(y),
    ]
    for call in calls:
        torch.testing.assert_close(call(total), call(expected).float())
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(y, v)
        tangent = torch.autograd.forward_ad.unpack_dual(total(dual, x)).tangent
    torch.testing.assert_close(tangent, func.jvp(lambda b: expected(b, x), (y,), (v,))[1].float())


def test_batched_gradients_of_every_type() -> None:
    for dtypes in (UNIFORM[0], MIXED):
        inputs = normal(9, dtypes, 22)
        leaves = [inputs[i] for i in range(4)]
        scales = torch.tensor([1.0, -2.0, 0.5])
        total = fused_loss(listed(inputs, LISTS["the objective's"])).total
        found = torch.autograd.grad(total, leaves, scales, is_grads_batched=True)
        for row, scale in enumerate(scales):
            again = fused_loss(listed(inputs, LISTS["the objective's"])).total
            for actual, expected in zip(found, torch.autograd.grad(again * scale, leaves), strict=True):
                torch.testing.assert_close(actual[row], expected, rtol=2e-2, atol=1e-3)


def test_operators_name_what_is_wrong() -> None:
    x, y = torch.zeros(3), torch.zeros(4)
    for arguments, message in (
        (([x, x], [0], [0], [1.0], False, []), "targets: expected another tensor"),
        (([x, y], [0], [1], [1.0], False, []), "targets: expected another tensor"),
        (([x, x], [0], [2], [1.0], False, []), "targets: expected indices"),
        (([x, x], [0, 1], [1], [1.0], False, []), "weights: expected one for each"),
        (([x, x], [], [], [], False, []), "weights: expected one for each"),
        (([x, x, x], [0], [1], [1.0], False, [2]), "wanted: expected tensors of some term"),
        (([x, x], [0], [1], [1.0], False, [1, 1]), "wanted: expected every tensor once"),
    ):
        with pytest.raises(RuntimeError, match=message):
            torch.ops.naign.fused_loss(*arguments)


def test_a_gradient_scaler_under_autocast_gives_the_weights_torch_gives() -> None:
    """torch.amp.GradScaler as it is used: scaled, unscaled and stepped, with residuals that float16 would lose."""
    x = torch.randn(4096, 16, generator=torch.Generator().manual_seed(21))
    after = []
    for fused in (True, False):
        layer = torch.nn.Linear(16, 16)
        torch.nn.init.eye_(layer.weight)
        torch.nn.init.constant_(layer.bias, 2e-3)
        optimiser = torch.optim.SGD(layer.parameters(), lr=1e3)
        scaler = torch.amp.GradScaler("cpu", init_scale=65536.0)
        with torch.autocast("cpu", dtype=torch.float16):
            y = layer(x)
            loss = fused_loss(x, y).total if fused else functional.mse_loss(y.float(), x)
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
        assert scaler.get_scale() == 65536.0
        after.append(layer.bias.detach())
    assert (after[1] - 2e-3).abs().min() > 1e-4
    torch.testing.assert_close(after[0], after[1], rtol=2e-3, atol=0)
