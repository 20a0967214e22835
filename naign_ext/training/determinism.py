"""Updates that can be repeated bit for bit, without a trace in torch's global state."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# Its one attribute is made at run time.
_FILLING: Any = torch.utils.deterministic


@contextmanager
def reproducible(*, deterministic: bool) -> Iterator[None]:
    """Random state is put back at the end. deterministic: with algorithms on CUDA that are; the CPU's are always."""
    cuda = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=cuda), _deterministic(deterministic and torch.cuda.is_available()):
        yield


@contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        _FILLING.fill_uninitialized_memory,
    )
    if wanted:
        # cuBLAS reads it once, at its first product: a workspace of fixed size for each stream.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Nothing here reads memory that it has not written; filling it would cost a pass over each new tensor.
        _FILLING.fill_uninitialized_memory = False
    try:
        yield
    finally:
        enabled, warn_only, fill = before
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        _FILLING.fill_uninitialized_memory = fill
