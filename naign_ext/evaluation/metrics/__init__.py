"""The metrics, in files by what they measure; importing this registers them."""

from naign_ext.evaluation.metrics import likelihood, ood, projection, restoration, samples

__all__ = ["likelihood", "ood", "projection", "restoration", "samples"]
