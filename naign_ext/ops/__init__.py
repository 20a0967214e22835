"""Public operators: exact nearest-neighbour search and the fused loss."""

from naign_ext.ops.fused_loss import FusedLoss, fused_loss
from naign_ext.ops.imle_knn import Neighbours, imle_knn

__all__ = ["FusedLoss", "Neighbours", "fused_loss", "imle_knn"]
