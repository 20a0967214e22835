"""The order of the data as a pure function of (seed, position)."""

import torch
from torch import Tensor

from naign_ext.seeds import generator


class BatchOrder:
    """An endless sequence of shuffled epochs: position n is sample n % count of epoch n // count.

    A batch may reach over the end of an epoch, so every row comes up equally often and no batch is short.
    """

    def __init__(self, count: int, seed: int) -> None:
        if count < 1:
            raise ValueError(f"count: expected at least one row of data, got {count}")
        self.count = count
        self.seed = seed
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def rows(self, start: int, size: int) -> Tensor:
        """Rows at positions [start, start + size), int64 (size,)."""
        parts = []
        position = start
        while position < start + size:
            epoch, first = divmod(position, self.count)
            last = min(self.count, first + start + size - position)
            parts.append(self._shuffled(epoch)[first:last])
            position += last - first
        return torch.cat(parts)

    def _shuffled(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            self._order = torch.randperm(self.count, generator=generator(self.seed, "order", epoch))
            self._epoch = epoch
        return self._order
