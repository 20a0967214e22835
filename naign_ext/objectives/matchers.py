"""IMLE's matching step: for every data point, the latent of a sample near it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from naign_ext.latents import LatentPool
from naign_ext.objectives.assignment import assign
from naign_ext.objectives.base import Clock, MatchOptions
from naign_ext.ops import imle_knn
from naign_ext.search import ImleSearch


def sample_in_evaluation(f: nn.Module, latents: Tensor) -> Tensor:
    """f(latents) without gradients, in evaluation mode; f's mode is restored.

    Evaluation mode is deliberate. In training mode batch normalisation would make a sample depend on the
    chunk it is in, and every pool would shift the running statistics by forward passes that no gradient
    follows. With the running statistics each sample is a function of its latent alone, and it is the sample
    that the finished f will draw.
    """
    training = f.training
    f.eval()
    try:
        with torch.no_grad():
            return f(latents).float()  # type: ignore[no-any-return]
    finally:
        f.train(training)


def build_matcher(options: MatchOptions, data: Tensor, seed: int, clock: Clock | None = None) -> "Matcher":
    """The matcher that ``options.match`` names, for data (N, *shape)."""
    kinds: dict[str, type[Matcher]] = {
        "batch": BatchMatcher,
        "dataset": DatasetMatcher,
        "one-to-one": OneToOneMatcher,
        "adaptive": AdaptiveMatcher,
    }
    return kinds[options.match](options, data, seed, clock)


class Matcher(ABC):
    """Finds matched latents for rows of data (N, *shape); memory O(N + chunk), never the whole pool."""

    def __init__(self, options: MatchOptions, data: Tensor, seed: int, clock: Clock | None = None) -> None:
        self.options = options
        self.data = data
        self.clock = clock or Clock()
        self.pool = LatentPool(data.shape[1:], options.latent_scale, seed, device=data.device)

    def prepare(self, f: nn.Module, step: int) -> None:
        """Draw the step's pool, and match the whole data set where that is how and when it is due."""
        del f
        self.pool.draw = step // self.options.resample_every

    @abstractmethod
    def latents(self, f: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B, *shape) matched to the data rows, and bool (B,): whether an admissible match exists."""

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold of a match that outlives its step."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:  # noqa: B027 - most keep nothing
        """Take up an earlier :meth:`state` without a new search."""

    def _new_search(self, data: Tensor, k: int = 1) -> ImleSearch:
        below = self.options.reject_below if self.options.reject == "pair" else None
        return ImleSearch(data.flatten(1), k, reject_below=below)

    def _nearest(self, search: ImleSearch, f: nn.Module) -> Tensor:
        """Index (n,) of each row's nearest admissible sample, -1 where there is none."""
        for samples in self._samples(f):
            with self.clock("search"):
                search.update(samples)
        with self.clock("search"):
            return search.neighbours().indices[:, 0]

    def _samples(self, f: nn.Module) -> Iterator[Tensor]:
        """The current pool's samples as rows, chunk by chunk, in order; rejected ones are NaN."""
        for start in range(0, self.options.pool_size, self.options.pool_chunk):
            stop = min(start + self.options.pool_chunk, self.options.pool_size)
            with self.clock("generation"):
                samples = sample_in_evaluation(f, self.pool.chunk(start, stop)).flatten(1)
            if self.options.reject == "sample" and self.options.reject_below is not None:
                with self.clock("search"):
                    samples = reject_near(samples, self.data.flatten(1), self.options.reject_below)
            yield samples


class BatchMatcher(Matcher):
    """The nearest sample of each row of a batch."""

    def latents(self, f: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`Matcher.latents`."""
        indices = self._nearest(self._new_search(self.data[rows]), f)
        with self.clock("generation"):
            return self.pool.rows(indices), indices >= 0


class OneToOneMatcher(Matcher):
    """The assignment of samples to the rows of a batch that has the least sum of squared distances.

    Exact where the batch's whole matrix of distances is small; else exact among each row's nearest samples, see
    :func:`naign_ext.objectives.assignment.assign`.
    """

    def latents(self, f: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`Matcher.latents`.

        Raises:
            ValueError: the pool is smaller than the batch.
        """
        if self.options.pool_size < len(rows):
            raise ValueError(
                f"pool_size: expected at least the batch's {len(rows)} rows for a one-to-one match, got "
                f"{self.options.pool_size}"
            )
        x = self.data[rows].flatten(1)
        samples = list(self._samples(f))
        with self.clock("search"):
            indices = assign(x, samples).to(self.data.device)
        with self.clock("generation"):
            return self.pool.rows(indices), indices >= 0


class DatasetMatcher(Matcher):
    """The nearest sample of every row of the data set, found at once and kept until the next match is due."""

    def __init__(self, options: MatchOptions, data: Tensor, seed: int, clock: Clock | None = None) -> None:
        super().__init__(options, data, seed, clock)
        self._search: ImleSearch | None = None
        self._draw = -1
        self._indices: Tensor | None = None
        self._latents: Tensor | None = None

    def prepare(self, f: nn.Module, step: int) -> None:
        """See :meth:`Matcher.prepare`."""
        super().prepare(f, step)
        if self.pool.draw != self._draw:
            if self._search is None:
                self._search = self._new_search(self.data)
            self._search.reset()
            self._keep(self.pool.draw, self._nearest(self._search, f))

    def latents(self, f: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`Matcher.latents`."""
        if self._indices is None or self._latents is None:
            raise RuntimeError("latents: the data set has no match yet; call prepare(f, step) first")
        return self._latents[rows], self._indices[rows] >= 0

    def state(self) -> dict[str, Tensor]:
        """The current match of the whole data set: its draw and winners. Their latents are regenerated."""
        if self._indices is None:
            return {}
        return {"match.draw": torch.tensor(self._draw), "match.indices": self._indices.cpu()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """See :meth:`Matcher.load_state`."""
        if "match.indices" in state:
            self.pool.draw = int(state["match.draw"])
            self._keep(self.pool.draw, state["match.indices"].to(self.data.device))

    def _keep(self, draw: int, indices: Tensor) -> None:
        with self.clock("generation"):
            self._draw, self._indices, self._latents = draw, indices, self.pool.rows(indices)


class AdaptiveMatcher(Matcher):
    """Keeps each row's latent until its sample has come nearer by a set factor (Adaptive IMLE, ICML 2023).

    At every match, with d_i = |x_i - f(z_i)|^2 for the latent z_i that row i holds and tau_i its threshold,
    row i gets the nearest sample of a new pool when (d_i < tau_i and z_i is adaptive_patience matches old) or
    z_i is adaptive_limit matches old; then tau_i = (1 - adaptive_decay) d_i. The first thresholds are
    infinite. So hard rows keep their latent until f has learnt it, and easy ones move on. Memory O(N) latents.
    """

    def __init__(self, options: MatchOptions, data: Tensor, seed: int, clock: Clock | None = None) -> None:
        super().__init__(options, data, seed, clock)
        self._draw = -1
        self._latents = torch.zeros_like(data)
        self._matched = torch.zeros(len(data), dtype=torch.bool, device=data.device)
        self._thresholds = torch.full((len(data),), torch.inf, device=data.device)
        self._age = torch.zeros(len(data), dtype=torch.int64, device=data.device)

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
        indices = self._nearest(self._new_search(self.data[wanted]), f)
        with self.clock("generation"):
            self._latents[wanted] = self.pool.rows(indices)
        self._matched[wanted] = indices >= 0
        self._age[wanted] = 0

    def latents(self, f: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`Matcher.latents`."""
        if self._draw < 0:
            raise RuntimeError("latents: the data set has no match yet; call prepare(f, step) first")
        return self._latents[rows], self._matched[rows]

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
        with self.clock("generation"):
            parts = torch.split(self._latents, o.pool_chunk)
            samples = torch.cat([sample_in_evaluation(f, part).flatten(1) for part in parts])
        with self.clock("search"):
            distances = (self.data.flatten(1) - samples).square().sum(dim=1)
        near = (distances < self._thresholds) & (self._age >= o.adaptive_patience)
        due = near | (self._age >= o.adaptive_limit) | ~self._matched
        self._thresholds[due] = (1 - o.adaptive_decay) * distances[due]
        self._thresholds[~self._matched] = torch.inf
        return due


def reject_near(samples: Tensor, data: Tensor, below: float) -> Tensor:
    """samples (m, D), those at a squared distance below this from any row of data (N, D) as NaN: never matched."""
    nearest = imle_knn(samples, data).distances[:, 0]
    return samples.masked_fill((nearest < below)[:, None], torch.nan)
