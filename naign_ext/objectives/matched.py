"""What objectives that match data to latents have in common."""

from typing import Any

import torch
from torch import Tensor, nn

from naign_ext.objectives.base import Objective, StepContext
from naign_ext.objectives.match_options import MatchOptions
from naign_ext.objectives.matchers import build_matcher
from naign_ext.objectives.space import MatchSpace
from naign_ext.transforms.batch import Batch


class MatchedObjective(Objective):
    """An objective whose ``matcher`` finds the latents of samples near the data, as its MatchOptions say.

    space: where near is measured, and where the feature term is.
    """

    def __init__(self, options: Any, data: Tensor, context: StepContext) -> None:
        self.space = MatchSpace.of(options, data, context.seed)
        super().__init__(self.completed(options), data, context)
        self.matcher = build_matcher(self.options, data, context, self.space)

    def completed(self, options: Any) -> Any:
        """The options with those that are not given and depend on the data."""
        return options

    def prepare(self, f: nn.Module, step: int) -> None:
        """See :meth:`Objective.prepare`."""
        self.matcher.prepare(f, step)

    def state(self) -> dict[str, Tensor]:
        """See :meth:`Objective.state`."""
        return self.matcher.state() | self.space.state()

    def load_state(self, state: dict[str, Tensor]) -> None:
        """See :meth:`Objective.load_state`; ValueError where the features are others."""
        self.space.check_state(state)
        self.matcher.load_state(state)

    def with_features(self, total: Tensor, terms: dict[str, Tensor], matched: Tensor, batch: Batch) -> Tensor:
        """The total with the feature term of the batch's matched samples, which is also entered among the terms.

        The match and this term are of one distance, so the sample that is brought nearer is the one that was nearest.
        """
        weight: float = self.options.feature_weight
        if self.space.phi is None or not weight:
            return total
        with self.timer("forward"):
            distance = self.space.feature_distance(matched, batch.rows)
        terms["imle_features"] = distance.detach()
        return total + weight * distance


def only_admissible(matched: Tensor, data: Tensor, admissible: Tensor, options: MatchOptions) -> Tensor:
    """matched, but rows without an admissible match replaced by the data: no loss, no gradient from them.

    Where the options reject nothing, all rows have one.
    """
    if options.reject_below is None:
        return matched
    shape = (-1,) + (1,) * (data.dim() - 1)
    return torch.where(admissible.view(shape), matched, data)
