"""Reconstruction, IMLE and idempotence losses in one pass over memory, gradients included."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from naign_ext import _native
from naign_ext.ops import reference
from naign_ext.ops.imle_knn import FLOATING


class FusedLoss(NamedTuple):
    """The weighted sum, differentiable, and its three unweighted terms, detached; all 0-dimensional."""

    total: Tensor
    reconstruction: Tensor
    imle: Tensor
    idempotence: Tensor


def fused_loss(
    data: Tensor,
    reconstruction: Tensor,
    matched: Tensor | None = None,
    projected: Tensor | None = None,
    *,
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
    norm: Literal["l2", "l1"] = "l2",
) -> FusedLoss:
    """The NAIGN objective (arXiv 2511.02614): data are fixed points, and every data point has a sample near it.

        total = w_0 mean |reconstruction - data|^2 + w_1 mean |matched - data|^2 + w_2 mean |projected - matched|^2

    Args:
        data: x, any shape, float32, float16, bfloat16 (float64 is computed by the torch reference).
        reconstruction: f(x), of data's shape.
        matched: f(z) for the latent whose sample is nearest to x, of data's shape; None leaves the term out.
        projected: f(f(z)), of data's shape; None leaves the term out; needs matched.
        weights: (reconstruction, imle, idempotence).
        norm: "l2", the squared error as above, or "l1", the absolute error (IGN, arXiv 2311.01462).

    Returns:
        FusedLoss(total, reconstruction, imle, idempotence), float32 (float64 if an input is). Every mean is over all
        elements, so that weights do not depend on the size of an image. Sums are accumulated in float64; the result
        does not depend on the number of threads. An absent term is 0. An empty batch gives 0.

    Differentiable once, with respect to every input; forward and gradient are one pass over memory.

    Raises:
        TypeError: an input is not a floating tensor.
        ValueError: shapes, devices, weights or norm do not fit; the message names the argument.
    """
    _check(data, reconstruction, matched, projected, weights, norm)
    tensors = (data, reconstruction, matched, projected)
    operator = (
        torch.ops.naign.fused_loss if _native.has_kernel(*tensors) else torch.ops.naign.fused_loss_reference
    )
    first, second, third = (float(w) for w in weights)
    arguments = (*tensors, first, second, third, norm == "l1")
    total, terms, *_ = operator(*arguments) if torch.compiler.is_compiling() else _eager(*arguments, operator)
    return FusedLoss(total, terms[0], terms[1], terms[2])


def _check(
    data: Any,
    reconstruction: Any,
    matched: Any,
    projected: Any,
    weights: tuple[float, float, float],
    norm: str,
) -> None:
    names = ("data", "reconstruction", "matched", "projected")
    for name, value in zip(names, (data, reconstruction, matched, projected), strict=True):
        if value is None and name in ("matched", "projected"):
            continue
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
        if value.dtype not in FLOATING:
            raise TypeError(f"{name}: expected a floating dtype, got {value.dtype}; use {name}.float()")
        if value.shape != data.shape:
            raise ValueError(
                f"{name}: expected shape {tuple(data.shape)} as data has, got {tuple(value.shape)}"
            )
        if value.device != data.device:
            raise ValueError(f"{name}: expected device {data.device} as data has, got {value.device}")
    if projected is not None and matched is None:
        raise ValueError("matched: expected f(z), got None; projected = f(f(z)) is compared with it")
    if len(weights) != 3:
        raise ValueError(f"weights: expected (reconstruction, imle, idempotence), got {len(weights)} numbers")
    if norm not in ("l2", "l1"):
        raise ValueError(f"norm: expected 'l2' or 'l1', got {norm!r}")


@torch.library.custom_op("naign::fused_loss_reference", mutates_args=())
def _reference_operator(
    data: Tensor,
    reconstruction: Tensor,
    matched: Tensor | None,
    projected: Tensor | None,
    w_reconstruction: float,
    w_imle: float,
    w_idempotence: float,
    l1: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    weights = (w_reconstruction, w_imle, w_idempotence)
    norm = "l1" if l1 else "l2"
    terms, *gradients = reference.fused_loss(data, reconstruction, matched, projected, weights, norm)
    total = (terms * terms.new_tensor(weights)).sum()
    dtype = _loss_dtype(data, reconstruction, matched, projected)
    return total.to(dtype), terms.to(dtype), gradients[0], gradients[1], gradients[2]


def _loss_dtype(*tensors: Tensor | None) -> torch.dtype:
    return (
        torch.float64 if any(t is not None and t.dtype == torch.float64 for t in tensors) else torch.float32
    )


def _fake(
    data: Tensor,
    reconstruction: Tensor,
    matched: Tensor | None,
    projected: Tensor | None,
    *_: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dtype = _loss_dtype(data, reconstruction, matched, projected)

    def gradient(of: Tensor | None) -> Tensor:
        return data.new_empty(0) if of is None else torch.empty(of.shape, dtype=of.dtype, device=of.device)

    losses = data.new_empty((), dtype=dtype), data.new_empty(3, dtype=dtype)
    return *losses, gradient(reconstruction), gradient(matched), gradient(projected)


def _setup_context(ctx: Any, inputs: Sequence[Any], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*output[2:])
    ctx.dtypes = [None if t is None else t.dtype for t in inputs[:4]]
    ctx.mark_non_differentiable(*output[1:])
    # Else every backward fills zeros for the outputs without a gradient, as large as the inputs.
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_total: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if grad_total is None:
        return (None,) * 8
    for_data, *for_others = ctx.needs_input_grad[:4]
    wanted: list[Tensor | None] = [
        None if dtype is None or not (for_data or needed) else g
        for g, dtype, needed in zip(ctx.saved_tensors, ctx.dtypes[1:], for_others, strict=True)
    ]
    gradients = _times(wanted, grad_total)
    grad_data = _minus_sum(gradients, grad_total.dtype).to(ctx.dtypes[0]) if for_data else None
    return grad_data, *gradients, None, None, None, None


def _times(gradients: list[Tensor | None], scale: Tensor) -> list[Tensor | None]:
    """The gradients times a scale that is nearly always 1: no pass over memory then, and no wait for the device."""
    own = _own_saved_tensors(scale)
    if own and scale.device.type == "cpu" and scale.item() == 1:
        return gradients
    if own and scale.device.type == "cuda" and _native.has_kernel(scale, *gradients):
        torch.ops.naign.fused_loss_scale_(scale, *gradients)
        return gradients
    return [None if g is None else _scaled(g, scale, in_place=own) for g in gradients]


def _own_saved_tensors(grad_total: Tensor) -> bool:
    """Whether nobody reads the saved tensors after this backward, so that they may be changed and handed out.

    So it is in an ordinary eager backward that frees its graph. Where torch does not say whether it does, the
    answer is no.
    """
    if type(grad_total) is not Tensor or torch.compiler.is_compiling():
        return False
    functorch = torch._C._functorch
    if functorch.is_functorch_wrapped_tensor(grad_total) or functorch.is_legacy_batchedtensor(grad_total):
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


def _minus_sum(gradients: list[Tensor | None], dtype: torch.dtype) -> Tensor:
    first, *others = [g.to(dtype) for g in gradients if g is not None]
    result = -first
    for other in others:
        result -= other
    return result


class _Eager(torch.autograd.Function):
    """The operator with the derivative that it is registered with, without what torch.library puts around both.

    That is Python, and a third of the time of a small call.
    """

    @staticmethod
    def forward(ctx: Any, *arguments_and_operator: Any) -> tuple[Tensor, ...]:
        *arguments, operator = arguments_and_operator
        output: tuple[Tensor, ...] = operator(*arguments)
        _setup_context(ctx, arguments, output)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        return *_backward(ctx, *gradients), None


_eager: Callable[..., tuple[Tensor, ...]] = _Eager.apply


def _register(name: str) -> None:
    torch.library.register_fake(name, _fake)
    torch.library.register_autograd(name, _backward, setup_context=_setup_context)


_register("naign::fused_loss_reference")
if _native.extension is not None:
    _register("naign::fused_loss")
