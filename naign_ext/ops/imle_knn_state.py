"""What a streaming search keeps between the chunks of a pool: the extension's handle, or the same in plain torch."""

from typing import Protocol

import torch
from torch import Tensor

from naign_ext import _native
from naign_ext.ops import reference
from naign_ext.ops.imle_knn import has_kernel


class SearchState(Protocol):
    """The running k nearest of data (N, D) in the pool rows seen since the last reset, and how many these are."""

    count: int

    def reset(self) -> None:
        """Forget the pool, keep what was prepared for the data."""

    def update(self, pool: Tensor, offset: int) -> None:
        """Take in pool (m, D), m >= 0, whose rows are numbered from offset."""

    def result(self) -> tuple[Tensor, Tensor]:
        """Distances and indices (N, k) as imle_knn returns them."""

    def running(self) -> tuple[Tensor, Tensor]:
        """Squared distances (N, k), float64, ascending, +inf where absent; indices (N, k), int64, -1 where absent."""

    def set_running(self, distances: Tensor, indices: Tensor, count: int) -> None:
        """Go on from these neighbours, found among count pool rows."""


class NativeState:
    """Kept by the extension: running neighbours, and what it prepares for the data.

    The handle is a tensor on the CPU whatever the device. It is good for its data only, and a copy of it for nothing.
    """

    def __init__(self, data: Tensor, k: int, reject_below: float | None) -> None:
        self.count = 0
        self._data = data
        self._reject_below = reject_below
        self._handle: Tensor = torch.ops.naign.imle_knn_prepare(data, k, reject_below)

    def reset(self) -> None:
        torch.ops.naign.imle_knn_reset(self._handle, self._data)
        self.count = 0

    def update(self, pool: Tensor, offset: int) -> None:
        if _native.has_kernel(pool):
            torch.ops.naign.imle_knn_update(self._handle, self._data, pool, offset)
            self.count += len(pool)
        else:
            found = reference.update(
                self._data, pool, *self.running(), offset=offset, reject_below=self._reject_below
            )
            self.set_running(*found, self.count + len(pool))

    def result(self) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = torch.ops.naign.imle_knn_result(self._handle, self._data)
        return found

    def running(self) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = torch.ops.naign.imle_knn_running(self._handle, self._data)
        return found

    def set_running(self, distances: Tensor, indices: Tensor, count: int) -> None:
        torch.ops.naign.imle_knn_set_running(self._handle, self._data, distances, indices, count)
        self.count = count


class ReferenceState:
    """Kept in plain torch: where the extension is missing, or has no kernel for the data."""

    def __init__(self, data: Tensor, k: int, reject_below: float | None) -> None:
        self._data = data
        self._k = k
        self._reject_below = reject_below
        self.reset()

    def reset(self) -> None:
        self.count = 0
        self._running = reference.empty_neighbours(len(self._data), self._k, self._data.device)

    def update(self, pool: Tensor, offset: int) -> None:
        self._running = reference.update(
            self._data, pool, *self._running, offset=offset, reject_below=self._reject_below
        )
        self.count += len(pool)

    def result(self) -> tuple[Tensor, Tensor]:
        return reference.finish(self._data, *self._running)

    def running(self) -> tuple[Tensor, Tensor]:
        return self._running

    def set_running(self, distances: Tensor, indices: Tensor, count: int) -> None:
        self._running, self.count = (distances, indices), count


def prepare(data: Tensor, k: int, reject_below: float | None) -> SearchState:
    """The state of a search for the k nearest of data (N, D) that has seen no pool yet."""
    state = NativeState if has_kernel(data, data, k) else ReferenceState
    return state(data, k, reject_below)
