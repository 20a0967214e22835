"""What every objective offers to the trainer, and the register of their names."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from naign_ext.distributed.sharding import Shard
from naign_ext.options import Options
from naign_ext.registry import Registry
from naign_ext.timer import Timer
from naign_ext.transforms.batch import Batch


@dataclass(frozen=True)
class StepContext:
    """What every step of a run has in common.

    seed: of the run; everything random is derived from it and the step. rank, world_size: which of the processes
    that share every step this is. timer: where an objective's stages are timed: "data" (corrupted copies),
    "generation" (of pools), "search", "merge" (of the processes' searches) and "forward" (f with gradients).
    """

    seed: int = 0
    rank: int = 0
    world_size: int = 1
    timer: Timer = field(default_factory=Timer)

    @property
    def shard(self) -> Shard:
        """What this process does of every step."""
        return Shard(self.rank, self.world_size)


@dataclass(frozen=True)
class Loss:
    """A step's loss. total: differentiable; terms (unweighted): detached scalars; metrics: computes more of these."""

    total: Tensor
    terms: dict[str, Tensor]
    metrics: Callable[[], dict[str, Tensor]] = dict


class ObjectiveOptions(Options):
    """Base of every objective's options; ``name`` is the one that the objective is registered by."""

    name: str


class Objective(ABC):
    """A loss over a fixed data set; a subclass is registered by name in ``OBJECTIVES``.

    Everything random is derived from (seed, step), so that a step can be repeated from the state alone. Means over
    the processes of loss, terms and gradients are those of a single process.

    options: of the subclass's ``Options``. data: float32 (N, *shape), all of them, where f's inputs live.
    """

    Options: ClassVar[type[ObjectiveOptions]]

    def __init__(self, options: Any, data: Tensor, context: StepContext) -> None:
        self.options = options
        self.data = data
        self.seed = context.seed
        self.shard = context.shard
        self.timer = context.timer

    def prepare(self, f: nn.Module, step: int) -> None:  # noqa: B027 - most objectives have nothing to prepare
        """What is due before the step's batch, such as a match of the whole data set. Without gradients."""

    @abstractmethod
    def loss(self, f: nn.Module, batch: Batch, step: int) -> Loss:
        """The loss of this process's shard of a batch at a step; f is in training mode."""

    def state(self) -> dict[str, Tensor]:
        """Tensors that a checkpoint must hold besides f."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:  # noqa: B027 - nor a state
        """Take up the state of an earlier :meth:`state`."""


OBJECTIVES: Registry[type[Objective]] = Registry("objective")
"""Every objective by its name."""


def apply_together(f: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """f of all inputs in one call, float32, under the same names.

    With batch normalisation the one call matters: the statistics are then those of the mixture that running
    averages estimate and evaluation uses, instead of a different set for each kind of input.
    """
    outputs = f(torch.cat(list(inputs.values()))).float()
    sizes = [len(x) for x in inputs.values()]
    return dict(zip(inputs, outputs.split(sizes), strict=True))


def non_identity(samples: Tensor, latents: Tensor) -> Tensor:
    """mean |f(z) - z|^2 over all elements, detached: near 0 when f has collapsed to the identity."""
    return torch.nn.functional.mse_loss(samples.detach(), latents)
