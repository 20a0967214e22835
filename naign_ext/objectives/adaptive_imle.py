"""Adaptive IMLE (Aghabozorgi, Peng and Li, ICML 2023): a threshold for every data point."""

from typing import ClassVar, Literal

from naign_ext.objectives.base import OBJECTIVES
from naign_ext.objectives.imle import Imle, ImleOptions
from naign_ext.options import MOST_STEPS, option


class AdaptiveImleOptions(ImleOptions):
    """Options of plain IMLE with another default match.

    adaptive_decay .04, adaptive_patience 7 and adaptive_limit 30 are the defaults of the authors' code, whose
    matches are an epoch apart and whose distance is partly LPIPS; here it is the squared Euclidean one, of
    pixels or of ``features``.
    """

    not_from_preset: ClassVar[tuple[str, ...]] = ("match", "resample_every")

    name: Literal["adaptive-imle"] = option("adaptive-imle", "Objective.", "Objective")  # type: ignore[assignment]
    match: Literal["adaptive"] = option("adaptive", "How rows are matched.", "Latent pool")
    resample_every: int = option(10, "Steps between matches.", "Latent pool", ge=1, le=MOST_STEPS)


@OBJECTIVES.register("adaptive-imle")
class AdaptiveImle(Imle):
    """The IMLE loss under the match of :class:`naign_ext.objectives.matchers.AdaptiveMatcher`."""

    Options = AdaptiveImleOptions
