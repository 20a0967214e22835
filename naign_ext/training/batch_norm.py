"""Batch normalisation over the batches of all processes."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; so is its gradient, for every process's loss depends on it."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        del ctx
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        del ctx
        gradient = gradients[0].clone()
        dist.all_reduce(gradient)
        return gradient


class SharedBatchNorm(_BatchNorm):
    """Batch normalisation whose statistics are those of all processes' batches together, for any device.

    torch.nn.SyncBatchNorm, which has no CPU path, does the same on CUDA. Two collectives of 2 C + 1 float64 numbers:
    one forward, one backward. Deviations are taken from the running mean, the same in every process, so that
    squares of large means do not cancel.
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
        others = [d for d in range(input.dim()) if d != 1]
        shape = [-1 if d == 1 else 1 for d in range(input.dim())]
        shifted = input.float() - self.running_mean.clone().view(shape)
        rows = shifted.new_full((1,), shifted.numel() / shifted.shape[1], dtype=torch.float64)
        sums = [
            shifted.sum(others, dtype=torch.float64),
            shifted.square().sum(others, dtype=torch.float64),
            rows,
        ]
        total = _SumOverProcesses.apply(torch.cat(sums))  # type: ignore[no-untyped-call]
        first, second, count = total.split([self.num_features, self.num_features, 1])
        mean = first / count
        variance = (second / count - mean.square()).clamp(min=0)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean += self.momentum * mean.float()
            unbiased = variance * count / (count - 1).clamp(min=1)
            self.running_var.lerp_(unbiased.float(), self.momentum)
        scale = (variance + self.eps).rsqrt().float()
        result: Tensor = (shifted - mean.float().view(shape)) * scale.view(shape)
        if self.affine:
            result = result * self.weight.view(shape) + self.bias.view(shape)
        return result.to(input.dtype)


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
