"""Training objectives by name. A new one: a file with its options and its class, and its import below."""

from naign_ext.objectives.base import OBJECTIVES, Loss, Objective, ObjectiveOptions, StepContext
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
    "Objective",
    "ObjectiveOptions",
    "RsImle",
    "RsImleOptions",
    "StepContext",
]
