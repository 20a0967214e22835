"""The term that brings to the data what is not data, so that f does not pass it on."""

from typing import Any, Literal

from pydantic import FiniteFloat
from torch import Tensor

from naign_ext.distributed.sharding import Shard
from naign_ext.options import Options, option
from naign_ext.seeds import generator
from naign_ext.transforms.foreign import ForeignInputs

ForeignKind = Literal["scrambled", "turned", "zoomed", "spectral", "box", "wide"]


class ForeignOptions(Options):
    """Options of the foreign term."""

    foreign_weight: FiniteFloat = option(
        0.0,
        "Weight of mean |f(u) - nearest data point|, u no data but made from data: f moves what is foreign.",
        "Objective",
        ge=0,
    )
    foreign_samples: int = option(64, "Inputs of the foreign term in an update.", "Objective", ge=1)
    foreign_kinds: tuple[ForeignKind, ...] | None = option(
        None,
        "Inputs of the foreign term, in turns; images: scrambled, turned, zoomed, spectral; vectors: box, wide; "
        "default: all that fit.",
        "Objective",
        min_length=1,
    )


class Foreign:
    """Draws the inputs u of mean |f(u) - x*(f(u))|, x*(y) the data point nearest to y, anew at every step.

    options: ForeignOptions. data: float32 (N, *shape).

    Raises:
        ValueError: foreign_kinds do not fit the data, or there are fewer foreign_samples than processes.
    """

    def __init__(self, options: Any, data: Tensor, seed: int, shard: Shard) -> None:
        self.count = options.foreign_samples
        self.seed = seed
        self.shard = shard
        if self.count < shard.world_size:
            raise ValueError(
                f"foreign_samples: expected at least one for each of the {shard.world_size} processes, got "
                f"{self.count}"
            )
        try:
            self._source = ForeignInputs(data, options.foreign_kinds)
        except ValueError as error:
            raise ValueError(f"foreign_{error}") from None

    def inputs(self, step: int) -> Tensor:
        """This process's span of the step's inputs, (n, *shape)."""
        first, last = self.shard.span(self.count)
        return self._source.draw(self.count, generator(self.seed, "foreign", step))[first:last]
