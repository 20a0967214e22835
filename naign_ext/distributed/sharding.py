"""The part of a step's work that one of several processes does."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

Place = tuple[int, int]
"""(first, total): rows are rows first, first + 1, ... of a batch of ``total`` rows. A row's random numbers are those of
its place in the batch, so that they do not depend on how many processes share it."""

DRAWN_TOGETHER = 256
"""Rows whose corruptions are drawn with one seed. Part of the definition of a run whose batch is larger."""

_UNIT = 8


@dataclass(frozen=True)
class Share:
    """Part ``index`` of ``count``; parts are processes of torch.distributed's default group, by rank.

    All processes hold all the data. The pool is cut into spans, the batch into equal parts.
    """

    index: int = 0
    count: int = 1

    @property
    def alone(self) -> bool:
        """Whether there is one process only; then nothing is sent."""
        return self.count == 1

    def span(self, total: int) -> tuple[int, int]:
        """Rows [start, stop) of ``total``, nearly as many for each part.

        Cut at multiples of 8 where there are as many: matrix products treat the rows that are left over apart, and
        then a sample's last bit would depend on the number of processes.
        """
        unit = _UNIT if _UNIT * self.count <= total else 1
        units = -(-total // unit)
        start, stop = (unit * (units * i // self.count) for i in (self.index, self.index + 1))
        return min(start, total), min(stop, total)

    def part(self, rows: Tensor) -> Tensor:
        """This part of a batch's rows; ValueError where they do not divide equally."""
        first, _ = self.place(len(rows))
        return rows[first : first + len(rows) // self.count]

    def place(self, total: int) -> Place:
        """Where this part of a batch of ``total`` rows begins."""
        if total % self.count:
            raise ValueError(
                f"batch_size: expected a multiple of the {self.count} processes, got {total}; each takes as many rows"
            )
        return self.index * (total // self.count), total

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place: a collective."""
        if not self.alone:
            torch.distributed.all_reduce(values)
        return values


ALONE = Share()


def blocks(place: Place, rows: int) -> Iterator[tuple[int, slice, Place]]:
    """Rows at a place of a batch by blocks: each one's number, which of the rows it has, and their place in it."""
    first, total = place
    for number in range(first // DRAWN_TOGETHER, -(-(first + rows) // DRAWN_TOGETHER)):
        begin = number * DRAWN_TOGETHER
        start, stop = max(first, begin), min(first + rows, begin + DRAWN_TOGETHER)
        yield number, slice(start - first, stop - first), (start - begin, min(DRAWN_TOGETHER, total - begin))
