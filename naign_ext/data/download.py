"""Fetching files over the network, resumed where an earlier call stopped."""

import hashlib
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from naign_ext.data.dataset import DataUnavailableError

MAX_DOWNLOAD_BYTES = 16 << 30
_BLOCK = 1 << 20
_TIMEOUT_SECONDS = 60.0


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


def fetch_from_drive(file_id: str, target: Path) -> None:
    """Download a file of Google Drive to target, continuing what an earlier call left."""
    # torchvision's Google Drive helper is a call of gdown without its resuming and retrying.
    try:
        import gdown
    except ImportError as error:
        raise DataUnavailableError(
            "Google Drive downloads need gdown; install it with: pip install gdown"
        ) from error
    gdown.download(
        id=file_id, output=str(target), quiet=False, resume=True, retries=3, timeout=_TIMEOUT_SECONDS
    )


def check_url(url: str, sha256: str | None) -> None:
    """ValueError for an address whose content nothing would vouch for."""
    scheme = urllib.parse.urlsplit(url).scheme
    if scheme == "https" or (scheme == "http" and sha256 is not None):
        return
    raise ValueError(f"url: expected https://..., or http://... together with sha256; got {url!r}")


def _copy_bounded(response: IO[bytes], file: IO[bytes]) -> None:
    while block := response.read(_BLOCK):
        file.write(block)
        if file.tell() > MAX_DOWNLOAD_BYTES:
            raise DataUnavailableError(f"url: more than {MAX_DOWNLOAD_BYTES} bytes came; stopped")


def fetch_from_url(url: str, target: Path) -> None:
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
