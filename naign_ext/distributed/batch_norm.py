"""Batch normalisation over the batches of all processes."""

import os
import time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from naign_ext.ops.batch_norm import batch_norm_backward, batch_norm_forward, batch_norm_sums

_AWAKE_S = 1e-3


class _Normalise(torch.autograd.Function):
    """Batch normalisation by the statistics of all processes' rows together, whose losses all depend on them."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, layer: "SharedBatchNorm"
    ) -> Tensor:
        sums = batch_norm_sums(x, layer.running_mean)
        _add_up(sums)
        y, mean, scale = batch_norm_forward(
            x,
            sums,
            layer.running_mean,
            layer.running_var,
            weight,
            bias,
            momentum=layer.momentum,
            eps=layer.eps,
        )
        ctx.save_for_backward(x, weight, mean, scale)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale = ctx.saved_tensors
        (gradient,) = gradients
        own = batch_norm_sums(x, mean.to(x.dtype), gradient)
        sums = own.clone()
        _add_up(sums)
        for_x, for_weight, for_bias = batch_norm_backward(x, gradient, own, sums, mean, scale, weight)
        affine = weight is not None
        return for_x, for_weight if affine else None, for_bias if affine else None, None


def _add_up(sums: Tensor) -> None:
    """The sums of all processes, in place.

    Yields its turn before it sleeps: processes that have a processor each arrive together, and waking up takes longer
    than such a sum. Where they share processors, one that stays awake keeps others from arriving.
    """
    work = dist.all_reduce(sums, async_op=True)
    sleep_at = time.perf_counter() + _AWAKE_S
    while not work.is_completed() and time.perf_counter() < sleep_at:
        os.sched_yield()
    work.wait()


class SharedBatchNorm(_BatchNorm):
    """Batch normalisation whose statistics are those of all processes' batches together, on the CPU.

    torch.nn.SyncBatchNorm, which has no CPU path, does the same on CUDA. Two collectives of 2 C + 1 float64 numbers,
    one forward, one backward. Deviations are taken from the running mean, the same in every process, so that squares
    of large means do not cancel.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"input: expected (B, C, ...), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, ...) over all dimensions but C; by the running statistics in evaluation mode."""
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        self.num_batches_tracked.add_(1)
        x = input.to(self.running_mean.dtype)
        result: Tensor = _Normalise.apply(x, self.weight, self.bias, self)  # type: ignore[no-untyped-call]
        return result.to(input.dtype)


def sync_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """model with its batch normalisation over all processes; names, weights and buffers stay as they are."""
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return converted
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                setattr(parent, name, _shared(child))
    return model


def _shared(plain: _BatchNorm) -> SharedBatchNorm:
    made = SharedBatchNorm(plain.num_features, plain.eps, plain.momentum, plain.affine)
    made.load_state_dict(plain.state_dict())
    return made
