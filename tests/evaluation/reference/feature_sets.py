"""Fixed sets of features that our metrics and other implementations' are computed on, equal on every machine."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage
from sklearn.datasets import load_digits


@dataclass(frozen=True)
class FeatureSet:
    """train (N, D), heldout (H, D) and samples (M, D), float32."""

    train: np.ndarray
    heldout: np.ndarray
    samples: np.ndarray


def feature_sets() -> dict[str, FeatureSet]:
    """gaussian: other mean and scale; digits: pixels, some constant; faces: fewer rows than dimensions."""
    # numpy promises that RandomState's streams never change.
    random = np.random.RandomState(0)
    scales = np.linspace(0.5, 3, 16)
    gaussian = FeatureSet(
        (random.standard_normal((1000, 16)) * scales).astype(np.float32),
        (random.standard_normal((500, 16)) * scales).astype(np.float32),
        (random.standard_normal((800, 16)) * scales * 1.3 + 0.2).astype(np.float32),
    )
    digits = load_digits().images.reshape(-1, 64) / 8 - 1
    subset = Path(skimage.__file__).parent / "data" / "lfw_subset.npy"
    faces = np.load(subset)[:100].reshape(100, -1) * 2 - 1
    return {
        "gaussian": gaussian,
        "digits": _mixed(digits[:1200], digits[1200:], 900, 0.1, random),
        "faces": _mixed(faces[:80], faces[80:], 300, 0.05, random),
    }


def _mixed(train, heldout, count: int, noise: float, random) -> FeatureSet:
    """Samples are means of two training rows, with noise."""
    pairs = random.randint(0, len(train), (2, count))
    samples = train[pairs].mean(0) + noise * random.standard_normal((count, train.shape[1]))
    return FeatureSet(*(rows.astype(np.float32) for rows in (train, heldout, samples)))
