"""Image sets read from files: what folders and FFHQ-100 have in common."""

import hashlib
from typing import Any

from naign_ext.data import ood
from naign_ext.data.dataset import HASH_OF_CONTENT, HELDOUT_FRACTION, Dataset, split_indices
from naign_ext.data.images import LoadedImages
from naign_ext.data.presets import PHOTOS, Presets
from naign_ext.data.skipped import count_reasons, printable
from naign_ext.seeds import data_generator

DEFAULT_SIZE = 64
PRESETS: Presets = {
    "default": {**PHOTOS["default"], "image_size": DEFAULT_SIZE},
    "quick": {**PHOTOS["quick"], "image_size": 32},
    "paper": PHOTOS["paper"],
}
_MAX_LISTED_HASHES = 1000


def _provenance(loaded: LoadedImages) -> dict[str, Any]:
    digest = hashlib.sha256("".join(loaded.sha256[name] for name in loaded.names).encode()).hexdigest()
    result: dict[str, Any] = {
        "files": len(loaded.names),
        HASH_OF_CONTENT: digest,
        "damaged": [printable(name) for name, _ in loaded.damaged],
    }
    if loaded.left_out:
        result["left_out"] = count_reasons(loaded.left_out)
    if len(loaded.names) <= _MAX_LISTED_HASHES:
        result["sha256"] = {printable(name): digest for name, digest in loaded.sha256.items()}
    return result


def images_dataset(
    name: str,
    loaded: LoadedImages,
    *,
    seed: int,
    heldout_fraction: float | None,
    licence: str | None,
    parameters: dict[str, Any],
) -> Dataset:
    """The data set of images read from files; parameters: where they come from, recorded with their hashes."""
    fraction = HELDOUT_FRACTION if heldout_fraction is None else heldout_fraction
    train, heldout = split_indices(len(loaded.names), fraction, data_generator(seed, "images", "split"))
    images = loaded.images
    return Dataset(
        name=printable(name),
        kind="image",
        train=images[train],
        heldout=images[heldout],
        ood=ood.rearranged(images[heldout], seed),
        parameters={
            **parameters,
            "image_size": images.shape[-1],
            "channels": images.shape[1],
            "crop": "resized by the shorter side (Lanczos), centre-cropped",
            "heldout_fraction": fraction,
            "seed": seed,
            "ood": ood.DESCRIPTION,
            **_provenance(loaded),
        },
        licence=licence,
    )
