"""Training objectives by name. A new one: a file with options and class, and a line in each place below."""

from typing import Annotated

from pydantic import Field

from naign_ext.objectives.adaptive_imle import AdaptiveImle, AdaptiveImleOptions
from naign_ext.objectives.base import Corrupt, Loss, MatchOptions, Objective, Timer, Vary
from naign_ext.objectives.ign import Ign, IgnOptions
from naign_ext.objectives.imle import Imle, ImleOptions
from naign_ext.objectives.matching import Matching, MatchingOptions
from naign_ext.objectives.naign import Naign, NaignOptions
from naign_ext.objectives.rs_imle import RsImle, RsImleOptions
from naign_ext.options import Options

OBJECTIVES: dict[str, type[Objective]] = {
    "naign": Naign,
    "ign": Ign,
    "imle": Imle,
    "adaptive-imle": AdaptiveImle,
    "rs-imle": RsImle,
    "matching": Matching,
}

ObjectiveOptions = Annotated[
    NaignOptions | IgnOptions | ImleOptions | AdaptiveImleOptions | RsImleOptions | MatchingOptions,
    Field(discriminator="name"),
]

__all__ = [
    "OBJECTIVES",
    "AdaptiveImle",
    "AdaptiveImleOptions",
    "Corrupt",
    "Ign",
    "IgnOptions",
    "Imle",
    "ImleOptions",
    "Loss",
    "MatchOptions",
    "Matching",
    "MatchingOptions",
    "Naign",
    "NaignOptions",
    "Objective",
    "ObjectiveOptions",
    "Options",
    "RsImle",
    "RsImleOptions",
    "Timer",
    "Vary",
]
