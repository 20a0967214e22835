"""IMLE's matching step: for every data point, the latent of a sample near it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from naign_ext.distributed.sharding import WHOLE
from naign_ext.latents import LatentPool
from naign_ext.objectives.assignment import assign
from naign_ext.objectives.base import StepContext
from naign_ext.objectives.generation import SideStream, chunk_for, sample_in_evaluation
from naign_ext.objectives.match_options import MatchOptions
from naign_ext.objectives.space import MatchSpace
from naign_ext.ops import imle_knn
from naign_ext.search import ImleSearch
from naign_ext.transforms.batch import Batch

CHEAP_POOL = 1 << 24
"""Rows of a pool times parameters of f up to which a process makes the pool of a batch whole, for its own rows alone:
that takes less time than a merge with what others have made (some 10^7 operations, a tenth of a millisecond)."""


def build_matcher(
    options: MatchOptions, data: Tensor, context: StepContext, space: MatchSpace | None = None
) -> "Matcher":
    """The matcher that ``options.match`` names, for data (N, *shape).

    space: that of the options for these data; default: it is built.
    """
    kinds: dict[str, type[Matcher]] = {
        "batch": BatchMatcher,
        "dataset": DatasetMatcher,
        "one-to-one": OneToOneMatcher,
        "adaptive": AdaptiveMatcher,
    }
    return kinds[options.match](options, data, context, space)


class Matcher(ABC):
    """Finds matched latents for rows of data (N, *shape); memory O(N + chunk), never the whole pool.

    Where processes share a step each generates and searches its span of the pool for all rows in question, and
    the running minima are merged, after which all know every winner. A winner's latent is regenerated from its
    index by the process that trains on the row, so nothing but distances and indices is sent. ``pool_shard`` is the
    part of the pool that this process generates. Distances are those of ``space``, whose data are kept; of the
    pool there is never more than a chunk.
    """

    def __init__(
        self, options: MatchOptions, data: Tensor, context: StepContext, space: MatchSpace | None = None
    ) -> None:
        self.options = options
        self.data = data
        self.space = space or MatchSpace.of(options, data, context.seed)
        self.timer = context.timer
        self.shard = context.shard
        self.pool_shard = context.shard
        self.rows_at_a_time = options.pool_chunk
        self.pool = LatentPool(data.shape[1:], options.latent_scale, context.seed, device=data.device)
        self._begin()

    def _begin(self) -> None:  # noqa: B027 - most keep nothing
        """Make what a match that outlives its step is kept in."""

    def prepare(self, f: nn.Module, step: int) -> None:
        """Draw the step's pool, and match the whole data set where that is how and when it is due."""
        del f
        self.pool.draw = step // self.options.resample_every

    @abstractmethod
    def latents(self, f: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Latents (B / processes, *shape) matched to the batch's x, and which have an admissible match (bool)."""

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold of a match that outlives its step."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:  # noqa: B027 - most keep nothing
        """Take up an earlier :meth:`state` without a new search."""

    def _own(self, batch: Batch) -> Tensor:
        """This process's data of the batch in the space of the match, (B / processes, K)."""
        return batch.x.flatten(1) if self.space.phi is None else self.space.data.index_select(0, batch.rows)

    def _whole(self, batch: Batch) -> Tensor:
        """The data of the whole batch there, (B, K)."""
        distributed = self.shard.is_distributed
        return self.space.data.index_select(0, batch.all_rows) if distributed else self._own(batch)

    def _new_search(self, data: Tensor) -> ImleSearch:
        below = self.options.reject_below if self.options.reject == "pair" else None
        return ImleSearch(data, reject_below=below)

    def _nearest(self, search: ImleSearch, f: nn.Module, others: Tensor | None = None) -> Tensor:
        """Index (n,) of each row's nearest admissible sample, -1 where there is none.

        others: further latents, numbered from pool_size on.
        """
        with SideStream(self.data.device) as side_stream:
            for first, samples in self._samples(f, others):
                side_stream.run(partial(self._take_in, search, first), samples)
        if self.pool_shard.is_distributed:
            with self.timer("merge"):
                search.merge()
        with self.timer("search"):
            return search.neighbours().indices[:, 0]

    def _take_in(self, search: ImleSearch, first: int, samples: Tensor) -> None:
        with self.timer("search"):
            search.update(self._without_rejected(samples), offset=first)

    def _samples(self, f: nn.Module, others: Tensor | None = None) -> Iterator[tuple[int, Tensor]]:
        """This process's span of the current pool, chunk by chunk: each one's first index, and its samples as rows.

        Rows are of the space of the match; pixels have the dtype that f answers in. After the pool the samples of
        other latents.
        """
        size = self.options.pool_size
        for start, stop in self._chunks(f, size):
            with self.timer("generation"):
                samples = self.space.rows(sample_in_evaluation(f, self.pool.chunk(start, stop)))
            yield start, samples
        for start, stop in self._chunks(f, 0 if others is None else len(others)):
            assert others is not None
            with self.timer("generation"):
                samples = self.space.rows(sample_in_evaluation(f, others[start:stop]))
            yield size + start, samples

    def _chunks(self, f: nn.Module, total: int) -> Iterator[tuple[int, int]]:
        """This process's span of ``total`` rows in chunks."""
        if self.rows_at_a_time is None:
            self.rows_at_a_time = chunk_for(f, self.pool.shape, self.data.device, self.space.row_bytes)
        first, last = self.pool_shard.span(total)
        for start in range(first, last, self.rows_at_a_time):
            yield start, min(start + self.rows_at_a_time, last)

    def _without_rejected(self, samples: Tensor) -> Tensor:
        """The samples, those too near any data as NaN where the options say so."""
        below = self.options.reject_below
        if self.options.reject != "sample" or below is None:
            return samples
        return reject_near(samples, self.space.data, below)


class BatchMatcher(Matcher):
    """The nearest sample of each row of a batch."""

    def prepare(self, f: nn.Module, step: int) -> None:
        """See :meth:`Matcher.prepare`."""
        super().prepare(f, step)
        if not self.pool_shard.is_distributed:
            return
        cheap = self.options.pool_size * sum(p.numel() for p in f.parameters()) <= CHEAP_POOL
        if cheap and self.space.phi is None:
            self.pool_shard = WHOLE

    def latents(self, f: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """See :meth:`Matcher.latents`."""
        if not self.pool_shard.is_distributed:
            indices = self._nearest(self._new_search(self._own(batch)), f)
        else:
            indices = self.shard.take(self._nearest(self._new_search(self._whole(batch)), f))
        with self.timer("generation"):
            return self.pool.rows(indices), indices >= 0


class OneToOneMatcher(Matcher):
    """The assignment of samples to the rows of a batch that has the least sum of squared distances.

    Exact where the batch's whole matrix of distances is small; else exact among each row's nearest samples, see
    :func:`naign_ext.objectives.assignment.assign`.
    """

    def latents(self, f: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """See :meth:`Matcher.latents`.

        Raises:
            ValueError: the pool is smaller than the batch.
        """
        if self.options.pool_size < len(batch.all_rows):
            raise ValueError(
                f"pool_size: expected at least the batch's {len(batch.all_rows)} rows for a one-to-one match, got "
                f"{self.options.pool_size}"
            )
        samples: Iterable[tuple[int, Tensor]] = _Repeated(partial(self._admissible, f))
        # Features are many more numbers than samples: made again where more neighbours are needed.
        samples = tuple(samples) if self.space.phi is None else samples
        with self.timer("search"):
            indices = assign(
                self._whole(batch), samples, self.options.pool_size, merge=self.shard.is_distributed
            )
            indices = self.shard.take(indices.to(self.data.device))
        with self.timer("generation"):
            return self.pool.rows(indices), indices >= 0

    def _admissible(self, f: nn.Module) -> Iterator[tuple[int, Tensor]]:
        for first, samples in self._samples(f):
            yield first, self._without_rejected(samples)


class DatasetMatcher(Matcher):
    """The nearest sample of every row of the data set, found at once and kept until the next match is due.

    With warm_start the latents of the last match compete with the new pool for every row.
    """

    def _begin(self) -> None:
        self._search: ImleSearch | None = None
        self._draw = -1
        self._indices: Tensor | None = None
        self._latents = torch.empty(0)
        self._present = torch.zeros(len(self.data), dtype=torch.bool, device=self.data.device)

    def prepare(self, f: nn.Module, step: int) -> None:
        """See :meth:`Matcher.prepare`."""
        super().prepare(f, step)
        if self.pool.draw != self._draw:
            if self._search is None:
                self._search = self._new_search(self.space.data)
            self._search.reset()
            last = self._latents if self.options.warm_start and self._indices is not None else None
            self._keep(self.pool.draw, self._nearest(self._search, f, last))

    def latents(self, f: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """See :meth:`Matcher.latents`."""
        if self._indices is None:
            raise RuntimeError("latents: the data set has no match yet; call prepare(f, step) first")
        self._regenerate(batch.rows)
        return self._latents[batch.rows], self._indices[batch.rows] >= 0

    def state(self) -> dict[str, Tensor]:
        """The current match of the whole data set: its draw and winners.

        Their latents are regenerated, but for those of a warm start, which are of many draws.
        """
        if self._indices is None:
            return {}
        state = {"match.draw": torch.tensor(self._draw), "match.indices": self._indices.cpu()}
        return state | ({"match.latents": self._latents.cpu()} if self.options.warm_start else {})

    def load_state(self, state: dict[str, Tensor]) -> None:
        """See :meth:`Matcher.load_state`."""
        if "match.indices" in state:
            self.pool.draw = int(state["match.draw"])
            self._keep(self.pool.draw, state["match.indices"].to(self.data.device))
        if "match.latents" in state:
            self._latents = state["match.latents"].to(self.data.device)

    def _keep(self, draw: int, indices: Tensor) -> None:
        last = self._latents
        self._draw, self._indices, self._latents = draw, indices, torch.zeros_like(self.data)
        self._present.zero_()
        if not self.shard.is_distributed or self.options.warm_start:
            # All at once, since it will need them all. A process among many needs the rows of its own parts
            # of the batches alone, as they come.
            self._regenerate(torch.arange(len(self.data), device=self.data.device))
        again = indices >= self.options.pool_size
        if len(last) and bool(again.any()):
            self._latents[again] = last[indices[again] - self.options.pool_size]

    def _regenerate(self, rows: Tensor) -> None:
        """The latents of these rows' winners that are not there yet."""
        assert self._indices is not None
        missing = rows[~self._present[rows]]
        if len(missing):
            with self.timer("generation"):
                indices = self._indices[missing]
                of_pool = torch.where(indices < self.options.pool_size, indices, -1)
                self._latents[missing] = self.pool.rows(of_pool)
            self._present[missing] = True


class AdaptiveMatcher(Matcher):
    """Keeps each row's latent until its sample has come nearer by a set factor (Adaptive IMLE, ICML 2023).

    At every match, with d_i = |x_i - f(z_i)|^2, in the space of the match, for the latent z_i that row i holds
    and tau_i its threshold, row i gets the nearest sample of a new pool when (d_i < tau_i and z_i is
    adaptive_patience matches old) or z_i is adaptive_limit matches old; then tau_i = (1 - adaptive_decay) d_i.
    The first thresholds are infinite. So hard rows keep their latent until f has learnt it, and easy ones move on.
    Memory O(N) latents.
    """

    def _begin(self) -> None:
        self._draw = -1
        rows, device = len(self.data), self.data.device
        self._latents = torch.zeros_like(self.data)
        self._matched = torch.zeros(rows, dtype=torch.bool, device=device)
        self._thresholds = torch.full((rows,), torch.inf, device=device)
        self._age = torch.zeros(rows, dtype=torch.int64, device=device)

    def prepare(self, f: nn.Module, step: int) -> None:
        """See :meth:`Matcher.prepare`."""
        super().prepare(f, step)
        if self.pool.draw == self._draw:
            return
        first = self._draw < 0
        self._draw = self.pool.draw
        due = torch.ones_like(self._matched) if first else self._due(f)
        wanted = due.nonzero().flatten()
        if len(wanted) == 0:
            return
        indices = self._nearest(self._new_search(self.space.data[wanted]), f)
        with self.timer("generation"):
            self._latents[wanted] = self.pool.rows(indices)
        self._matched[wanted] = indices >= 0
        self._age[wanted] = 0

    def latents(self, f: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """See :meth:`Matcher.latents`."""
        if self._draw < 0:
            raise RuntimeError("latents: the data set has no match yet; call prepare(f, step) first")
        return self._latents[batch.rows], self._matched[batch.rows]

    def state(self) -> dict[str, Tensor]:
        """Latents, thresholds and ages of all rows."""
        if self._draw < 0:
            return {}
        kept = {
            "latents": self._latents,
            "matched": self._matched,
            "thresholds": self._thresholds,
            "age": self._age,
        }
        return {"match.draw": torch.tensor(self._draw)} | {f"match.{k}": v.cpu() for k, v in kept.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """See :meth:`Matcher.load_state`."""
        if "match.thresholds" in state:
            self._draw = int(state["match.draw"])
            kept = [
                state[f"match.{k}"].to(self.data.device) for k in ("latents", "matched", "thresholds", "age")
            ]
            self._latents, self._matched, self._thresholds, self._age = kept

    def _due(self, f: nn.Module) -> Tensor:
        """Which rows are matched anew; sets their thresholds."""
        o = self.options
        self._age += 1
        distances = torch.zeros(len(self.data), device=self.data.device)
        for start, stop in self._chunks(f, len(self.data)):
            with self.timer("generation"):
                samples = self.space.rows(sample_in_evaluation(f, self._latents[start:stop]).float())
            with self.timer("search"):
                distances[start:stop] = (self.space.data[start:stop] - samples).square().sum(dim=1)
        with self.timer("merge"):
            self.shard.sum(distances)
        near = (distances < self._thresholds) & (self._age >= o.adaptive_patience)
        due = near | (self._age >= o.adaptive_limit) | ~self._matched
        self._thresholds[due] = (1 - o.adaptive_decay) * distances[due]
        self._thresholds[~self._matched] = torch.inf
        return due


@dataclass(frozen=True)
class _Repeated:
    """Chunks that are made anew each time they are iterated over."""

    make: Callable[[], Iterator[tuple[int, Tensor]]]

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        return self.make()


def reject_near(samples: Tensor, data: Tensor, below: float) -> Tensor:
    """samples (m, D), those at a squared distance below this from any row of data (N, D) as NaN: never matched."""
    with torch.no_grad():
        nearest = imle_knn(samples, data).distances[:, 0]
    return samples.masked_fill((nearest < below)[:, None], torch.nan)
