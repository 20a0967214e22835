"""Processes that share a run: joining them, and the part of the work that each does."""
