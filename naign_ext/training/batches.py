"""The data of a run, batch by batch, each a pure function of the seed and the step."""

from dataclasses import replace

import torch
from torch import Tensor

from naign_ext.config import ConfigError, TrainConfig
from naign_ext.distributed.sharding import WHOLE, Shard
from naign_ext.seeds import generator
from naign_ext.transforms import expand_with_flips, expand_with_shifts, random_augment
from naign_ext.transforms.batch import Batch


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


class TrainingData:
    """Rows x (N, *shape), and this process's shard of every batch of them.

    jitter: images are shifted by up to so many pixels, anew in every batch; 0 leaves them as they are.

    Raises:
        ValueError: batch_size is not a multiple of the processes.
    """

    def __init__(
        self, x: Tensor, *, batch_size: int, seed: int, jitter: int = 0, shard: Shard = WHOLE
    ) -> None:
        self.x = x
        self.batch_size = batch_size
        self.seed = seed
        self.jitter = jitter
        self.shard = shard
        shard.offset(batch_size)
        self._order = BatchOrder(len(x), seed)

    def batch(self, step: int) -> Batch:
        """The batch of update number step, counted from 0."""
        rows = self._order.rows(step * self.batch_size, self.batch_size).to(self.x.device)
        batch = Batch.of(self.x, rows, self.shard)
        if not self.jitter:
            return batch
        random = generator(self.seed, "vary", step)
        shifted = random_augment(
            batch.x, flip=False, pixels=self.jitter, generator=random, offset=batch.offset
        )
        return replace(batch, augmented=shifted)


def with_copies(images: Tensor, config: TrainConfig) -> Tensor:
    """The training images and their configured copies, the originals first; vectors have none."""
    wanted = config.augment
    if images.dim() != 4:
        if wanted.flip or wanted.shift or wanted.jitter:
            raise ConfigError(f"augment: {config.dataset} has vectors, not images; switch it off")
        return images
    images = expand_with_flips(images) if wanted.flip else images
    return expand_with_shifts(images, wanted.shift) if wanted.shift else images
