"""Batch normalisation over the batches of all processes."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _Normalise(torch.autograd.Function):
    """y = h w + b, h = (x - mean) r, r = 1 / sqrt(variance + eps), by the statistics of all processes' rows together.

    With g = dy and sums over all n rows of all processes, whose losses all depend on them:

        dx = w r (g - sum(g) / n - h sum(g h) / n),   dw = sum(g h),   db = sum(g)

    dw and db are sums over this process's rows alone, for DistributedDataParallel adds up the others'. x comes as own,
    normalised by this process's rows: h = stretch own + shift.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        own: Tensor,
        stretch: Tensor,
        shift: Tensor,
        scale: Tensor,
        count: float,
    ) -> Tensor:
        ctx.save_for_backward(own, stretch, shift, weight * scale)
        ctx.count = count
        shape = _beside(x)
        offset = torch.addcmul(bias, shift, weight)
        return torch.addcmul(offset.view(shape), own, (stretch * weight).view(shape))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        own, stretch, shift, slope = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        shape = _beside(own)
        with_own, alone = _sums(gradient, own)
        with_h = torch.addcmul(shift * alone, stretch, with_own)
        sums = torch.stack([alone, with_h])
        dist.all_reduce(sums)
        first, second = sums.div_(ctx.count)
        bend = second.mul_(slope).neg_()
        offset = torch.addcmul(bend * shift, slope, first, value=-1)
        dx = torch.addcmul(offset.view(shape), gradient, slope.view(shape))
        dx.addcmul_(own, bend.mul_(stretch).view(shape))
        return dx, with_h, alone, None, None, None, None, None


def _sums(gradient: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over all dimensions but the channels' of gradient times own, and of gradient, in one pass."""
    zero, one = own.new_zeros(own.shape[1]), own.new_ones(own.shape[1])
    _, with_own, alone = torch.ops.aten.native_batch_norm_backward(
        gradient, own, None, None, None, zero, one, True, 0.0, [False, True, True]
    )
    return with_own, alone


def _beside(x: Tensor) -> list[int]:
    """The shape that brings (C,) beside x (B, C, ...)."""
    return [-1 if d == 1 else 1 for d in range(x.dim())]


class SharedBatchNorm(_BatchNorm):
    """Batch normalisation whose statistics are those of all processes' batches together, for any device.

    torch.nn.SyncBatchNorm, which has no CPU path, does the same on CUDA. Two collectives: 2 C + 1 float64 numbers
    forward, 2 C float32 numbers backward. Deviations are taken from the running mean, the same in every process, so
    that squares of large means do not cancel.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"input: expected (B, C, ...), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, ...) over all dimensions but C; by the running statistics in evaluation mode."""
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        x = input.float()
        with torch.no_grad():
            own, own_mean, own_scale = torch.ops.aten.native_batch_norm(
                x, None, None, None, None, True, 0.0, self.eps
            )
            mean, variance, count = self._statistics(own_mean, own_scale, x.numel() // x.shape[1])
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / max(count - 1, 1.0)), self.momentum)
            scale = (variance + self.eps).rsqrt_()
            stretch, shift = scale / own_scale, (own_mean - mean) * scale
        weight = self.weight if self.affine else torch.ones_like(mean)
        bias = self.bias if self.affine else torch.zeros_like(mean)
        result: Tensor = _Normalise.apply(x, weight, bias, own, stretch, shift, scale, count)  # type: ignore[no-untyped-call]
        return result.to(input.dtype)

    def _statistics(self, own_mean: Tensor, own_scale: Tensor, rows: int) -> tuple[Tensor, Tensor, float]:
        """Mean and variance (C,) over all processes' rows and positions, float32, and how many these are.

        own_mean, own_scale = 1 / sqrt(variance + eps): of this process's rows.
        """
        assert self.running_mean is not None
        deviation = own_mean.double() - self.running_mean
        variance = own_scale.double().pow_(-2).sub_(self.eps).clamp_(min=0)
        sums = torch.cat([deviation, variance.addcmul_(deviation, deviation), deviation.new_ones(1)])
        dist.all_reduce(sums.mul_(rows))
        count = float(sums[-1])
        first, second = sums[:-1].div_(count).view(2, -1)
        spread = second.addcmul_(first, first, value=-1).clamp_(min=0)
        return first.add_(self.running_mean).float(), spread.float(), count


def share_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
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
