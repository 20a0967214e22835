"""The memory that a training takes at the least, from its configuration alone, before any of it is taken."""

import logging
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from naign_ext.config import TrainConfig
from naign_ext.memory import NotEnoughMemoryError, available_bytes, bytes_per_row, in_units
from naign_ext.models import build_model

log = logging.getLogger("naign_ext.training")

_FLOAT = 4
_COPIES_IN_TRAINING = 5
"""Of the weights: themselves, their average, gradients, and two moments of the optimiser."""
_COPIES_IN_SAVING = 2
"""Of the weights' bytes: the optimiser's moments as the contents of a file, beside those that are kept."""
_KEPT_MATCHES = ("dataset", "adaptive")
_MANY_WEIGHTS = 100_000_000
_ADVICE = {
    "weights": "take smaller networks (the fields model.*, image_size)",
    "batch": "take a smaller batch_size",
    "data": "take fewer copies (augment.shift, augment.flip) or a smaller image_size",
    "pool": "take a smaller objective.pool_chunk, or leave it out",
}


@dataclass(frozen=True)
class Footprint:
    """Bytes that a training takes at the least, by what they are for.

    weights: with gradients, average, optimiser and what a checkpoint is written from. batch: activations of one
    update. data: copies of the training rows, beside those that are loaded. pool: a chunk of it. parameters: of f.
    """

    weights: int
    batch: int
    data: int
    pool: int
    parameters: int

    @property
    def parts(self) -> dict[str, int]:
        """Bytes by the names of _ADVICE."""
        return {"weights": self.weights, "batch": self.batch, "data": self.data, "pool": self.pool}

    @property
    def total(self) -> int:
        """All of it, held at one time; a pool's chunk is given back before the batch's activations are there."""
        return self.weights + self.data + max(self.batch, self.pool)


def footprint(
    config: TrainConfig, train: Tensor, device: torch.device, precision: str, shards: int
) -> Footprint:
    """Of training on the rows train (N, *shape); shards: the processes that share a batch. Nothing is allocated."""
    rows, sample_shape = len(train), tuple(train.shape[1:])
    point = _FLOAT * math.prod(sample_shape)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        f = build_model(config.model.architecture, sample_shape, **config.model.build_options())
    parameters = sum(p.numel() for p in f.parameters())
    held = _COPIES_IN_TRAINING + (_COPIES_IN_SAVING if device.type == "cpu" else 0)
    objective = config.objective
    copies = _copies(config, sample_shape)
    # What is loaded serves where nothing is added to it and it need not move.
    data = point * rows * (copies if copies > 1 or device.type != "cpu" else 0)
    if getattr(objective, "match", None) in _KEPT_MATCHES:
        data += point * rows * copies
    chunk = min(getattr(objective, "pool_chunk", None) or 0, getattr(objective, "pool_size", 0))
    size = _FLOAT if precision == "fp32" else _FLOAT // 2
    in_batch = -(-config.batch_size // shards) * _inputs(config) + _projected(config) // shards
    return Footprint(
        weights=_FLOAT * parameters * held,
        batch=in_batch * _activations(f, sample_shape) * size // _FLOAT,
        data=data,
        pool=2 * point * chunk,
        parameters=parameters,
    )


def check_memory(
    config: TrainConfig, train: Tensor, device: torch.device, precision: str, shards: int
) -> None:
    """Refuse a training that cannot fit into the device's free memory, and warn of one that takes most of it.

    Arguments as for :func:`footprint`.

    Raises:
        NotEnoughMemoryError: it takes more than is free.
    """
    needed = footprint(config, train, device, precision, shards)
    free = available_bytes(device)
    parts = ", ".join(f"{in_units(size)} for {part}" for part, size in needed.parts.items() if size)
    described = (
        f"memory: training {config.model.architecture} with {needed.parameters:,} parameters takes at least "
        f"{in_units(needed.total)} ({parts}); {in_units(free)} are free on {device}"
    )
    if needed.total > free:
        largest = max(needed.parts, key=lambda part: needed.parts[part])
        raise NotEnoughMemoryError(f"{described}; {_ADVICE[largest]}")
    is_of_images = config.model.architecture == "mlp" and train.dim() == 4
    if is_of_images and needed.parameters >= _MANY_WEIGHTS:
        log.warning("%s; model.architecture=conv has far fewer weights for images of this size", described)
    elif needed.total > free // 2:
        log.warning("%s", described)


def _copies(config: TrainConfig, sample_shape: tuple[int, ...]) -> int:
    """How many images :func:`naign_ext.training.batches.with_copies` makes of each."""
    if len(sample_shape) != 3:
        return 1
    return (1 + config.augment.flip) * (2 * config.augment.shift + 1) ** 2


def _projected(config: TrainConfig) -> int:
    """Samples that an update's projection term takes."""
    wanted = getattr(config.objective, "projection_weight", 0)
    return int(getattr(config.objective, "projected", 0)) if wanted else 0


def _inputs(config: TrainConfig) -> int:
    """Inputs of f in an update for each row of the batch, at the least."""
    terms = ("reconstruction_weight", "denoise_weight", "restore_weight")
    return 1 + sum(bool(getattr(config.objective, term, 0)) for term in terms)


def _activations(f: nn.Module, sample_shape: tuple[int, ...]) -> int:
    """Bytes in float32 that a row leaves behind for the backward pass; 0 for a network that has to see values."""
    try:
        # Each layer's output is the next one's input, so that both are counted twice.
        return bytes_per_row(f, sample_shape, "meta") // 2
    except (RuntimeError, NotImplementedError):
        return 0
