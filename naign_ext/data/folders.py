"""Image sets from the user's own files: ``folder:PATH`` and ``ffhq100``."""

import hashlib
import logging
from pathlib import Path, PurePosixPath
from typing import Any

from naign_ext.data import ood
from naign_ext.data.archives import DEFAULT_LIMITS, ReadLimits, Source, open_source
from naign_ext.data.dataset import Dataset, DataUnavailableError, split_indices
from naign_ext.data.images import LoadedImages, check_channels, is_image_name, load_images
from naign_ext.seeds import stream

log = logging.getLogger("naign_ext.data")

DEFAULT_SIZE = 64
DEFAULT_HELDOUT = 0.2
FFHQ_COUNT = 100
FFHQ_LICENCE = (
    "FFHQ (NVIDIA): the set CC BY-NC-SA 4.0, non-commercial; each image under the licence its photographer "
    "chose (CC BY 2.0, CC BY-NC 2.0, Public Domain Mark 1.0, CC0 1.0 or U.S. Government Works)"
)
_ARCHIVE_NAMES = ("datasets.tar", "ffhq100.tar", "ffhq100.tar.gz", "ffhq100.zip")
_MAX_LISTED_HASHES = 1000
_WAYS = (
    "Ways to get it: (1) `naign data get ffhq100` downloads the archive that the authors of Adaptive IMLE "
    "share (datasets.tar, its folder ffhq/img holds 100 images of 256 pixels); "
    "(2) `--data-root PATH` takes a folder, zip or tar of at least 100 face images of your own, ffhq/img/* "
    "inside included; (3) `--dataset lfw100` trains on 100 real faces that need no download."
)


def _listed(items: list[str], most: int = 5) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def _damage_text(damaged: list[tuple[str, str]]) -> str:
    return _listed([f"{name} ({reason})" for name, reason in damaged])


def _provenance(loaded: LoadedImages) -> dict[str, Any]:
    digest = hashlib.sha256("".join(loaded.sha256[name] for name in loaded.names).encode()).hexdigest()
    result: dict[str, Any] = {
        "files": len(loaded.names),
        "sha256_of_hashes": digest,
        "damaged": [name for name, _ in loaded.damaged],
    }
    if len(loaded.names) <= _MAX_LISTED_HASHES:
        result["sha256"] = loaded.sha256
    return result


def _build(
    name: str,
    loaded: LoadedImages,
    *,
    seed: int,
    heldout_fraction: float | None,
    licence: str | None,
    parameters: dict[str, Any],
) -> Dataset:
    fraction = DEFAULT_HELDOUT if heldout_fraction is None else heldout_fraction
    train, heldout = split_indices(len(loaded.names), fraction, stream(seed, "images", "split"))
    images = loaded.images
    return Dataset(
        name=name,
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


def load_folder(
    path: Path,
    *,
    seed: int = 0,
    image_size: int | None = None,
    heldout_fraction: float | None = None,
    channels: int | None = None,
    limits: ReadLimits = DEFAULT_LIMITS,
) -> Dataset:
    """All images below a folder, or in a zip or tar, resized and centre-cropped to a square (64 pixels).

    Damaged files are skipped and named in a warning and in ``parameters["damaged"]``.

    Raises:
        DataUnavailableError: fewer than 2 readable images, or the path or archive is unusable.
    """
    check_channels(channels)
    source = open_source(path, limits)
    names = [name for name in source.names if is_image_name(name)]
    loaded = load_images(source, names, image_size=image_size or DEFAULT_SIZE, channels=channels)
    if len(loaded.names) < 2:
        damage = f"; damaged: {_damage_text(loaded.damaged)}" if loaded.damaged else ""
        raise DataUnavailableError(
            f"{source.label}: {len(loaded.names)} readable images among {len(source.names)} files, at least "
            f"2 are needed{damage}. Pass folder:PATH with a folder, zip or tar of PNG, JPEG or WebP images"
        )
    _warn_of_damage(source, loaded)
    return _build(
        f"folder:{path.name}",
        loaded,
        seed=seed,
        heldout_fraction=heldout_fraction,
        licence=None,
        parameters={"source": source.label},
    )


def _warn_of_damage(source: Source, loaded: LoadedImages) -> None:
    if loaded.damaged:
        log.warning(
            "%s: %d damaged images skipped: %s",
            source.label,
            len(loaded.damaged),
            _damage_text(loaded.damaged),
        )


def ffhq_names(names: list[str]) -> list[str]:
    """The images under any ffhq/img folder (AdaIMLE's layout, with other sets beside it), else all."""
    images = [name for name in names if is_image_name(name)]
    inside = [name for name in images if PurePosixPath(name).parent.parts[-2:] == ("ffhq", "img")]
    return inside or images


def find_ffhq100(root: Path | None, default_root: Path) -> Path:
    """The folder or archive to read: root itself, or an archive in it when it has no images of its own.

    Raises:
        DataUnavailableError: nothing is there; the text says what was looked for and how to get it.
    """
    if root is None:
        root = default_root / "ffhq100"
        if not root.exists():
            raise DataUnavailableError(
                f"dataset 'ffhq100': no images: no --data-root was given, and {root} does not exist. {_WAYS}"
            )
    if not root.exists():
        raise DataUnavailableError(f"dataset 'ffhq100': --data-root {root} does not exist. {_WAYS}")
    if root.is_dir():
        for name in _ARCHIVE_NAMES:
            for archive in (root / name, root / "ffhq100" / name):
                if archive.is_file():
                    return archive
    return root


def read_ffhq100(
    path: Path,
    *,
    image_size: int | None = None,
    channels: int | None = None,
    limits: ReadLimits = DEFAULT_LIMITS,
) -> tuple[LoadedImages, dict[str, Any]]:
    """The first 100 readable images by name, and where they come from.

    Raises:
        DataUnavailableError: fewer than 100 readable ones; the text gives the count and names damaged files.
    """
    check_channels(channels)
    source = open_source(path, limits)
    names = ffhq_names(source.names)
    loaded = load_images(
        source, names, wanted=FFHQ_COUNT, image_size=image_size or DEFAULT_SIZE, channels=channels
    )
    if len(loaded.names) < FFHQ_COUNT:
        damage = f" Damaged: {_damage_text(loaded.damaged)}." if loaded.damaged else ""
        raise DataUnavailableError(
            f"dataset 'ffhq100': {source.label} has {len(loaded.names)} readable images, "
            f"{FFHQ_COUNT} are needed.{damage} {_WAYS}"
        )
    _warn_of_damage(source, loaded)
    if len(names) > FFHQ_COUNT:
        log.warning(
            "%s: %d images found, the first %d readable ones by name are used",
            source.label,
            len(names),
            FFHQ_COUNT,
        )
    selection = f"the first {FFHQ_COUNT} readable of {len(names)} images, sorted by name"
    return loaded, {"source": source.label, "found": len(names), "selection": selection}


def load_ffhq100(
    root: Path | None,
    default_root: Path,
    *,
    seed: int = 0,
    image_size: int | None = None,
    heldout_fraction: float | None = None,
    channels: int | None = None,
) -> Dataset:
    """100 faces of FFHQ from a folder, zip or tar, 64 pixels unless said; 80 to train on and 20 held out."""
    path = find_ffhq100(root, default_root)
    loaded, parameters = read_ffhq100(path, image_size=image_size, channels=channels)
    return _build(
        "ffhq100",
        loaded,
        seed=seed,
        heldout_fraction=heldout_fraction,
        licence=FFHQ_LICENCE,
        parameters=parameters,
    )
