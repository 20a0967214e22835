"""A batch of data as a loss sees it."""

from dataclasses import dataclass

from torch import Tensor

from naign_ext.distributed.sharding import WHOLE, BatchOffset, Shard


@dataclass(frozen=True)
class Batch:
    """This process's shard of a batch.

    rows: int64 (B / processes,), which rows of the data set these are. all_rows: int64 (B,), those of the whole
        batch, the shards of all processes one after another.
    x: float32 (B / processes, *shape), the data.
    augmented: x under random changes after which data are still data, such as small shifts, new in every batch; x
        itself where there are none.
    offset: where the shard begins in the batch. A row's random numbers are those of its place there.
    """

    rows: Tensor
    all_rows: Tensor
    x: Tensor
    augmented: Tensor
    offset: BatchOffset

    @classmethod
    def of(cls, data: Tensor, rows: Tensor, shard: Shard = WHOLE) -> "Batch":
        """A shard of the batch of these rows (B,) of data (N, *shape), as they are.

        Raises:
            ValueError: B is not a multiple of the processes.
        """
        mine = shard.take(rows)
        x = data.index_select(0, mine)
        return cls(rows=mine, all_rows=rows, x=x, augmented=x, offset=shard.offset(len(rows)))
