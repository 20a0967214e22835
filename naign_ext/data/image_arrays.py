"""Image sets that fit in memory as one array: what those that ship inside packages, and MNIST, have in common."""

import importlib.util
from typing import Any

import numpy as np
import torch
from torch import Tensor

from naign_ext.data import ood
from naign_ext.data.dataset import Dataset, DataUnavailableError, tensor_sha256
from naign_ext.data.resize import resize


def to_network_scale(images: np.ndarray[Any, Any], top: float) -> Tensor:
    """(N, H, W) in [0, top] to float32 (N, 1, H, W) in [-1, 1]."""
    scaled = torch.from_numpy(np.asarray(images, dtype=np.float64)) * (2 / top) - 1
    return scaled.to(torch.float32).unsqueeze(1)


def need_package(package: str, dataset: str, install: str) -> None:
    """DataUnavailableError unless the package can be imported that a data set ships in; install: what pip calls it."""
    if importlib.util.find_spec(package) is None:
        raise DataUnavailableError(
            f"dataset {dataset!r}: its images ship inside the package {install}, which is not installed; "
            f"install it with: pip install {install}"
        )


def image_dataset(
    name: str,
    images: Tensor,
    split: tuple[Tensor, Tensor],
    *,
    labels: Tensor | None = None,
    outside: tuple[Tensor, str] | None = None,
    heldout_fraction: float,
    image_size: int | None,
    seed: int,
    source: str,
    licence: str,
) -> Dataset:
    """The data set of images (N, C, H, W), resized.

    split: rows (training, held-out). labels: int64 (N,). outside: rows that are not of the distribution, and what
    they are; None rearranges the held-out images. heldout_fraction: recorded.
    """
    train, heldout = split
    digest = tensor_sha256(images)
    images = resize(images, image_size)
    outside_images = ood.rearranged(images[heldout], seed) if outside is None else images[outside[0]]
    return Dataset(
        name=name,
        kind="image",
        train=images[train],
        heldout=images[heldout],
        ood=outside_images,
        train_labels=None if labels is None else labels[train],
        heldout_labels=None if labels is None else labels[heldout],
        parameters={
            "source": source,
            "sha256": digest,
            "image_size": images.shape[-1],
            "heldout_fraction": heldout_fraction,
            "seed": seed,
            "ood": ood.DESCRIPTION if outside is None else outside[1],
        },
        licence=licence,
    )
