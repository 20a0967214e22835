"""scikit-learn's handwritten digits."""

import numpy as np
import torch

from naign_ext.data import ood
from naign_ext.data.dataset import HELDOUT_FRACTION, Dataset, split_indices
from naign_ext.data.image_arrays import image_dataset, need_package, to_network_scale
from naign_ext.data.presets import Presets
from naign_ext.data.registry import dataset
from naign_ext.seeds import data_generator

LICENCE = "CC BY 4.0 (UCI, Optical Recognition of Handwritten Digits)"
PRESETS: Presets = {
    "default": {
        "steps": 4000,
        "batch_size": 128,
        "model": {
            "architecture": "hybrid",
            "widths": [256, 32, 256, 256],
            "activation": "silu",
            "normalisation": "batch",
        },
        "optimiser": {"lr": 2e-3},
        "objective": {
            "pool_size": 256,
            "latent_scale": 2.0,
            "denoise_weight": 0.5,
            "denoise_sigma": 1.0,
            "restore_weight": 0.5,
            "foreign_weight": 0.05,
        },
    },
    "quick": {"steps": 1000},
    "paper": {"objective": {"latent_scale": 1.0}},
}


@dataset(
    "digits",
    kind="image",
    sample_shape=(1, 8, 8),
    rows=(1438, 359),
    source="ships with scikit-learn",
    ood=ood.SUMMARY,
    licence=LICENCE,
    presets=PRESETS,
)
def load_digits(
    *, seed: int = 0, image_size: int | None = None, heldout_fraction: float | None = None
) -> Dataset:
    """1797 handwritten digits, (1, 8, 8), 17 grey levels; a fifth of every class held out."""
    need_package("sklearn", "digits", "scikit-learn")
    from sklearn import datasets

    data = datasets.load_digits()
    labels = torch.from_numpy(data.target.astype(np.int64))
    fraction = HELDOUT_FRACTION if heldout_fraction is None else heldout_fraction
    return image_dataset(
        "digits",
        to_network_scale(data.images, 16),
        split_indices(len(labels), fraction, data_generator(seed, "digits", "split"), labels),
        labels=labels,
        heldout_fraction=fraction,
        image_size=image_size,
        seed=seed,
        source="scikit-learn load_digits",
        licence=LICENCE,
    )
