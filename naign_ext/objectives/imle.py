"""Plain implicit maximum likelihood estimation (Li and Malik, arXiv 1809.09087)."""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from naign_ext.distributed.sharding import WHOLE, Shard
from naign_ext.objectives.base import Corrupt, Loss, MatchOptions, Objective, Vary
from naign_ext.objectives.matchers import build_matcher
from naign_ext.ops import fused_loss
from naign_ext.options import option


class ImleOptions(MatchOptions):
    """Options of plain IMLE: those of the match alone."""

    name: Literal["imle"] = option("imle", "Objective.", "Objective")


class Imle(Objective):
    """mean_i |x_i - f(z_j*(i))|^2, j*(i) = argmin_j |x_i - f(z_j)|^2: every data point has a sample near it.

    Nothing asks f to keep data fixed, so f is a generator and not a projector: the baseline that shows what
    the reconstruction term of :class:`~naign_ext.objectives.naign.Naign` adds.
    """

    Options: ClassVar[type[ImleOptions]] = ImleOptions

    def __init__(
        self,
        options: ImleOptions,
        data: Tensor,
        *,
        seed: int,
        corrupt: Corrupt | None = None,
        vary: Vary | None = None,
        shard: Shard = WHOLE,
    ) -> None:
        super().__init__(options, data, seed=seed, corrupt=corrupt, vary=vary, shard=shard)
        self.matcher = build_matcher(options, data, seed, self.timer, shard)

    def prepare(self, f: nn.Module, step: int) -> None:
        """See :meth:`Objective.prepare`."""
        self.matcher.prepare(f, step)

    def loss(self, f: nn.Module, rows: Tensor, step: int) -> Loss:
        """See :meth:`Objective.loss`; terms: imle."""
        del step
        x = self.data.index_select(0, self.shard.take(rows))
        latents, admissible = self.matcher.latents(f, rows)
        with self.timer("forward"):
            samples = f(latents).float()
        matched = only_admissible(samples, x, admissible, self.options)
        term = fused_loss(x, matched, norm=self.options.norm).total
        return Loss(term, {"imle": term.detach()}, lambda: {"non_identity": non_identity(matched, latents)})

    def state(self) -> dict[str, Tensor]:
        """See :meth:`Objective.state`."""
        return self.matcher.state()

    def load_state(self, state: dict[str, Tensor]) -> None:
        """See :meth:`Objective.load_state`."""
        self.matcher.load_state(state)


def only_admissible(matched: Tensor, data: Tensor, admissible: Tensor, options: MatchOptions) -> Tensor:
    """matched, but rows without an admissible match replaced by the data: no loss, no gradient from them.

    Where the options reject nothing, all rows have one.
    """
    if options.reject_below is None:
        return matched
    shape = (-1,) + (1,) * (data.dim() - 1)
    return torch.where(admissible.view(shape), matched, data)


def non_identity(samples: Tensor, latents: Tensor) -> Tensor:
    """mean |f(z) - z|^2 over all elements, detached: near 0 when f has collapsed to the identity."""
    return torch.nn.functional.mse_loss(samples.detach(), latents)
