"""Terms that teach f to undo corruptions of data, for any objective that has a reconstruction term."""

from typing import Any, Literal

import torch
from pydantic import FiniteFloat
from torch import Tensor

from naign_ext.distributed.sharding import BatchOffset, blocks
from naign_ext.ops import randn
from naign_ext.options import Options, option
from naign_ext.seeds import derive_seed, generator
from naign_ext.transforms import corrupt
from naign_ext.transforms.batch import Batch

CorruptionKind = Literal["noise", "mask", "blur", "downsample"]


class RestorationOptions(Options):
    """Options of the denoise and restore terms."""

    denoise_weight: FiniteFloat = option(0.0, "Weight of mean |f(x + noise) - x|.", "Objective", ge=0)
    denoise_sigma: FiniteFloat = option(
        0.6,
        "The noise has sigma ~ U(0, this), one for each data point, in the data's units.",
        "Objective",
        gt=0,
    )
    restore_weight: FiniteFloat = option(
        0.0, "Weight of mean |f(corrupted x) - x|: teaches f other corruptions than noise.", "Objective", ge=0
    )
    restore_kinds: tuple[CorruptionKind, ...] = option(
        ("mask", "blur", "downsample"),
        "Corruptions of the restore term, in turns within each batch.",
        "Objective",
        min_length=1,
    )


class Restoration:
    """Draws the corrupted data of both terms, a new draw at every step.

    options: RestorationOptions.
    """

    def __init__(self, options: Any, seed: int) -> None:
        self.options = options
        self.seed = seed

    @property
    def weights(self) -> dict[str, float]:
        """The weights above zero, by term."""
        weights = {"denoise": self.options.denoise_weight, "restore": self.options.restore_weight}
        return {name: weight for name, weight in weights.items() if weight}

    def inputs(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """What f is to map back to the augmented data, by term; as many rows as they have."""
        x, offset = batch.augmented, batch.offset
        made: dict[str, Tensor] = {}
        if "denoise" in self.weights:
            seed = derive_seed(self.seed, "denoise", step)
            made["denoise"] = add_noise(x, self.options.denoise_sigma, seed, offset)
        if "restore" in self.weights:
            made["restore"] = self._corrupted(x, step, offset)
        return made

    def _corrupted(self, x: Tensor, step: int, offset: BatchOffset) -> Tensor:
        kinds = self.options.restore_kinds
        result = torch.empty_like(x)
        first, total = offset
        for k, kind in enumerate(kinds):
            # Rows k, k + kinds, ... of the whole batch; of these the ones before x, those of x, and all.
            before, whole = (len(range(k, end, len(kinds))) for end in (first, total))
            mine = slice(k + before * len(kinds) - first, None, len(kinds))
            part = x[mine].clone()
            for block, some, within in blocks((before, whole), len(part)):
                seed = derive_seed(self.seed, "restore", step, k, *_unless_first(block))
                part[some] = corrupt(part[some], kind, seed=seed, offset=within)[0]
            result[mine] = part
        return result


def _unless_first(block: int) -> tuple[int, ...]:
    """What a block adds to its seed: a batch of one block has that of the batch."""
    return (block,) if block else ()


def add_noise(x: Tensor, sigma_max: float, seed: int, offset: BatchOffset | None = None) -> Tensor:
    """x (B, ...) + sigma N(0, I) with sigma ~ U(0, sigma_max) for each row; what a row gets depends on its place in
    the batch.

    offset: of x in a batch; default: x is the batch.
    """
    first, total = offset or (0, len(x))
    random = generator(seed, "sigma")
    sigma = torch.rand(total, generator=random)[first : first + len(x)].to(x.device) * sigma_max
    noise = randn(seed, first, len(x), x.shape[1:].numel(), device=x.device).view(x.shape)
    return x + sigma.view(-1, *[1] * (x.dim() - 1)) * noise
