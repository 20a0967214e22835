"""Streaming exact nearest-neighbour search: one pool in many chunks, one preparation of the data for many pools."""

from typing import Any

import torch
from torch import Tensor

from naign_ext.ops import reference
from naign_ext.ops.imle_knn import (
    Missing,
    Neighbours,
    check_k,
    check_offset,
    check_pool_matches,
    check_reject_below,
    check_tensor,
    without_missing,
)
from naign_ext.ops.imle_knn_state import prepare

# Rows times ranks up to which a merge gathers: more bytes than two all_reduces, but one wait instead of two.
MOST_GATHERED = 1 << 16


class ImleSearch:
    """The k nearest rows of a pool that arrives chunk by chunk, for every row of data.

    Equal, bit for bit, to one call of :func:`naign_ext.imle_knn` on the concatenated pool; but distances are float64
    where data are, whatever pools are. Memory O(N + chunk).
    What depends on data alone is prepared once and kept over resets. Not differentiable: it finds the winners;
    recompute their samples with gradient (under torch.func.grad too its distances are constants, and under vmap it is
    refused). Copies and pickles go on where the original was, and prepare again.

    Args:
        data: (N, D), float32, float16, bfloat16 or float64; not copied (a lazy negative is), and must not change. A
            change in place of the tensor, or of what it is a view of, is noticed: RuntimeError (but for tensors made
            in inference mode, and changes that torch does not count, through ``.data`` or numpy).
        k: neighbours per row.
        reject_below: pairs whose squared distance is below this are inadmissible (RS-IMLE, arXiv 2409.17439).

    Example:
        search = ImleSearch(data)
        for chunk in chunks:
            search.update(generator(chunk))
        distances, indices = search.neighbours(missing="raise")
        search.reset()
    """

    def __init__(self, data: Tensor, k: int = 1, *, reject_below: float | None = None) -> None:
        check_tensor("data", data, (2,))
        _check_not_mapped("data", data)
        self.data = _written_out(data.detach())
        self.k = check_k(k)
        self.reject_below = check_reject_below(reject_below)
        self._prepare()

    def _prepare(self) -> None:
        self._state = prepare(self.data, self.k, self.reject_below)
        self._version = _version_of(self.data)

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles take along: the data and the running neighbours, not what was prepared."""
        self._check_data()
        kept = {name: getattr(self, name) for name in ("data", "k", "reject_below", "count")}
        return {**kept, "running": self._state.running()}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        self.data, self.k, self.reject_below = kept["data"], kept["k"], kept["reject_below"]
        self._prepare()
        distances, indices = kept["running"]
        self._state.set_running(distances, indices, kept["count"])

    def _check_data(self) -> None:
        if self._version != _version_of(self.data):
            raise RuntimeError(
                "data: changed in place since this search was built, and what was prepared for it no longer fits; "
                "build a new ImleSearch(data), or build it with data.clone()"
            )

    @property
    def count(self) -> int:
        """Pool rows seen since the last reset."""
        return self._state.count

    def reset(self) -> None:
        """Forget the pool, keep what was prepared for the data."""
        self._state.reset()

    @torch.no_grad()
    def update(self, pool: Tensor, *, offset: int | None = None) -> "ImleSearch":
        """Take in a chunk of the pool, (m, D), m >= 0; its rows are numbered from offset (default: count).

        offset: an int from 0 to 2^63 - m.
        """
        check_pool_matches(self.data, pool)
        _check_not_mapped("pool", pool)
        self._check_data()
        first = self.count if offset is None else check_offset(offset, len(pool))
        self._state.update(pool.detach(), first)
        return self

    def update_around(self, pool: Tensor, *, offset: int, group: Any = None) -> "ImleSearch":
        """Take in the chunks of all ranks of a torch.distributed group that hold different data.

        For data too large for one process: every rank searches its own rows, and the chunks travel around the ring of
        ranks, so that each is generated once and searched by all. A collective: every rank of the group calls it
        equally often with its own part of one pool, numbered as in the whole pool; chunks may differ in length and be
        empty. The answer for a rank's rows is that of one search of the whole pool, bit for bit; nothing is merged::

            search = ImleSearch(my_part_of_the_data)
            for first in range(rank * chunk, pool_size, ranks * chunk):
                search.update_around(generate(first, first + chunk), offset=first)
            distances, indices = search.neighbours(missing="raise")

        A rank sends and receives each chunk but one, m D numbers each, while it searches the one before; two chunks
        are held at a time. Chunks must have one dtype and lie where the group's backend reaches them.

        pool: (m, D), m >= 0. offset: number of its first row. group: None is the default group. Returns self.
        """
        import torch.distributed as dist

        check_pool_matches(self.data, pool)
        ranks, rank = dist.get_world_size(group), dist.get_rank(group)
        own = torch.tensor([len(pool), check_offset(offset, len(pool))], device=pool.device)
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

    def neighbours(self, *, missing: Missing = "mark") -> Neighbours:
        """Distances and indices (N, k) over all chunks since the last reset, as imle_knn returns them.

        missing: as imle_knn takes it: "mark" gives index -1 where there is no neighbour, "raise" a ValueError.
        """
        if self.count < self.k:
            raise ValueError(f"k: expected at most the {self.count} pool rows seen since reset, got {self.k}")
        self._check_data()
        return without_missing(Neighbours(*self._state.result()), missing)

    def merge(self, group: Any = None) -> "ImleSearch":
        """Take in the running neighbours of all ranks of a torch.distributed group that share the same data.

        A collective: every rank of the group calls it, after each has taken in its own part of one pool and numbered
        its rows as they are in the whole pool (``update(chunk, offset=first_index)``). Then all hold the same
        neighbours, equal bit for bit to those of one search of the whole pool, and ``count`` counts all ranks' rows::

            search.reset()
            for first in range(rank * chunk, pool_size, ranks * chunk):
                search.update(generate(first, first + chunk), offset=first)
            distances, indices = search.merge().neighbours(missing="raise")

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

        distances, indices = self._state.running()
        count = indices.new_tensor([self.count])
        own = torch.cat([distances.view(torch.int64).flatten(), indices.flatten(), count])
        everyone = own.new_empty(dist.get_world_size(group), len(own))
        dist.all_gather(list(everyone.unbind()), own, group)
        size = indices.numel()
        parts = [
            (rank[:size].view(distances.dtype).view_as(distances), rank[size:-1].view_as(indices))
            for rank in everyone
        ]
        merged = parts[0]
        for part in parts[1:]:
            merged = reference.merge_neighbours(*merged, *part)
        self._state.set_running(merged[0].clone(), merged[1].clone(), int(everyone[:, -1].sum()))

    def _merge_by_minimum(self, group: Any) -> None:
        """The smallest distance of all ranks, then the lowest index among the ranks that have it."""
        import torch.distributed as dist

        distances, indices = self._state.running()
        rows, ranks, rank = len(self.data), dist.get_world_size(group), dist.get_rank(group)
        # Each rank fills its own place among the counts, so that the minimum gathers them.
        least = torch.cat([distances.flatten(), distances.new_full((ranks,), torch.inf)])
        least[rows + rank] = self.count
        dist.all_reduce(least, dist.ReduceOp.MIN, group)
        none = torch.iinfo(torch.int64).max
        known = (indices >= 0) & (distances == least[:rows, None])
        named = indices.masked_fill(~known, none)
        dist.all_reduce(named, dist.ReduceOp.MIN, group)
        self._state.set_running(
            least[:rows, None].clone(), named.masked_fill(named == none, -1), int(least[rows:].sum())
        )


def _check_not_mapped(name: str, value: Tensor) -> None:
    """Raise where torch.func.vmap maps over value: a search keeps one state."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(value):
        if functorch.is_batchedtensor(value):
            raise TypeError(
                f"{name}: ImleSearch is not supported under torch.func.vmap; "
                "use imle_knn, or search each by itself"
            )
        value = functorch.get_unwrapped(value)


def _written_out(data: Tensor) -> Tensor:
    """data, copied only where torch keeps no numbers or the negatives of them: a search reads its memory again."""
    return data.clone() if data.is_neg() or data._is_zerotensor() else data


def _version_of(data: Tensor) -> int | None:
    """How often data were changed in place; None where torch does not count."""
    return None if data.is_inference() else data._version


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
