"""Latent pools that are regenerated from their seed instead of stored."""

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

BLOCK = 64
"""Rows that share one generator. Part of the definition of a pool: another value gives other latents."""


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2^63) for the given parts, the same on every machine and in every process.

    Streams with different names or steps are independent, so any moment of a run can be repeated from
    ``(seed, name, step)`` alone::

        derive_seed(config.seed, "noise", step)
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded by :func:`derive_seed`."""
    return torch.Generator().manual_seed(derive_seed(*parts))


class LatentPool:
    """An endless pool of latents z ~ N(0, scale^2 I), one per row, drawn anew whenever ``draw`` changes.

    Nothing is stored. Rows come in blocks of :data:`BLOCK`, each with a generator seeded by (seed, draw,
    block), so a row depends on its index and the draw alone: any chunking, and any selection of rows, gives
    the same bits. Latents are generated on the CPU, the same for every device, and then moved.

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
        result = torch.empty(stop - start, *self.shape)
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            first, last = max(start, block * BLOCK), min(stop, (block + 1) * BLOCK)
            rows = self._block(block)[first - block * BLOCK : last - block * BLOCK]
            result[first - start : last - start] = rows
        return result.to(self.device)

    def rows(self, indices: Tensor) -> Tensor:
        """Chosen rows of the current draw, float32 (n, *shape), for indices int64 (n,), repeats allowed.

        A negative index (the search's "no admissible neighbour") gives a row of zeros.
        """
        if indices.dim() != 1 or indices.dtype != torch.int64:
            raise TypeError(f"indices: expected int64 (n,), got {indices.dtype} {tuple(indices.shape)}")
        wanted = indices.cpu()
        result = torch.zeros(len(wanted), *self.shape)
        order = wanted.argsort(stable=True)
        order = order[int((wanted < 0).sum()) :]
        blocks, counts = torch.unique_consecutive(wanted[order] // BLOCK, return_counts=True)
        for block, places in zip(blocks.tolist(), torch.split(order, counts.tolist()), strict=True):
            result[places] = self._block(block)[wanted[places] - block * BLOCK]
        return result.to(self.device)

    def _block(self, block: int) -> Tensor:
        seeded = generator(self.seed, "latents", self.draw, block)
        return torch.randn(BLOCK, *self.shape, generator=seeded).mul_(self.scale)
