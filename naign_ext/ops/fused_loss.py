"""Weighted sums of distances between tensors in one pass over memory, gradients included."""

import numbers
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, overload

import torch
from torch import Tensor
from torch.autograd import forward_ad

from naign_ext import _native
from naign_ext.ops import reference
from naign_ext.ops.imle_knn import as_float, check_dense

Norm: TypeAlias = Literal["l2", "l1"]
Term: TypeAlias = tuple[Tensor, Tensor, float]
_ONES = (1.0, 1.0, 1.0)


class FusedLoss(NamedTuple):
    """The weighted sum, differentiable, and its three unweighted terms, detached; all 0-dimensional."""

    total: Tensor
    reconstruction: Tensor
    imle: Tensor
    idempotence: Tensor


class FusedTerms(NamedTuple):
    """The weighted sum, differentiable, 0-dimensional, and the unweighted terms in order, detached, (terms,)."""

    total: Tensor
    terms: Tensor


@overload
def fused_loss(terms: Sequence[Term], /, *, norm: Norm = "l2") -> FusedTerms: ...
@overload
def fused_loss(
    data: Tensor,
    reconstruction: Tensor,
    matched: Tensor | None = None,
    projected: Tensor | None = None,
    *,
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
    norm: Norm = "l2",
) -> FusedLoss: ...
def fused_loss(
    data: Any,
    reconstruction: Any = None,
    matched: Any = None,
    projected: Any = None,
    *,
    weights: Any = _ONES,
    norm: Any = "l2",
) -> FusedTerms | FusedLoss:
    """A weighted sum of mean squared or absolute errors, forward and gradient in one pass over memory.

    ``fused_loss([(prediction, target, weight), ...])`` is

        total = sum_t weight_t mean |prediction_t - target_t|^2

    with any number of terms, at least one. Shapes may differ between terms; each mean is over its own elements. A
    tensor may stand in several terms, as prediction and as target: its gradient is the sum.

    ``fused_loss(data, reconstruction, matched, projected, weights=w)`` is the NAIGN objective (arXiv 2511.02614), that
    data are fixed points and that every data point has a sample near it: the terms

        (reconstruction, data, w_0), (matched, data, w_1), (projected, matched, w_2)

    Args:
        terms: (prediction, target, weight) each: two tensors of one shape, any, and a number. All tensors on one
            device; float32, float16, bfloat16 in any mix (float64 is computed by the torch reference).
        data: x.
        reconstruction: f(x), of data's shape.
        matched: f(z) for the latent whose sample is nearest to x, of data's shape; None leaves the term out.
        projected: f(f(z)), of data's shape; None leaves the term out; needs matched.
        weights: (reconstruction, imle, idempotence), numbers.
        norm: "l2", the squared error as above, or "l1", the absolute error (IGN, arXiv 2311.01462).

    Returns:
        FusedTerms(total, terms) or FusedLoss(total, reconstruction, imle, idempotence), float32 (float64 if an input
        is). Every mean is over all elements, so that weights do not depend on the size of an image. Sums are
        accumulated in float64; the result does not depend on the number of threads. An absent term is 0, and so is
        a term of empty tensors.

    Differentiable with respect to every tensor, predictions and targets, any number of times (torch's own operators
    compute the gradient where it is differentiated again, and everything under torch.func and forward-mode
    derivatives; l1 has no curvature). Gradients nobody needs are neither computed nor stored. Those of float16 tensors
    are computed in the backward pass, where a gradient scaler's factor is known, and rounded once.

    Raises:
        TypeError: an input is not a dense floating tensor, or a weight is not a number.
        ValueError: shapes, devices, weights or norm do not fit; the message names the argument.
    """
    if norm not in ("l2", "l1"):
        raise ValueError(f"norm: expected 'l2' or 'l1', got {norm!r}")
    if isinstance(data, list | tuple):
        beside = {"reconstruction": reconstruction, "matched": matched, "projected": projected}
        ones = isinstance(weights, tuple) and weights == _ONES
        _check_nothing_beside_terms({**beside, "weights": None if ones else weights})
        pairs, numbers_of_terms = _checked_terms(data)
        return FusedTerms(*_loss_of(pairs, numbers_of_terms, l1=norm == "l1"))
    _check_named(data, reconstruction, matched, projected)
    present = 1 + (matched is not None) + (projected is not None)
    pairs = [(reconstruction, data), (matched, data), (projected, matched)][:present]
    total, terms = _loss_of(pairs, _checked_weights(weights)[:present], l1=norm == "l1")
    each = terms.unbind()
    absent = (terms.new_zeros(()),) * (3 - present) if present < 3 else ()
    return FusedLoss(total, *each, *absent)


def _check_nothing_beside_terms(others: dict[str, Any]) -> None:
    for name, value in others.items():
        if value is not None:
            raise TypeError(f"{name}: expected nothing beside a list of terms, got {type(value).__name__}")


def _checked_terms(terms: Sequence[Any]) -> tuple[list[tuple[Tensor, Tensor]], list[float]]:
    if not terms:
        raise ValueError("terms: expected one or more of (prediction, target, weight), got none")
    weights = []
    for index, term in enumerate(terms):
        name = f"terms[{index}]"
        if not isinstance(term, list | tuple) or len(term) != 3:
            got = f"{len(term)} items" if isinstance(term, list | tuple) else type(term).__name__
            raise TypeError(f"{name}: expected (prediction, target, weight), got {got}")
        prediction, target, weight = term
        check_dense(f"{name}, prediction", prediction)
        check_dense(f"{name}, target", target)
        _check_like(f"{name}, target", target, "the prediction", prediction)
        if prediction.device != terms[0][0].device:
            raise ValueError(
                f"{name}, prediction: expected device {terms[0][0].device} as terms[0] has, got {prediction.device}"
            )
        weights.append(_checked_weight(f"{name}, weight", weight))
    return [(prediction, target) for prediction, target, _ in terms], weights


def _check_named(data: Any, reconstruction: Any, matched: Any, projected: Any) -> None:
    check_dense("data", data)
    check_dense("reconstruction", reconstruction)
    _check_like("reconstruction", reconstruction, "data", data)
    if matched is not None:
        check_dense("matched", matched)
        _check_like("matched", matched, "data", data)
    if projected is not None:
        check_dense("projected", projected)
        _check_like("projected", projected, "data", data)
        if matched is None:
            raise ValueError("matched: expected f(z), got None; projected = f(f(z)) is compared with it")


def _check_like(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    if value.shape != other.shape:
        raise ValueError(
            f"{name}: expected shape {tuple(other.shape)} as {other_name} has, got {tuple(value.shape)}"
        )
    if value.device != other.device:
        raise ValueError(f"{name}: expected device {other.device} as {other_name} has, got {value.device}")


def _checked_weights(weights: Any) -> list[float]:
    if not isinstance(weights, Iterable):
        raise TypeError(f"weights: expected three numbers, got {type(weights).__name__}")
    checked = [_checked_weight("weights", weight) for weight in weights]
    if len(checked) != 3:
        raise ValueError(f"weights: expected (reconstruction, imle, idempotence), got {len(checked)} numbers")
    return checked


def _checked_weight(name: str, weight: Any) -> float:
    if isinstance(weight, float | int):
        return as_float(name, weight)
    if isinstance(weight, Tensor) and weight.requires_grad:
        raise TypeError(
            f"{name}: expected a number, got a tensor that requires grad and would get none; "
            "multiply the total of a loss of this term alone instead"
        )
    is_number = isinstance(weight, Tensor) and weight.dim() == 0 and not weight.is_complex()
    if is_number or isinstance(weight, numbers.Real):
        return as_float(name, weight)
    raise TypeError(f"{name}: expected a number, got {type(weight).__name__}")


class _Problem(NamedTuple):
    """What the operators take besides tensors: a term's prediction and target are places among them."""

    predictions: list[int]
    targets: list[int]
    weights: list[float]
    l1: bool


def _loss_of(pairs: list[tuple[Tensor, Tensor]], weights: list[float], *, l1: bool) -> tuple[Tensor, Tensor]:
    """Total and terms."""
    tensors: list[Tensor] = []
    predictions: list[int] = []
    targets: list[int] = []
    for prediction, target in pairs:
        predictions.append(_place(prediction, tensors))
        # A tensor that is compared with itself counts as two.
        targets.append(_place(target, tensors, 0 if target is not prediction else predictions[-1] + 1))
    problem = _Problem(predictions, targets, weights, l1)
    if _transformed():
        return _composed(problem, tensors)
    dtypes = [tensor.dtype for tensor in tensors]
    native = torch.float64 not in dtypes and _native.has_kernel(tensors[0])
    operator = torch.ops.naign.fused_loss if native else torch.ops.naign.fused_loss_reference
    ready = []
    if torch.is_grad_enabled():
        # A gradient scaler's factor, which only the backward pass knows, must come before float16's rounding.
        ready = [i for i, t in enumerate(tensors) if t.requires_grad and dtypes[i] is not torch.float16]
    if torch.compiler.is_compiling():
        total, terms, _ = operator(tensors, *problem, ready)
        return total, terms
    return _eager(operator, problem, ready, *tensors)


def _place(tensor: Tensor, tensors: list[Tensor], start: int = 0) -> int:
    """The tensor's index among tensors from start on; it is added to them where it is not there."""
    for index in range(start, len(tensors)):
        if tensors[index] is tensor:
            return index
    tensors.append(tensor)
    return len(tensors) - 1


def _transformed() -> bool:
    """Whether torch.func or forward-mode derivatives look at the operators: they know only torch's own."""
    transformed: bool = torch._C._are_functorch_transforms_active()
    return transformed or forward_ad._current_level >= 0


def _composed(problem: _Problem, tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Total and terms by torch's own operators."""
    dtype = _loss_dtype(tensors)
    terms = []
    for prediction, target in zip(problem.predictions, problem.targets, strict=True):
        difference = tensors[prediction].to(dtype) - tensors[target].to(dtype)
        penalty = difference.abs() if problem.l1 else difference.square()
        terms.append(penalty.sum(dtype=torch.float64) / max(1, difference.numel()))
    total = sum(
        (weight * term for weight, term in zip(problem.weights, terms, strict=True)),
        torch.zeros_like(terms[0]),
    )
    return total.to(dtype), torch.stack(terms).detach().to(dtype)


def _composed_gradients(
    problem: _Problem, tensors: Sequence[Tensor], needed: Sequence[bool], scale: Tensor
) -> list[Tensor | None]:
    """The gradients by torch's own operators, which can be differentiated again."""
    dtype = _loss_dtype(tensors)
    sums: list[Tensor | None] = [None] * len(tensors)
    for prediction, target, weight in zip(*problem[:3], strict=True):
        difference = tensors[prediction].to(dtype) - tensors[target].to(dtype)
        slope = weight * (1 if problem.l1 else 2) / max(1, difference.numel())
        derivative = slope * (difference.sign() if problem.l1 else difference)
        for place, part in ((prediction, derivative), (target, -derivative)):
            known = sums[place]
            if needed[place]:
                sums[place] = part if known is None else known + part
    return [None if s is None else (s * scale).to(t.dtype) for s, t in zip(sums, tensors, strict=True)]


def _loss_dtype(tensors: Sequence[Tensor]) -> torch.dtype:
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


@torch.library.custom_op("naign::fused_loss_reference", mutates_args=())
def _reference_operator(
    tensors: Sequence[Tensor],
    predictions: Sequence[int],
    targets: Sequence[int],
    weights: Sequence[float],
    l1: bool,
    wanted: Sequence[int],
) -> tuple[Tensor, Tensor, list[Tensor]]:
    terms, gradients = reference.fused_loss(tensors, predictions, targets, weights, l1, wanted)
    dtype = _loss_dtype(tensors)
    return (terms * terms.new_tensor(weights)).sum().to(dtype), terms.to(dtype), gradients


@torch.library.custom_op("naign::fused_loss_gradients_reference", mutates_args=())
def _reference_gradients_operator(
    tensors: Sequence[Tensor],
    predictions: Sequence[int],
    targets: Sequence[int],
    weights: Sequence[float],
    l1: bool,
    wanted: Sequence[int],
    scale: Tensor,
) -> list[Tensor]:
    return reference.fused_loss(tensors, predictions, targets, weights, l1, wanted, scale)[1]


def _fake(
    tensors: Sequence[Tensor], predictions: Any, targets: Any, weights: Any, l1: bool, wanted: Sequence[int]
) -> tuple[Tensor, Tensor, list[Tensor]]:
    dtype = _loss_dtype(tensors)
    losses = tensors[0].new_empty((), dtype=dtype), tensors[0].new_empty(len(weights), dtype=dtype)
    return *losses, _fake_gradients(tensors, predictions, targets, weights, l1, wanted, None)


def _fake_gradients(
    tensors: Sequence[Tensor],
    predictions: Any,
    targets: Any,
    weights: Any,
    l1: bool,
    wanted: Sequence[int],
    scale: Any,
) -> list[Tensor]:
    del predictions, targets, weights, l1, scale
    return [torch.empty(tensors[i].shape, dtype=tensors[i].dtype, device=tensors[i].device) for i in wanted]


def _setup_context(
    ctx: Any, problem: _Problem, ready: Sequence[int], tensors: Sequence[Tensor], gradients: Sequence[Tensor]
) -> None:
    ctx.problem, ctx.ready = problem, ready
    ctx.save_for_backward(*tensors, *gradients)
    # Else every backward fills zeros for the outputs without a gradient, as large as the inputs.
    ctx.set_materialize_grads(False)


def _input_gradients(ctx: Any, needed: Sequence[bool], scale: Tensor) -> list[Tensor | None]:
    """The gradients of the inputs: the ones made ready by the forward pass times the scale, the others computed."""
    saved = ctx.saved_tensors
    tensors, gradients = saved[: len(needed)], saved[len(needed) :]
    if torch.is_grad_enabled() or _is_batched(scale):
        return _composed_gradients(ctx.problem, tensors, needed, scale)
    found: list[Tensor | None] = [None] * len(needed)
    for place, gradient in zip(ctx.ready, _times(gradients, scale), strict=True):
        found[place] = gradient
    late = [place for place, known in enumerate(found) if known is None and needed[place]]
    if late:
        name = "fused_loss_gradients" if _native.has_kernel(*tensors) else "fused_loss_gradients_reference"
        made = getattr(torch.ops.naign, name)(list(tensors), *ctx.problem, late, scale)
        for place, gradient in zip(late, made, strict=True):
            found[place] = gradient
    return found


def _is_batched(tensor: Tensor) -> bool:
    functorch = torch._C._functorch
    wrapped: bool = functorch.is_functorch_wrapped_tensor(tensor)
    return wrapped or functorch.is_legacy_batchedtensor(tensor)


def _times(gradients: Sequence[Tensor], scale: Tensor) -> Sequence[Tensor]:
    """The gradients times a scale that is nearly always 1: no pass over memory then, and no wait for the device."""
    own = _own_saved_tensors(scale)
    if own and scale.device.type == "cpu" and scale.item() == 1:
        return gradients
    if own and gradients and scale.device.type == "cuda" and _native.has_kernel(scale, *gradients):
        torch.ops.naign.fused_loss_scale_(list(gradients), scale)
        return gradients
    return [_scaled(g, scale, in_place=own) for g in gradients]


def _own_saved_tensors(scale: Tensor) -> bool:
    """Whether nobody reads the saved gradients after this backward, so that they may be changed and handed out.

    So it is in an ordinary eager backward that frees its graph. Where torch does not say whether it does, the
    answer is no.
    """
    if type(scale) is not Tensor or torch.compiler.is_compiling():
        return False
    if torch._C._len_torch_dispatch_stack() > 0:
        return False
    keeps_graph = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True)
    return not keeps_graph()


def _scaled(gradient: Tensor, scale: Tensor, *, in_place: bool) -> Tensor:
    if gradient.dtype != scale.dtype:
        # A scale beyond the range of half precision, as gradient scalers use, must not become infinite first.
        return (gradient.to(scale.dtype) * scale).to(gradient.dtype)
    return gradient.mul_(scale) if in_place else gradient * scale


class _Eager(torch.autograd.Function):
    """The operator with the derivative that it is registered with, without what torch.library puts around both.

    That is Python, and a third of the time of a small call.
    """

    @staticmethod
    def forward(
        ctx: Any, operator: Callable[..., Any], problem: _Problem, ready: list[int], *tensors: Tensor
    ) -> tuple[Tensor, Tensor]:
        with torch._C._AutoDispatchBelowAutograd():
            total, terms, gradients = operator(list(tensors), *problem, ready)
        _setup_context(ctx, problem, ready, tensors, gradients)
        ctx.mark_non_differentiable(terms)
        return total, terms

    @staticmethod
    def backward(ctx: Any, scale: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[3:]
        if scale is None:
            return (None,) * (3 + len(needed))
        return None, None, None, *_input_gradients(ctx, needed, scale)


# Function.apply without what it does for torch.func, which does not come here.
_eager: Callable[..., tuple[Tensor, Tensor]] = super(torch.autograd.Function, _Eager).apply


def _setup_registered(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, list[Tensor]]) -> None:
    tensors, *problem, wanted = inputs
    _, terms, gradients = output
    _setup_context(ctx, _Problem(*problem), wanted, tensors, gradients)
    ctx.mark_non_differentiable(terms, *gradients)


def _backward_registered(ctx: Any, scale: Tensor | None, *_: Any) -> tuple[Any, ...]:
    needed = ctx.needs_input_grad[0]
    gradients = [None] * len(needed) if scale is None else _input_gradients(ctx, needed, scale)
    # torch takes an empty list of indices for one of tensors.
    return gradients, None, None, None, None, None if ctx.ready else []


def _register(suffix: str) -> None:
    torch.library.register_fake(f"naign::fused_loss{suffix}", _fake)
    torch.library.register_fake(f"naign::fused_loss_gradients{suffix}", _fake_gradients)
    torch.library.register_autograd(
        f"naign::fused_loss{suffix}", _backward_registered, setup_context=_setup_registered
    )


_register("_reference")
if _native.extension is not None:
    _register("")
