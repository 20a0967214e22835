"""Plain implicit maximum likelihood estimation (Li and Malik, arXiv 1809.09087)."""

from typing import ClassVar, Literal

from torch import nn

from naign_ext.objectives.base import OBJECTIVES, Loss, ObjectiveOptions, non_identity
from naign_ext.objectives.match_options import MatchOptions
from naign_ext.objectives.matched import MatchedObjective, only_admissible
from naign_ext.ops import fused_loss
from naign_ext.options import option
from naign_ext.transforms.batch import Batch


class ImleOptions(MatchOptions, ObjectiveOptions):
    """Options of plain IMLE: those of the match alone."""

    name: Literal["imle"] = option("imle", "Objective.", "Objective")


@OBJECTIVES.register("imle")
class Imle(MatchedObjective):
    """mean_i |x_i - f(z_j*(i))|^2, j*(i) = argmin_j |x_i - f(z_j)|^2: every data point has a sample near it.

    Nothing asks f to keep data fixed, so f is a generator and not a projector: the baseline that shows what
    the reconstruction term of :class:`~naign_ext.objectives.naign.Naign` adds. With features phi the match is
    argmin_j |phi(x_i) - phi(f(z_j))|^2, and feature_weight times the mean of that distance is added.
    """

    Options: ClassVar[type[ImleOptions]] = ImleOptions

    def loss(self, f: nn.Module, batch: Batch, step: int) -> Loss:
        """See :meth:`Objective.loss`; terms: imle, and imle_features where there are features."""
        del step
        latents, admissible = self.matcher.latents(f, batch)
        with self.timer("forward"):
            samples = f(latents).float()
        matched = only_admissible(samples, batch.x, admissible, self.options)
        found = fused_loss([(matched, batch.x, 1.0)], norm=self.options.norm)
        terms = {"imle": found.terms[0]}
        total = self.with_features(found.total, terms, matched, batch)
        return Loss(total, terms, lambda: {"non_identity": non_identity(matched, latents)})
