"""What objectives that match data to latents have in common."""

from typing import Any

import torch
from torch import Tensor, nn

from naign_ext.objectives.base import Objective, StepContext
from naign_ext.objectives.match_options import MatchOptions
from naign_ext.objectives.matchers import build_matcher


class MatchedObjective(Objective):
    """An objective whose ``matcher`` finds the latents of samples near the data, as its MatchOptions say."""

    def __init__(self, options: Any, data: Tensor, context: StepContext) -> None:
        super().__init__(options, data, context)
        self.matcher = build_matcher(options, data, context)

    def prepare(self, f: nn.Module, step: int) -> None:
        """See :meth:`Objective.prepare`."""
        self.matcher.prepare(f, step)

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
