"""FFHQ-100: a hundred faces from an archive that is downloaded, or from the user's own images."""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from naign_ext.data import ood
from naign_ext.data.archives import DEFAULT_LIMITS, ReadLimits, open_source
from naign_ext.data.dataset import Dataset, DataUnavailableError
from naign_ext.data.download import Downloaded, check_url, fetch_from_drive, fetch_from_url, file_sha256
from naign_ext.data.image_files import DEFAULT_SIZE, PRESETS, images_dataset
from naign_ext.data.images import LoadedImages, check_channels, is_image_name, load_images
from naign_ext.data.presets import Presets
from naign_ext.data.registry import dataset, default_data_root
from naign_ext.data.skipped import printable, reasons_text, warn_of_skipped

log = logging.getLogger("naign_ext.data")

COUNT = 100
# datasets.tar of Adaptive IMLE (Aghabozorgi, Peng, Li, ICML 2023), as named in the README of its repository.
ADAIMLE_FILE_ID = "1VwFFzU8wJD1XJtfg60iLwnyBQ_cLZObL"
LICENCE = (
    "FFHQ (NVIDIA): the set CC BY-NC-SA 4.0, non-commercial; each image under the licence its photographer "
    "chose (CC BY 2.0, CC BY-NC 2.0, Public Domain Mark 1.0, CC0 1.0 or U.S. Government Works)"
)
_ARCHIVE = "datasets.tar"
_ARCHIVE_NAMES = (_ARCHIVE, "ffhq100.tar", "ffhq100.tar.gz", "ffhq100.zip")
_WAYS = (
    "Ways to get it: (1) `naign data get ffhq100` downloads the archive that the authors of Adaptive IMLE "
    "share (datasets.tar, its folder ffhq/img holds 100 images of 256 pixels); "
    "(2) `--data-root PATH` takes a folder, zip or tar of at least 100 face images of your own, ffhq/img/* "
    "inside included; (3) `--dataset lfw100` trains on 100 real faces that need no download."
)


def ffhq_names(names: list[str]) -> list[str]:
    """The images under any ffhq/img folder (AdaIMLE's layout, with other sets beside it), else all."""
    images = [name for name in names if is_image_name(name)]
    inside = [name for name in images if PurePosixPath(name).parent.parts[-2:] == ("ffhq", "img")]
    return inside or images


def find_ffhq100(root: Path | None) -> Path:
    """The folder or archive to read: root itself, or an archive in it when it has no images of its own.

    Raises:
        DataUnavailableError: nothing is there; the text says what was looked for and how to get it.
    """
    if root is None:
        root = default_data_root() / "ffhq100"
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
        source, names, wanted=COUNT, image_size=image_size or DEFAULT_SIZE, channels=channels
    )
    if len(loaded.names) < COUNT:
        damage = f" Damaged: {reasons_text(loaded.damaged)}." if loaded.damaged else ""
        raise DataUnavailableError(
            f"dataset 'ffhq100': {source.label} has {len(loaded.names)} readable images, "
            f"{COUNT} are needed.{damage} {_WAYS}"
        )
    warn_of_skipped(source.label, loaded.damaged, loaded.left_out)
    if len(names) > COUNT:
        log.warning(
            "%s: %d images found, the first %d readable ones by name are used",
            source.label,
            len(names),
            COUNT,
        )
    selection = f"the first {COUNT} readable of {len(names)} images, sorted by name"
    return loaded, {"source": printable(source.label), "found": len(names), "selection": selection}


def _reject(archive: Path, reason: str) -> DataUnavailableError:
    rejected = archive.with_name(archive.name + ".rejected")
    archive.replace(rejected)
    return DataUnavailableError(f"ffhq100: what was downloaded is not usable ({reason}); kept as {rejected}")


def _verify(archive: Path, sha256: str | None) -> tuple[str, int]:
    """(hash, number of images used); an unusable file is set aside, so that the next call fetches it anew."""
    found = file_sha256(archive)
    if sha256 is not None and found != sha256.lower():
        raise _reject(archive, f"its SHA-256 is {found}, expected {sha256.lower()}")
    try:
        loaded, _ = read_ffhq100(archive, image_size=8)
    except DataUnavailableError as error:
        raise _reject(archive, str(error)) from error
    return found, len(loaded.names)


def _fetch_archive(target: Path, url: str | None, file_id: str | None) -> str:
    """Fetch to target unless it is there; returns the source's name."""
    source = url or f"Google Drive file {file_id or ADAIMLE_FILE_ID}"
    if target.is_file():
        return source
    try:
        if url is not None:
            fetch_from_url(url, target)
        else:
            fetch_from_drive(file_id or ADAIMLE_FILE_ID, target)
    except DataUnavailableError:
        raise
    # gdown's errors share no base class but Exception.
    except Exception as error:
        raise DataUnavailableError(
            f"ffhq100: the download from {source} failed ({type(error).__name__}: {error}). What arrived is "
            "kept: run the command again to continue. Other ways: `--url` or `--file-id` for another copy, "
            "`--data-root` for images of your own, `--dataset lfw100` for faces that need no download"
        ) from error
    if not target.is_file():
        raise DataUnavailableError(f"ffhq100: the download from {source} left no file; run the command again")
    return source


def download_ffhq100(
    root: Path,
    *,
    url: str | None = None,
    file_id: str | None = None,
    sha256: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Downloaded:
    """AdaIMLE's archive to root/ffhq100/datasets.tar, resumed where it stopped, then verified.

    Verified means: the hash, when one is given, and 100 images that decode. The hash and the source are
    written beside it as datasets.tar.json; no hash is published: without ``sha256`` the first is trusted.
    """
    if url is not None and file_id is not None:
        raise ValueError("url, file_id: expected one of them, got both")
    if url is not None:
        check_url(url, sha256)
    folder = root / "ffhq100"
    folder.mkdir(parents=True, exist_ok=True)
    archive, fetched = folder / _ARCHIVE, folder / f"{_ARCHIVE}.download"
    say(f"Licence: {LICENCE}")
    if archive.is_file():
        say(f"{archive} is already there")
        source = _recorded_source(archive)
        digest, images = _verify(archive, sha256)
    else:
        source = _fetch_archive(fetched, url, file_id)
        say("Verifying")
        digest, images = _verify(fetched, sha256)
        fetched.replace(archive)
    result = Downloaded("ffhq100", str(archive), source, archive.stat().st_size, digest, images, LICENCE)
    _write_record(archive, result)
    say(f"{archive}: {images} images, SHA-256 {digest}")
    return result


def _record_path(archive: Path) -> Path:
    return archive.with_name(archive.name + ".json")


def _recorded_source(archive: Path) -> str:
    try:
        return str(json.loads(_record_path(archive).read_text(encoding="utf-8"))["source"])
    except (OSError, ValueError, KeyError, TypeError):
        return "already there"


def _write_record(archive: Path, result: Downloaded) -> None:
    temporary = archive.with_name(archive.name + ".json.tmp")
    record = {**asdict(result), "path": archive.name}
    temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    temporary.replace(_record_path(archive))


# Faces share a layout, so that what has another is foreign.
FACES: Presets = {
    **PRESETS,
    "default": {
        **PRESETS["default"],
        "objective": {**PRESETS["default"]["objective"], "foreign_weight": 0.06, "foreign_samples": 24},
    },
}


@dataset(
    "ffhq100",
    kind="image",
    sample_shape=(3, 64, 64),
    rows=(80, 20),
    source="AdaIMLE's datasets.tar, or your own images",
    ood=ood.SUMMARY,
    licence=LICENCE,
    presets=FACES,
    download=download_ffhq100,
)
def load_ffhq100(
    *,
    data_root: Path | None = None,
    seed: int = 0,
    image_size: int | None = None,
    heldout_fraction: float | None = None,
    channels: int | None = None,
) -> Dataset:
    """100 faces of FFHQ from a folder, zip or tar, 64 pixels unless said; 80 to train on and 20 held out."""
    path = find_ffhq100(data_root)
    loaded, parameters = read_ffhq100(path, image_size=image_size, channels=channels)
    return images_dataset(
        "ffhq100",
        loaded,
        seed=seed,
        heldout_fraction=heldout_fraction,
        licence=LICENCE,
        parameters=parameters,
    )
