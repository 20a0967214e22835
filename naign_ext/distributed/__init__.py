"""Processes that share a run: joining them, and the shard of the work that each does."""
