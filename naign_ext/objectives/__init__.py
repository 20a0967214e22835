"""Training objectives by name. A new one: a file with options and class, and a line in each place below."""

from typing import Annotated

from pydantic import Field

from naign_ext.objectives.base import Corrupt, Loss, MatchOptions, Objective, Options, Vary
from naign_ext.objectives.imle import Imle, ImleOptions
from naign_ext.objectives.naign import Naign, NaignOptions

OBJECTIVES: dict[str, type[Objective]] = {"naign": Naign, "imle": Imle}

ObjectiveOptions = Annotated[NaignOptions | ImleOptions, Field(discriminator="name")]

__all__ = [
    "OBJECTIVES",
    "Corrupt",
    "Imle",
    "ImleOptions",
    "Loss",
    "MatchOptions",
    "Naign",
    "NaignOptions",
    "Objective",
    "ObjectiveOptions",
    "Options",
    "Vary",
]
