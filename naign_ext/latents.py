"""Latent pools that are regenerated from their seed instead of stored."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from naign_ext.ops import randn, randn_rows
from naign_ext.seeds import derive_seed


def spherical_steps(first: Tensor, second: Tensor, count: int) -> Tensor:
    """Latents (count, *shape) from first to second, both (*shape), on the great circle through them: each is as likely
    a draw as the two ends, where the straight line passes through latents that are too short (Shoemake 1985).

    Latents in one direction, or opposite ones, are joined by a straight line.
    """
    if first.shape != second.shape:
        raise ValueError(
            f"second: expected the shape of first, {tuple(first.shape)}, got {tuple(second.shape)}"
        )
    if count < 2:
        raise ValueError(f"count: expected 2 or more, got {count}")
    part = torch.linspace(0, 1, count, dtype=torch.float64, device=first.device)
    a, b = first.double().flatten(), second.double().flatten()
    angle = torch.acos((a @ b / (a.norm() * b.norm()).clamp(min=1e-300)).clamp(-1, 1))
    if float(angle.sin()) < 1e-6:
        weights = 1 - part, part
    else:
        weights = ((1 - part) * angle).sin() / angle.sin(), (part * angle).sin() / angle.sin()
    steps = weights[0][:, None] * a + weights[1][:, None] * b
    return steps.to(first.dtype).view(count, *first.shape)


class LatentPool:
    """An endless pool of latents z ~ N(0, scale^2 I), one per row, drawn anew whenever ``draw`` changes.

    Nothing is stored. A row is a pure function of its index, the seed and the draw (:func:`naign_ext.ops.randn` with
    ``derive_seed(seed, "latents", draw)``, times scale): any chunking, any selection of rows and any device give the
    same bits. Latents are made on the pool's device, and the host does not wait for it.

    shape: shape of one latent, for example ``(2,)`` or ``(1, 25, 25)``.
    scale: standard deviation, > 0.
    seed: any integer.
    """

    def __init__(
        self, shape: Sequence[int], scale: float, seed: int, *, device: torch.device | str = "cpu"
    ) -> None:
        if not shape or any(size < 1 for size in shape):
            raise ValueError(f"shape: expected at least one size, all >= 1, got {tuple(shape)}")
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"scale: expected a finite number > 0, got {scale}")
        self.shape = tuple(int(size) for size in shape)
        self.scale = float(scale)
        self.seed = int(seed)
        self.draw = 0
        self.device = torch.device(device)

    def chunk(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop) of the current draw, float32 (stop - start, *shape); memory O(stop - start)."""
        if not 0 <= start <= stop:
            raise ValueError(f"start, stop: expected 0 <= start <= stop, got {start}, {stop}")
        made = randn(self._key(), start, stop - start, self._size, scale=self.scale, device=self.device)
        return made.view(-1, *self.shape)

    def rows(self, indices: Tensor) -> Tensor:
        """Chosen rows of the current draw, float32 (n, *shape), for indices int64 (n,), repeats allowed.

        A negative index (the search's "no admissible neighbour") gives a row of zeros.
        """
        if indices.dim() != 1 or indices.dtype != torch.int64:
            raise TypeError(f"indices: expected int64 (n,), got {indices.dtype} {tuple(indices.shape)}")
        made = randn_rows(self._key(), indices.to(self.device), self._size, scale=self.scale)
        return made.view(-1, *self.shape)

    @property
    def _size(self) -> int:
        return math.prod(self.shape)

    def _key(self) -> int:
        return derive_seed(self.seed, "latents", self.draw)
