"""Batch normalisation over the batches of all processes."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _Normalise(torch.autograd.Function):
    """y = (x - mean) / sqrt(variance + eps) w + b by the statistics of all processes' rows together.

    With g = dy, r = 1 / sqrt(variance + eps), h = (x - mean) r, and sums over all n rows of all processes, whose losses
    all depend on them:

        dx = w r (g - sum(g) / n - h sum(g h) / n),   dw = sum(g h),   db = sum(g)

    dw and db are sums over this process's rows alone, for DistributedDataParallel adds up the others'.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        count: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt(), count)
        y: Tensor = torch.nn.functional.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, count = ctx.saved_tensors
        gradient = gradients[0]
        others, shape = _around_channels(x)
        deviation = x - mean.view(shape)
        of_gradient = gradient.sum(others)
        with_deviation = (gradient * deviation).sum(others) * scale
        sums = torch.stack([of_gradient, with_deviation])
        dist.all_reduce(sums)
        first, second = sums / count
        slope = weight * scale
        bend = -slope * scale * second
        offset = -slope * first
        dx = torch.addcmul(offset.view(shape), gradient, slope.view(shape))
        dx.addcmul_(deviation, bend.view(shape))
        return dx, with_deviation, of_gradient, None, None, None, None


def _around_channels(x: Tensor) -> tuple[list[int], list[int]]:
    """All dimensions but the channels', and the shape that brings (C,) beside x."""
    return [d for d in range(x.dim()) if d != 1], [-1 if d == 1 else 1 for d in range(x.dim())]


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
        mean, variance, count = self._statistics(x.detach())
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1).clamp(min=1)), self.momentum)
        weight = self.weight if self.affine else torch.ones_like(mean)
        bias = self.bias if self.affine else torch.zeros_like(mean)
        result: Tensor = _Normalise.apply(x, weight, bias, mean, variance, count, self.eps)  # type: ignore[no-untyped-call]
        return result.to(input.dtype)

    @torch.no_grad()
    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and variance (C,) over all processes' rows and positions, and how many these are; float32."""
        assert self.running_mean is not None
        others, shape = _around_channels(x)
        # torch.var_mean over leading dimensions takes 15 times as long on the CPU.
        mean = x.mean(others)
        variance = (x - mean.view(shape)).square_().mean(others)
        own = float(x.numel() // x.shape[1])
        deviation = mean.double() - self.running_mean
        sums = own * torch.cat([deviation, variance + deviation.square(), deviation.new_ones(1)])
        dist.all_reduce(sums)
        count = sums[-1]
        first, second = (sums[:-1] / count).view(2, -1)
        spread = (second - first.square()).clamp(min=0)
        return (first + self.running_mean).float(), spread.float(), count.float()


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
