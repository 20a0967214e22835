"""IMLE's matching step: for every data point, the latent whose sample is nearest."""

import torch
from torch import Tensor, nn

from naign_ext.latents import LatentPool
from naign_ext.objectives.base import MatchOptions
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


class Matcher:
    """Finds matched latents for rows of data (N, *shape); memory O(N + chunk), never the whole pool."""

    def __init__(self, options: MatchOptions, data: Tensor, seed: int) -> None:
        self.options = options
        self.data = data
        self.pool = LatentPool(data.shape[1:], options.latent_scale, seed, device=data.device)
        self._search: ImleSearch | None = None
        self._draw = -1
        self._indices: Tensor | None = None
        self._latents: Tensor | None = None

    def prepare(self, f: nn.Module, step: int) -> None:
        """Draw the step's pool; match the whole data set when that is how and when it is due."""
        self.pool.draw = step // self.options.resample_every
        if self.options.match == "dataset" and self.pool.draw != self._draw:
            if self._search is None:
                self._search = self._new_search(self.data)
            self._search.reset()
            self._keep(self.pool.draw, self._nearest(self._search, f))

    def latents(self, f: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B, *shape) matched to the data rows, and bool (B,): whether an admissible match exists."""
        if self.options.match == "batch":
            indices = self._nearest(self._new_search(self.data[rows]), f)
            return self.pool.rows(indices), indices >= 0
        if self._indices is None or self._latents is None:
            raise RuntimeError("latents: the data set has no match yet; call prepare(f, step) first")
        return self._latents[rows], self._indices[rows] >= 0

    def state(self) -> dict[str, Tensor]:
        """The current match of the whole data set: its draw and winners. Their latents are regenerated."""
        if self._indices is None:
            return {}
        return {"match.draw": torch.tensor(self._draw), "match.indices": self._indices.cpu()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take up an earlier :meth:`state` without a new search."""
        if "match.indices" in state:
            self.pool.draw = int(state["match.draw"])
            self._keep(self.pool.draw, state["match.indices"].to(self.data.device))

    def _keep(self, draw: int, indices: Tensor) -> None:
        self._draw, self._indices, self._latents = draw, indices, self.pool.rows(indices)

    def _new_search(self, data: Tensor) -> ImleSearch:
        return ImleSearch(data.flatten(1), reject_below=self.options.reject_below)

    def _nearest(self, search: ImleSearch, f: nn.Module) -> Tensor:
        for start in range(0, self.options.pool_size, self.options.pool_chunk):
            stop = min(start + self.options.pool_chunk, self.options.pool_size)
            search.update(sample_in_evaluation(f, self.pool.chunk(start, stop)).flatten(1))
        return search.neighbours().indices[:, 0]
