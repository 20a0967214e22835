"""Training objectives by name. A new one: a file with its options and its class, and its import below."""

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from naign_ext.objectives.base import OBJECTIVES, Loss, NamedOptions, Objective, StepContext
from naign_ext.objectives.match_options import MatchOptions

# In the order in which help texts name them.
# isort: off
from naign_ext.objectives.naign import Naign, NaignOptions
from naign_ext.objectives.ign import Ign, IgnOptions
from naign_ext.objectives.imle import Imle, ImleOptions
from naign_ext.objectives.adaptive_imle import AdaptiveImle, AdaptiveImleOptions
from naign_ext.objectives.rs_imle import RsImle, RsImleOptions
from naign_ext.objectives.matching import Matching, MatchingOptions
# isort: on

if TYPE_CHECKING:
    ObjectiveOptions = NamedOptions
else:
    ObjectiveOptions = Annotated[
        reduce(or_, (kind.Options for kind in OBJECTIVES.values())), Field(discriminator="name")
    ]

__all__ = [
    "OBJECTIVES",
    "AdaptiveImle",
    "AdaptiveImleOptions",
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
    "NamedOptions",
    "Objective",
    "ObjectiveOptions",
    "RsImle",
    "RsImleOptions",
    "StepContext",
]
