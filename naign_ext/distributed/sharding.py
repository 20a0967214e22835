"""The shard of a step's work that one of several processes does."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

BatchOffset = tuple[int, int]
"""(offset, total): rows are rows offset, offset + 1, ... of a batch of ``total`` rows. A row's random numbers are those
of its place in the batch, so that they do not depend on how many processes share it."""

DRAWN_TOGETHER = 256
"""Rows whose corruptions are drawn with one seed. Part of the definition of a run whose batch is larger."""

_UNIT = 8


@dataclass(frozen=True)
class Shard:
    """Shard ``rank`` of ``world_size``: those of the processes of torch.distributed's default group, by rank.

    All processes hold all the data. The pool is cut into spans, the batch into equal shards.
    """

    rank: int = 0
    world_size: int = 1

    @property
    def is_distributed(self) -> bool:
        """Whether there are other processes; with one only, nothing is sent."""
        return self.world_size > 1

    def span(self, total: int) -> tuple[int, int]:
        """Rows [start, stop) of ``total``, nearly as many for each shard.

        Cut at multiples of 8 where there are as many: matrix products treat the rows that are left over apart, and
        then a sample's last bit would depend on the number of processes.
        """
        unit = _UNIT if _UNIT * self.world_size <= total else 1
        units = -(-total // unit)
        start, stop = (unit * (units * i // self.world_size) for i in (self.rank, self.rank + 1))
        return min(start, total), min(stop, total)

    def take(self, rows: Tensor) -> Tensor:
        """This shard of a batch's rows; ValueError where they do not divide equally."""
        first, _ = self.offset(len(rows))
        return rows[first : first + len(rows) // self.world_size]

    def offset(self, total: int) -> BatchOffset:
        """Where this shard of a batch of ``total`` rows begins."""
        if total % self.world_size:
            raise ValueError(
                f"batch_size: expected a multiple of the {self.world_size} processes, got {total}; "
                "each takes as many rows"
            )
        return self.rank * (total // self.world_size), total

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place: a collective."""
        if self.is_distributed:
            torch.distributed.all_reduce(values)
        return values


WHOLE = Shard()


def blocks(offset: BatchOffset, rows: int) -> Iterator[tuple[int, slice, BatchOffset]]:
    """Rows at an offset of a batch by blocks: each one's number, which of the rows it has, and their offset in it."""
    first, total = offset
    for number in range(first // DRAWN_TOGETHER, -(-(first + rows) // DRAWN_TOGETHER)):
        begin = number * DRAWN_TOGETHER
        start, stop = max(first, begin), min(first + rows, begin + DRAWN_TOGETHER)
        yield number, slice(start - first, stop - first), (start - begin, min(DRAWN_TOGETHER, total - begin))
