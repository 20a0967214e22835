"""Streaming exact nearest-neighbour search: one pool in many chunks, one preparation of the data for many pools."""

from typing import Any

import torch
from torch import Tensor

from naign_ext import _native
from naign_ext.ops import reference
from naign_ext.ops.imle_knn import (
    Neighbours,
    check_k,
    check_pool_matches,
    check_reject_below,
    check_tensor,
    has_kernel,
)

# Axes of the projection that discards most pairs before the full rows are compared.
RANK = 64
# Only a search that is used again repays finding the axes.
PAIRS_BEFORE_PROJECTION = 1 << 22
SAMPLED_ROWS = 2048
# Rows times ranks up to which a merge gathers: more bytes than two all_reduces, but one wait instead of two.
MOST_GATHERED = 1 << 16


def principal_axes(data: Tensor) -> Tensor:
    """The RANK principal axes of data (N, D), orthonormal rows, float32; rows with NaN or Inf are left out.

    They decide how much the projection discards, never the answer: |P (x - y)| <= |x - y| for any orthonormal P.
    """
    sample = data[:: max(1, len(data) // SAMPLED_ROWS)].double()
    sample = sample[reference.finite_rows(sample)]
    if len(sample) == 0:
        return torch.zeros(RANK, data.shape[1], device=data.device)
    sample = sample - sample.mean(dim=0)
    sample = (sample / sample.abs().max().clamp(min=torch.finfo(torch.float64).tiny)).float()
    rank = min(RANK, *sample.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        axes = torch.svd_lowrank(sample, q=rank, niter=4)[2].T
    return torch.nn.functional.pad(axes, (0, 0, 0, RANK - rank)).contiguous()


class ImleSearch:
    """The k nearest rows of a pool that arrives chunk by chunk, for every row of data.

    Equal, bit for bit, to one call of :func:`naign_ext.imle_knn` on the concatenated pool. Memory O(N + chunk).
    What depends on data alone is prepared once and kept over resets. Not differentiable: it finds the winners;
    recompute their samples with gradient.

    Args:
        data: (N, D), float32, float16, bfloat16 or float64; not copied, and must not change.
        k: neighbours per row.
        reject_below: pairs whose squared distance is below this are inadmissible (RS-IMLE, arXiv 2409.17439).

    Example:
        search = ImleSearch(data)
        for chunk in chunks:
            search.update(generator(chunk))
        distances, indices = search.neighbours()
        search.reset()
    """

    def __init__(self, data: Tensor, k: int = 1, *, reject_below: float | None = None) -> None:
        check_tensor("data", data, (2,))
        check_k(k)
        check_reject_below(reject_below)
        self.data = data.detach()
        self.k = k
        self.reject_below = None if reject_below is None else float(reject_below)
        self._packed: Tensor | None = None
        self._filter = 0
        self._axes: Tensor | None = None
        self._no_projection = (data.new_empty(0), data.new_empty(0))
        self._projection = self._no_projection
        self._rows_seen = 0
        self.reset()

    def reset(self) -> None:
        """Forget the pool, keep what was prepared for the data."""
        self.count = 0
        self._distances, self._indices = reference.empty_neighbours(len(self.data), self.k, self.data.device)

    @torch.no_grad()
    def update(self, pool: Tensor, *, offset: int | None = None) -> "ImleSearch":
        """Take in a chunk of the pool, (m, D), m >= 0; its rows are numbered from offset (default: count)."""
        check_pool_matches(self.data, pool)
        first = self.count if offset is None else offset
        if len(pool) > 0 and len(self.data) > 0:
            self._take_in(pool.detach(), first)
        self.count += len(pool)
        return self

    def _take_in(self, pool: Tensor, first: int) -> None:
        if not has_kernel(self.data, pool, self.k):
            self._distances, self._indices = reference.update(
                self.data, pool, self._distances, self._indices, offset=first, reject_below=self.reject_below
            )
        elif self.data.device.type == "cuda":
            self._take_in_on_cuda(pool, first)
        else:
            self._take_in_on_cpu(pool, first)

    def _take_in_on_cuda(self, pool: Tensor, first: int) -> None:
        # A new pool may lie elsewhere. Packing again costs less than waiting for the device to say so.
        if self.count == 0 or self._packed is None:
            self._packed = torch.ops.naign.imle_knn_cuda_pack(self.data, pool)
        torch.ops.naign.imle_knn_cuda_update(
            self.data,
            self._packed,
            pool,
            first,
            self.count,
            self.reject_below,
            self._distances,
            self._indices,
        )

    def _take_in_on_cpu(self, pool: Tensor, first: int) -> None:
        operators = torch.ops.naign
        # The packing has a centre near the pool; a pool that moved far away, as at a restart, gets a new one.
        moved = self.count == 0 and self._packed is not None
        if moved and not operators.imle_knn_packing_fits(self._packed, pool):
            self._packed = None
        if self._packed is None:
            self._filter = operators.imle_knn_first_filter(self.data)
            self._pack(pool)
        if self._axes is None and self._projection_pays():
            self._axes = principal_axes(self.data)
            self._project()
        ended_with, projection_pays = operators.imle_knn_update(
            self.data,
            self._packed,
            self._filter,
            *self._projection,
            pool,
            first,
            self.reject_below,
            self._distances,
            self._indices,
        )
        if ended_with != self._filter:
            self._filter = ended_with
            self._pack(pool)
        if self._axes is not None and not projection_pays:
            self._projection = self._no_projection
        self._rows_seen += len(pool)

    def _pack(self, pool: Tensor) -> None:
        self._packed = torch.ops.naign.imle_knn_pack(self.data, pool, self._filter)
        if self._projection is not self._no_projection:
            self._project()

    def _project(self) -> None:
        self._projection = torch.ops.naign.imle_knn_project(self.data, self._packed, self._axes)

    def _projection_pays(self) -> bool:
        """Projecting a pool row costs as much as comparing it with a few hundred data rows."""
        rows, columns = self.data.shape
        return rows >= 512 and columns >= 4 * RANK and self._rows_seen * rows >= PAIRS_BEFORE_PROJECTION

    def update_around(self, pool: Tensor, *, offset: int, group: Any = None) -> "ImleSearch":
        """Take in the chunks of all ranks of a torch.distributed group that hold different data.

        For data too large for one process: every rank searches its own rows, and the chunks travel around the ring of
        ranks, so that each is generated once and searched by all. A collective: every rank of the group calls it
        equally often with its own part of one pool, numbered as in the whole pool; chunks may differ in length and be
        empty. The answer for a rank's rows is that of one search of the whole pool, bit for bit; nothing is merged::

            search = ImleSearch(my_part_of_the_data)
            for first in range(rank * chunk, pool_size, ranks * chunk):
                search.update_around(generate(first, first + chunk), offset=first)
            distances, indices = search.neighbours()

        A rank sends and receives each chunk but one, m D numbers each, while it searches the one before; two chunks
        are held at a time. Chunks must have one dtype and lie where the group's backend reaches them.

        pool: (m, D), m >= 0. offset: number of its first row. group: None is the default group. Returns self.
        """
        import torch.distributed as dist

        check_pool_matches(self.data, pool)
        ranks, rank = dist.get_world_size(group), dist.get_rank(group)
        own = torch.tensor([len(pool), offset], device=pool.device)
        announced = [torch.empty_like(own) for _ in range(ranks)]
        dist.all_gather(announced, own, group)
        held = pool.detach().contiguous()
        for hop in range(ranks):
            rows, first = (int(number) for number in announced[(rank - hop) % ranks])
            arriving = held.new_empty(0, held.shape[1])
            transfers = []
            if hop + 1 < ranks:
                arriving = held.new_empty(int(announced[(rank - hop - 1) % ranks][0]), held.shape[1])
                transfers = _shift(held, arriving, group)
            self.update(held[:rows], offset=first)
            for transfer in transfers:
                transfer.wait()
            held = arriving
        return self

    def neighbours(self) -> Neighbours:
        """Distances and indices (N, k) over all chunks since the last reset, as imle_knn returns them."""
        if self.count < self.k:
            raise ValueError(f"k: expected at most the {self.count} pool rows seen since reset, got {self.k}")
        native = self.data.device.type == "cpu" and _native.has_kernel(self.data)
        finish = torch.ops.naign.imle_knn_finish if native else reference.finish
        return Neighbours(*finish(self.data, self._distances, self._indices))

    def merge(self, group: Any = None) -> "ImleSearch":
        """Take in the running neighbours of all ranks of a torch.distributed group that share the same data.

        A collective: every rank of the group calls it, after each has taken in its own part of one pool and numbered
        its rows as they are in the whole pool (``update(chunk, offset=first_index)``). Then all hold the same
        neighbours, equal bit for bit to those of one search of the whole pool, and ``count`` counts all ranks' rows::

            search.reset()
            for first in range(rank * chunk, pool_size, ranks * chunk):
                search.update(generate(first, first + chunk), offset=first)
            distances, indices = search.merge().neighbours()

        Up to N ranks = 65536, and for k > 1: one all_gather, 16 N k + 8 bytes from each rank. Beyond, two
        all_reduces of 8 (N + ranks) and 8 N bytes. Data and running neighbours must lie where the group's backend
        reaches them (gloo: CPU, nccl: CUDA).

        group: of torch.distributed; None is the default group. Returns self.
        """
        import torch.distributed as dist

        ranks = dist.get_world_size(group)
        if ranks > 1:
            gathered = self.k > 1 or ranks * len(self.data) <= MOST_GATHERED
            (self._merge_by_gathering if gathered else self._merge_by_minimum)(group)
        return self

    def _merge_by_gathering(self, group: Any) -> None:
        """The k smallest of all ranks' k smallest, each rank sending all it has in one piece."""
        import torch.distributed as dist

        count = self._indices.new_tensor([self.count])
        own = torch.cat([self._distances.view(torch.int64).flatten(), self._indices.flatten(), count])
        everyone = own.new_empty(dist.get_world_size(group), len(own))
        dist.all_gather(list(everyone.unbind()), own, group)
        size = self._indices.numel()
        parts = [
            (
                rank[:size].view(self._distances.dtype).view_as(self._distances),
                rank[size:-1].view_as(self._indices),
            )
            for rank in everyone
        ]
        merged = parts[0]
        for part in parts[1:]:
            merged = reference.merge_neighbours(*merged, *part)
        self._distances, self._indices = (t.clone() for t in merged)
        self.count = int(everyone[:, -1].sum())

    def _merge_by_minimum(self, group: Any) -> None:
        """The smallest distance of all ranks, then the lowest index among the ranks that have it."""
        import torch.distributed as dist

        rows, ranks, rank = len(self.data), dist.get_world_size(group), dist.get_rank(group)
        # Each rank fills its own place among the counts, so that the minimum gathers them.
        least = torch.cat([self._distances.flatten(), self._distances.new_full((ranks,), torch.inf)])
        least[rows + rank] = self.count
        dist.all_reduce(least, dist.ReduceOp.MIN, group)
        none = torch.iinfo(torch.int64).max
        known = (self._indices >= 0) & (self._distances == least[:rows, None])
        indices = self._indices.masked_fill(~known, none)
        dist.all_reduce(indices, dist.ReduceOp.MIN, group)
        self._distances, self._indices = least[:rows, None].clone(), indices.masked_fill(indices == none, -1)
        self.count = int(least[rows:].sum())


def _shift(held: Tensor, arriving: Tensor, group: Any) -> list[Any]:
    """Begin to send a tensor to the next rank of the ring and to receive one from the rank before."""
    import torch.distributed as dist

    ranks, rank = dist.get_world_size(group), dist.get_rank(group)

    def peer(step: int) -> int:
        neighbour = (rank + step) % ranks
        return neighbour if group is None else dist.get_global_rank(group, neighbour)

    operations = []
    if len(held):
        operations.append(dist.P2POp(dist.isend, held, peer(1), group))
    if len(arriving):
        operations.append(dist.P2POp(dist.irecv, arriving, peer(-1), group))
    return list(dist.batch_isend_irecv(operations)) if operations else []
