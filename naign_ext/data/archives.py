"""Named byte sources: a folder, a zip or a tar, all read in memory and within limits.

Nothing is ever written to disk, links are never followed out of an archive, and every size is checked before
the bytes it announces are read: an archive can neither place files nor exhaust memory.
"""

import bz2
import gzip
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

from naign_ext.data.dataset import DataUnavailableError
from naign_ext.options import in_a_line
from naign_ext.untrusted import NOT_REGULAR, FileTooLargeError, read_regular_file, size_text

MIB = 1 << 20
LINK_IN_ARCHIVE = "a link in an archive"
_MAGICS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
_BROKEN = (
    OSError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    UnicodeError,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)


@dataclass(frozen=True)
class ReadLimits:
    """What a source may hold. Bytes are uncompressed; ``total_bytes`` counts every entry of an archive."""

    entries: int = 500_000
    file_bytes: int = 64 * MIB
    total_bytes: int = 16 * 1024 * MIB


DEFAULT_LIMITS = ReadLimits()


@dataclass(frozen=True)
class UnreadableFile:
    """What stands for the content of one file that cannot be read, while the others can."""

    reason: str


class Source(Protocol):
    """Where files come from.

    ``names`` are sorted, relative, with forward slashes; only regular files. ``left_out`` are (name, reason) of what
    else is there: links that lead nowhere, pipes, devices, folders that may not be listed.
    """

    label: str
    names: list[str]
    left_out: list[tuple[str, str]]

    def read(self, names: Sequence[str]) -> Iterator[tuple[str, bytes | UnreadableFile]]:
        """Yield (name, content) for the names, in whichever order is cheapest."""
        ...


def _refuse(label: str, reason: str) -> DataUnavailableError:
    return DataUnavailableError(f"{label}: {reason}; unpack it yourself and pass the folder if you trust it")


def _check_name(label: str, name: str) -> str:
    """Forward slashes; raises when the name would lead out of the folder it is unpacked into."""
    unified = name.replace("\\", "/")
    parts = PurePosixPath(unified).parts
    if unified.startswith("/") or ".." in parts or (parts and parts[0].endswith(":")):
        raise _refuse(label, f"its entry {name!r} points outside the archive")
    return "/".join(parts)


class _Budget:
    """Counts entries and announced bytes of one archive against the limits."""

    def __init__(self, label: str, limits: ReadLimits) -> None:
        self.label, self.limits = label, limits
        self.entries = 0
        self.bytes = 0

    def add(self, size: int) -> None:
        self.entries += 1
        self.bytes += size
        if self.entries > self.limits.entries:
            raise _refuse(self.label, f"it has more than {self.limits.entries} entries")
        if self.bytes > self.limits.total_bytes:
            raise _refuse(self.label, f"it unpacks to more than {self.limits.total_bytes} bytes")


def _check_file_size(label: str, name: str, size: int, limits: ReadLimits) -> None:
    if size > limits.file_bytes:
        raise _refuse(label, f"{name!r} {size_text(size, limits.file_bytes)}")


@contextmanager
def _naming(label: str) -> Iterator[None]:
    """Turn what broken archives raise into an error that names the archive."""
    try:
        yield
    except _BROKEN as error:
        raise DataUnavailableError(
            f"{label}: cannot be read ({type(error).__name__}: {in_a_line(error)}); it is no zip or tar, "
            "or damaged, encrypted or incomplete: fetch it again, or pass a folder of images"
        ) from error


class FolderSource:
    """All files below a folder; links are the user's own choice and are followed, into each folder once."""

    def __init__(self, path: Path, limits: ReadLimits = DEFAULT_LIMITS) -> None:
        self.label = f"folder {path.name or path}"
        self._path, self._limits = path, limits
        self.names: list[str] = []
        self.left_out: list[tuple[str, str]] = []
        self._walk()
        self.names.sort()
        self.left_out.sort()

    def _walk(self) -> None:
        """Folders by their own names first, then those that are linked, so that a link never renames a file."""
        seen: set[tuple[int, int]] = set()
        starts = [self._path]
        for start in starts:
            for parent, folders, files in os.walk(start, followlinks=False, onerror=self._leave_out):
                found = Path(parent).stat()
                if (found.st_dev, found.st_ino) in seen:
                    folders.clear()
                    continue
                seen.add((found.st_dev, found.st_ino))
                folders.sort()
                starts += [link for folder in folders if (link := Path(parent, folder)).is_symlink()]
                for file in files:
                    self._add(Path(parent, file))

    def _add(self, file: Path) -> None:
        name = file.relative_to(self._path).as_posix()
        if file.is_file():
            self.names.append(name)
        else:
            self.left_out.append((name, NOT_REGULAR if file.exists() else "a link that leads nowhere"))
        if len(self.names) + len(self.left_out) > self._limits.entries:
            raise DataUnavailableError(
                f"{self.label}: more than {self._limits.entries} files; pass a smaller folder"
            )

    def _leave_out(self, error: OSError) -> None:
        folder = Path(error.filename).relative_to(self._path).as_posix()
        self.left_out.append((folder, f"a folder that cannot be listed ({error.strerror})"))

    def read(self, names: Sequence[str]) -> Iterator[tuple[str, bytes | UnreadableFile]]:
        for name in names:
            yield name, _read_or_reason(self._path / name, self._limits)


class FileSource:
    """One file by itself."""

    def __init__(self, path: Path, limits: ReadLimits = DEFAULT_LIMITS) -> None:
        self.label = str(path)
        self._folder, self._limits = path.parent, limits
        self.names = [path.name]
        self.left_out: list[tuple[str, str]] = []

    def read(self, names: Sequence[str]) -> Iterator[tuple[str, bytes | UnreadableFile]]:
        for name in names:
            yield name, _read_or_reason(self._folder / name, self._limits)


def _read_or_reason(file: Path, limits: ReadLimits) -> bytes | UnreadableFile:
    try:
        return read_regular_file(file, limits.file_bytes)
    except OSError as error:
        return UnreadableFile(f"cannot be opened: {error.strerror or error}")
    except FileTooLargeError as error:
        return UnreadableFile(str(error))


class ZipSource:
    """Regular files of a zip archive; links and encrypted entries are not read."""

    def __init__(self, path: Path, limits: ReadLimits = DEFAULT_LIMITS) -> None:
        self.label = f"archive {path.name}"
        self._path, self._limits = path, limits
        self._entries: dict[str, zipfile.ZipInfo] = {}
        self.left_out: list[tuple[str, str]] = []
        budget = _Budget(self.label, limits)
        with _naming(self.label), zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                name = _check_name(self.label, info.filename)
                budget.add(info.file_size)
                if stat.S_ISLNK(info.external_attr >> 16):
                    self.left_out.append((name, LINK_IN_ARCHIVE))
                elif not info.is_dir():
                    self._entries[name] = info
        self.names = sorted(self._entries)

    def read(self, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        with _naming(self.label), zipfile.ZipFile(self._path) as archive:
            for name in sorted(names, key=lambda n: self._entries[n].header_offset):
                info = self._entries[name]
                _check_file_size(self.label, name, info.file_size, self._limits)
                with archive.open(info) as file:
                    yield name, _read_announced(file, info.file_size)


def _read_announced(file: IO[bytes], size: int) -> bytes:
    content = file.read(size)
    if len(content) != size:
        raise EOFError(f"an entry ends after {len(content)} of {size} bytes")
    return content


class _BoundedReads:
    """A seekable byte stream that refuses reads beyond a limit: tar headers announce lengths, too."""

    def __init__(self, raw: Any, label: str, limit: int) -> None:
        self._raw, self._label, self._limit = raw, label, limit

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > self._limit:
            raise _refuse(self._label, f"one of its headers announces {size} bytes")
        content: bytes = self._raw.read(size)
        return content

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._raw.seek(offset, whence))

    def tell(self) -> int:
        return int(self._raw.tell())


class TarSource:
    """Regular files of a tar archive, plain or compressed (gzip, bzip2, xz); no links, no devices."""

    def __init__(self, path: Path, limits: ReadLimits = DEFAULT_LIMITS) -> None:
        self.label = f"archive {path.name}"
        self._path, self._limits = path, limits
        self._entries: dict[str, tarfile.TarInfo] = {}
        self.left_out: list[tuple[str, str]] = []
        budget = _Budget(self.label, limits)
        with _naming(self.label), self._open() as archive:
            # Members are visited one by one: each announced size is checked before its bytes are skipped.
            for member in archive:
                name = _check_name(self.label, member.name)
                budget.add(member.size)
                if member.isreg() and not member.issparse():
                    self._entries[name] = member
                elif not member.isdir():
                    links = member.issym() or member.islnk()
                    self.left_out.append((name, LINK_IN_ARCHIVE if links else NOT_REGULAR))
        self.names = sorted(self._entries)

    @contextmanager
    def _open(self) -> Iterator[tarfile.TarFile]:
        with self._path.open("rb") as file:
            magic = file.read(6)
        opener = next((opener for start, opener in _MAGICS.items() if magic.startswith(start)), None)
        raw = self._path.open("rb") if opener is None else opener(self._path)
        bounded: Any = _BoundedReads(raw, self.label, self._limits.file_bytes)
        with raw, tarfile.open(fileobj=bounded, mode="r:") as archive:
            yield archive

    def read(self, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        with _naming(self.label), self._open() as archive:
            # In the order of the archive, so that a compressed one is decompressed once.
            for name in sorted(names, key=lambda n: self._entries[n].offset):
                member = self._entries[name]
                _check_file_size(self.label, name, member.size, self._limits)
                file = archive.extractfile(member)
                if file is None:
                    raise EOFError(f"entry {name!r} has no content")
                yield name, _read_announced(file, member.size)


def open_source(path: Path, limits: ReadLimits = DEFAULT_LIMITS) -> Source:
    """The folder, zip or tar at path.

    Raises:
        DataUnavailableError: nothing there, not one of the three, damaged, unsafe or beyond the limits.
    """
    if path.is_dir():
        return FolderSource(path, limits)
    if not path.is_file():
        raise DataUnavailableError(f"{path}: no such folder or archive; check the path")
    with path.open("rb") as file:
        is_zip = file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    return ZipSource(path, limits) if is_zip else TarSource(path, limits)
