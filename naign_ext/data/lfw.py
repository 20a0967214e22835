"""LFW-100: faces that ship inside scikit-image."""

import importlib.util
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch

from naign_ext.data.dataset import HELDOUT_FRACTION, Dataset, DataUnavailableError, split_indices
from naign_ext.data.image_arrays import image_dataset, need_package, to_network_scale
from naign_ext.data.presets import Presets
from naign_ext.data.registry import dataset
from naign_ext.seeds import data_generator
from naign_ext.untrusted import read_regular_file

LICENCE = "Labeled Faces in the Wild: for research; crops as distributed with scikit-image (BSD-3-Clause)"
# The match covers the 160 images themselves, so that each is generated; shifts and corruptions in the
# reconstruction terms alone make f keep and restore faces it has not seen. Latents are twice as wide as the widest
# noise that f is to take away, so that it can tell the two apart.
PRESETS: Presets = {
    "default": {
        "steps": 2200,
        "batch_size": 96,
        "model": {
            "architecture": "hybrid",
            "widths": [512, 512, 512],
            "activation": "silu",
            "normalisation": "batch",
        },
        "optimiser": {"lr": 1e-3},
        "augment": {"flip": True, "jitter": 1},
        "objective": {
            "match": "dataset",
            "pool_size": 1440,
            "resample_every": 10,
            "latent_scale": 2.0,
            "denoise_weight": 1.0,
            "denoise_sigma": 1.0,
            "restore_weight": 1.0,
            "foreign_weight": 0.06,
        },
    },
    "quick": {"steps": 500},
    "paper": {"objective": {"latent_scale": 1.0}},
}
_FACES = 100
_SHAPE = (200, 25, 25)
_LARGEST_FILE = 4 << 20


@dataset(
    "lfw100",
    kind="image",
    sample_shape=(1, 25, 25),
    rows=(80, 20),
    source="ships with scikit-image",
    ood="100 images that are not faces",
    licence=LICENCE,
    presets=PRESETS,
)
def load_lfw100(
    *, seed: int = 0, image_size: int | None = None, heldout_fraction: float | None = None
) -> Dataset:
    """scikit-image's lfw_subset, (1, 25, 25): 80 faces to train on, 20 held out; 100 non-faces as ood."""
    fraction = HELDOUT_FRACTION if heldout_fraction is None else heldout_fraction
    images = to_network_scale(_read_faces(_find_file()), 1)
    return image_dataset(
        "lfw100",
        images,
        split_indices(_FACES, fraction, data_generator(seed, "lfw100", "split")),
        outside=(torch.arange(_FACES, len(images)), "the subset's 100 images that are not faces"),
        heldout_fraction=fraction,
        image_size=image_size,
        seed=seed,
        source="scikit-image data/lfw_subset.npy",
        licence=LICENCE,
    )


def _read_faces(file: Path) -> "np.ndarray[Any, Any]":
    """(200, 25, 25) in [0, 1]: 100 faces, then 100 images that are none."""
    try:
        content = read_regular_file(file, _LARGEST_FILE)
        images: np.ndarray[Any, Any] = np.load(io.BytesIO(content), allow_pickle=False)
        sound = images.shape == _SHAPE and images.dtype.kind == "f" and ((images >= 0) & (images <= 1)).all()
    # The parser of headers meets damage with nearly every exception there is.
    except Exception:
        sound = False
    if not sound:
        raise DataUnavailableError(
            f"dataset 'lfw100': {file} is damaged: expected numbers in [0, 1] of shape {_SHAPE}; install "
            "scikit-image anew"
        )
    checked: np.ndarray = images
    return checked


def _find_file() -> Path:
    need_package("skimage", "lfw100", "scikit-image")
    spec = importlib.util.find_spec("skimage")
    origin = Path(spec.origin if spec is not None and spec.origin else "")
    # The file is read directly: skimage.data.lfw_subset() may go through its downloader.
    file = origin.parent / "data" / "lfw_subset.npy"
    if not file.is_file():
        raise DataUnavailableError(
            f"dataset 'lfw100': {file.name} is missing from the installed scikit-image; "
            "install a release that ships it: pip install 'scikit-image>=0.24'"
        )
    return file
