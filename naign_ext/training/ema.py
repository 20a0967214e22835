"""Exponential moving average of a network's weights."""

import copy

import torch
from torch import nn


def ema_copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode without gradients, for :func:`update_ema`."""
    ema = copy.deepcopy(model).eval()
    return ema.requires_grad_(False)


@torch.no_grad()
def update_ema(ema: nn.Module, model: nn.Module, step: int, decay: float) -> None:
    """ema <- d ema + (1 - d) model, d = min(decay, (1 + step) / (10 + step)), step counted from 0.

    The smaller d of the first steps forgets the random initialisation. Running statistics are averaged like
    weights, integer buffers are copied.
    """
    weight = 1 - min(decay, (1 + step) / (10 + step))
    for target, source in zip(ema.state_dict().values(), model.state_dict().values(), strict=True):
        if target.is_floating_point():
            target.lerp_(source, weight)
        else:
            target.copy_(source)
