"""What every objective offers to the trainer, and the options shared by those that search a latent pool."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import FiniteFloat, model_validator
from torch import Tensor, nn

from naign_ext.distributed.sharding import WHOLE, BatchOffset, Shard
from naign_ext.options import Options, option

Corrupt = Callable[[Tensor, str, int, BatchOffset], Tensor]
"""(rows, kind, seed, offset) -> corrupted rows. Handed in by the trainer: objectives know no data sets."""

Vary = Callable[[Tensor, int, BatchOffset], Tensor]
"""(rows, seed, offset) -> the rows with random changes under which data stay data, such as small shifts."""


class MatchOptions(Options):
    """How each data point finds the latent whose sample is nearest."""

    norm: Literal["l2", "l1"] = option(
        "l2", "Norm of the loss terms; the search is always Euclidean.", "Objective"
    )
    latent_scale: FiniteFloat = option(1.0, "Standard deviation of the latents z.", "Latent pool", gt=0)
    pool_size: int = option(256, "Samples in the pool that every match searches.", "Latent pool", ge=1)
    pool_chunk: int | None = option(
        None,
        "Rows of the pool in memory at a time; default: chosen from free memory. Does not change the result.",
        "Latent pool",
        ge=1,
    )
    match: Literal["batch", "dataset", "one-to-one", "adaptive"] = option(
        "batch",
        "batch: the nearest sample of each row of a batch; dataset: of the whole data set at once, the winners' "
        "latents kept; one-to-one: as batch, but no sample serves two rows and the sum of the squared distances "
        "is least; adaptive: as dataset, but a row is matched anew only when its sample has come nearer "
        "(Adaptive IMLE).",
        "Latent pool",
    )
    resample_every: int = option(
        1,
        "Steps a pool is kept before new latents are drawn (dataset, adaptive: before the next match).",
        "Latent pool",
        ge=1,
    )
    warm_start: bool = option(
        False,
        "dataset: the last match's winners compete again, beside the new pool, so that a smaller pool does.",
        "Latent pool",
    )
    reject_below: FiniteFloat | None = option(
        None, "Samples at a squared distance below this from data are rejected.", "Latent pool", ge=0
    )
    reject: Literal["pair", "sample"] = option(
        "pair",
        "What is rejected: the pair alone, or the sample for every row, where any row of the data set is that "
        "near (RS-IMLE).",
        "Latent pool",
    )
    adaptive_decay: FiniteFloat = option(
        0.04,
        "adaptive: a row is matched anew when its squared distance falls below (1 - this) times what it was at "
        "the last match.",
        "Latent pool",
        gt=0,
        lt=1,
    )
    adaptive_patience: int = option(
        7, "adaptive: matches that pass before a row may be matched anew.", "Latent pool", ge=1
    )
    adaptive_limit: int = option(
        30, "adaptive: matches after which a row is matched anew in any case.", "Latent pool", ge=1
    )

    @model_validator(mode="after")
    def _one_to_one_rejects_nothing(self) -> "MatchOptions":
        if self.match == "one-to-one" and self.reject_below is not None:
            raise ValueError(
                f"reject_below: expected none with match one-to-one, got {self.reject_below}; the pairs left may "
                "not match every row"
            )
        return self

    @model_validator(mode="after")
    def _only_the_dataset_match_starts_warm(self) -> "MatchOptions":
        if self.warm_start and self.match != "dataset":
            raise ValueError(
                f"warm_start: expected match dataset, which knows every row's last winner, got {self.match}"
            )
        return self


class Timer:
    """Adds up wall seconds by stage: ``with timer("search"): ...``; stages must not be nested.

    It does not wait for CUDA, so there the seconds are those until the work was queued, unless ``wait`` is set to
    what waits, such as torch.cuda.synchronize.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.wait: Callable[[], object] | None = None

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        self._settle()
        began = time.perf_counter()
        try:
            yield
        finally:
            self._settle()
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began

    def _settle(self) -> None:
        if self.wait is not None:
            self.wait()

    def take(self) -> dict[str, float]:
        """The seconds since the last call, by stage."""
        taken, self.seconds = self.seconds, {}
        return taken


@dataclass(frozen=True)
class Loss:
    """A step's loss. total: differentiable; terms (unweighted): detached scalars; figures: computes more of these."""

    total: Tensor
    terms: dict[str, Tensor]
    figures: Callable[[], dict[str, Tensor]] = dict


class Objective(ABC):
    """A loss over a fixed data set; subclasses are registered by name in ``OBJECTIVES``.

    Everything random is derived from (seed, step), so that a step can be repeated from the state alone.
    data: float32 (N, *shape), where f's inputs live.
    shard: of every step, what this process does. Means over the processes of loss, terms and gradients
        are then those of a single process.
    timer: where the stages "data" (changed copies of them), "generation" (of pools), "search", "merge" (of the
        processes' searches) and "forward" (f with gradients) are timed.
    """

    Options: ClassVar[type[Options]]

    def __init__(
        self,
        options: Any,
        data: Tensor,
        *,
        seed: int,
        corrupt: Corrupt | None = None,
        vary: Vary | None = None,
        shard: Shard = WHOLE,
    ) -> None:
        self.options = options
        self.data = data
        self.seed = seed
        self.corrupt = corrupt
        self.vary = vary
        self.shard = shard
        self.timer = Timer()

    def prepare(self, f: nn.Module, step: int) -> None:  # noqa: B027 - most objectives have nothing to prepare
        """What is due before the step's batch, such as a match of the whole data set. Without gradients."""

    @abstractmethod
    def loss(self, f: nn.Module, rows: Tensor, step: int) -> Loss:
        """The loss of this process's shard of a batch at a step; f is in training mode.

        rows: indices of the whole batch, int64 (B,).
        """

    def state(self) -> dict[str, Tensor]:
        """Tensors that a checkpoint must hold besides f."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:  # noqa: B027 - nor a state
        """Take up the state of an earlier :meth:`state`."""


def apply_together(f: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """f of all inputs in one call, float32, under the same names.

    With batch normalisation the one call matters: the statistics are then those of the mixture that running
    averages estimate and evaluation uses, instead of a different set for each kind of input.
    """
    outputs = f(torch.cat(list(inputs.values()))).float()
    sizes = [len(x) for x in inputs.values()]
    return dict(zip(inputs, outputs.split(sizes), strict=True))
