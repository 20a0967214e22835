"""Training: configuration, loop, checkpoints.

Modules are imported by name (``from naign_ext.training.trainer import train``), so that reading a
configuration does not load data sets or models.
"""
