"""Fetching the data sets that ship with no package: ffhq100 (an archive of 100 FFHQ images) and mnist."""

import hashlib
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from naign_ext.data import bundled, folders
from naign_ext.data.dataset import DataUnavailableError

# datasets.tar of Adaptive IMLE (Aghabozorgi, Peng, Li, ICML 2023), as named in the README of its repository.
ADAIMLE_FILE_ID = "1VwFFzU8wJD1XJtfg60iLwnyBQ_cLZObL"
MAX_DOWNLOAD_BYTES = 16 << 30
_BLOCK = 1 << 20
_TIMEOUT_SECONDS = 60.0
_ARCHIVE = "datasets.tar"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Downloaded:
    """What a download left behind: where, from where, how much, and the hash (hex, "" for several files)."""

    name: str
    path: str
    source: str
    bytes: int
    sha256: str
    images: int
    licence: str


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch_from_drive(file_id: str, target: Path) -> None:
    # torchvision's Google Drive helper is a call of gdown without its resuming and retrying.
    try:
        import gdown
    except ImportError as error:
        raise DataUnavailableError(
            "ffhq100: Google Drive downloads need gdown; install it with: pip install gdown"
        ) from error
    gdown.download(
        id=file_id, output=str(target), quiet=False, resume=True, retries=3, timeout=_TIMEOUT_SECONDS
    )


def _check_url(url: str, sha256: str | None) -> None:
    scheme = urllib.parse.urlsplit(url).scheme
    if scheme == "https" or (scheme == "http" and sha256 is not None):
        return
    raise ValueError(f"url: expected https://..., or http://... together with sha256; got {url!r}")


def _copy_bounded(response: IO[bytes], file: IO[bytes]) -> None:
    while block := response.read(_BLOCK):
        file.write(block)
        if file.tell() > MAX_DOWNLOAD_BYTES:
            raise DataUnavailableError(f"url: more than {MAX_DOWNLOAD_BYTES} bytes came; stopped")


def _fetch_from_url(url: str, target: Path) -> None:
    """Download to target by way of target.part, continuing a part left by an earlier call."""
    part = target.with_name(target.name + ".part")
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
            continued = have > 0 and response.status == 206
            length = response.headers.get("Content-Length")
            with part.open("ab" if continued else "wb") as file:
                start = file.tell() if continued else 0
                _copy_bounded(response, file)
                got = file.tell() - start
    except urllib.error.HTTPError as error:
        # 416: the part is already as long as the file.
        if not (error.code == 416 and have):
            raise
    else:
        if length is not None and got != int(length):
            raise OSError(f"the connection ended after {got} of {length} bytes")
    part.replace(target)


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
        loaded, _ = folders.read_ffhq100(archive, image_size=8)
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
            _fetch_from_url(url, target)
        else:
            _fetch_from_drive(file_id or ADAIMLE_FILE_ID, target)
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
    say: Say = lambda line: None,
) -> Downloaded:
    """AdaIMLE's archive to root/ffhq100/datasets.tar, resumed where it stopped, then verified.

    Verified means: the hash, when one is given, and 100 images that decode. The hash and the source are
    written beside it as datasets.tar.json; no hash is published: without ``sha256`` the first is trusted.
    """
    if url is not None and file_id is not None:
        raise ValueError("url, file_id: expected one of them, got both")
    if url is not None:
        _check_url(url, sha256)
    folder = root / "ffhq100"
    folder.mkdir(parents=True, exist_ok=True)
    archive, fetched = folder / _ARCHIVE, folder / f"{_ARCHIVE}.download"
    say(f"Licence: {folders.FFHQ_LICENCE}")
    if archive.is_file():
        say(f"{archive} is already there")
        source = _recorded_source(archive)
        digest, images = _verify(archive, sha256)
    else:
        source = _fetch_archive(fetched, url, file_id)
        say("Verifying")
        digest, images = _verify(fetched, sha256)
        fetched.replace(archive)
    result = Downloaded(
        "ffhq100", str(archive), source, archive.stat().st_size, digest, images, folders.FFHQ_LICENCE
    )
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


def download_mnist(root: Path, *, say: Say = lambda line: None) -> Downloaded:
    """MNIST by torchvision to root/MNIST; torchvision checks the files' published MD5 sums."""
    root.mkdir(parents=True, exist_ok=True)
    first, second = bundled.fetch_mnist(root)
    folder = root / "MNIST"
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    count = len(first.data) + len(second.data)
    say(f"{folder}: {count} images")
    return Downloaded("mnist", str(folder), "torchvision MNIST", size, "", count, bundled.MNIST_LICENCE)
