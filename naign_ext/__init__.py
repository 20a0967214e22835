"""naign: networks that are their own projector, trained with exact nearest-neighbour search.

The light half is here: the operators and the streaming search need torch and numpy only.
Data sets, training, metrics and :class:`Projector` live in their own modules and are imported on use.
"""

from typing import TYPE_CHECKING, Any

from naign_ext.ops import FusedLoss, FusedTerms, Neighbours, fused_loss, imle_knn
from naign_ext.search import ImleSearch

if TYPE_CHECKING:
    from naign_ext.projector import Projector

__version__ = "0.1.0"

__all__ = [
    "FusedLoss",
    "FusedTerms",
    "ImleSearch",
    "Neighbours",
    "Projector",
    "__version__",
    "fused_loss",
    "imle_knn",
]


def __getattr__(name: str) -> Any:
    if name == "Projector":
        from naign_ext.projector import Projector

        return Projector
    raise AttributeError(f"module 'naign_ext' has no attribute {name!r}")
