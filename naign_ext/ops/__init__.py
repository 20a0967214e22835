"""Public operators: exact nearest-neighbour search, the fused loss, and counter-based normal numbers."""

from naign_ext.ops.fused_loss import FusedLoss, FusedTerms, fused_loss
from naign_ext.ops.imle_knn import Neighbours, imle_knn
from naign_ext.ops.randn import randn, randn_rows

__all__ = ["FusedLoss", "FusedTerms", "Neighbours", "fused_loss", "imle_knn", "randn", "randn_rows"]
