"""Folders that a command writes its results into: those of an earlier call make room, other files are kept."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from naign_cli.guard import Mistake
from naign_cli.output import say

if TYPE_CHECKING:
    from torch import Tensor

LIST = ".naign-results.json"
"""The file in the folder that names what a call has written there, each with its SHA-256."""

_MOST_BYTES = 240
"""Of a result's name, so that it fits with suffix and number what file systems allow (255); letters have up to four."""


_PART = ".part"
"""Ends the name of a file that is being written."""


class Results:
    """Files that a call writes into its folder: each has its name when it is whole, and what is written stays when
    the call is stopped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: dict[str, str] = {}
        self._growing: dict[str, _GrowingFile] = {}

    def write(self, name: str, content: bytes) -> Path:
        """A whole file."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(file.name + _PART)
        try:
            part.write_bytes(content)
            part.replace(file)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise
        self.written[name] = hashlib.sha256(content).hexdigest()
        return file

    def append(self, name: str, rows: bytes) -> Path:
        """Rows of a file that grows until the call ends, or is stopped: then it holds those that were whole."""
        if name not in self._growing:
            self._growing[name] = _GrowingFile(self.folder / name)
        self._growing[name].append(rows)
        return self.folder / name

    def close(self) -> None:
        """Give the files that have grown their names."""
        for name, file in self._growing.items():
            self.written[name] = file.close()
        self._growing = {}

    def counted(self) -> str:
        """How far a call that was stopped has come."""
        rows = "".join(f"; {name} holds {file.rows} rows" for name, file in self._growing.items())
        return f"{self.folder}: {len(self.written)} files are written and kept{rows}"


class _GrowingFile:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._part = file.with_name(file.name + _PART)
        self._open: BinaryIO = self._part.open("wb", buffering=0)
        self._bytes = 0
        self._digest = hashlib.sha256()
        self.rows = 0

    def append(self, rows: bytes) -> None:
        rest = memoryview(rows)
        while rest:
            rest = rest[self._open.write(rest) :]
        self._bytes += len(rows)
        self._digest.update(rows)
        self.rows += rows.count(b"\n")

    def close(self) -> str:
        """Cut off what is not whole; the SHA-256 of the rest."""
        self._open.truncate(self._bytes)
        self._open.close()
        self._part.replace(self._file)
        return self._digest.hexdigest()


@contextmanager
def results_folder(folder: Path, names: Sequence[str], inputs: Iterable[Path] = ()) -> Iterator[Results]:
    """Make room in the folder for the files of these names (relative), which are written within; not all have to be.

    What an earlier call wrote there, and nobody has changed since, is removed. What is written when an error or
    Ctrl-C ends the call is kept, and how much that is said.

    Raises:
        Mistake: a file of another origin has one of the names, or an input lies among the results.
    """
    from naign_ext.json_files import write_json

    earlier = _earlier(folder)
    _keep_inputs(folder, inputs)
    own = set(earlier)
    for taken in (taken for name in names for taken in (name, name + _PART)):
        if taken not in own and os.path.lexists(folder / taken):
            raise Mistake(
                f"{folder / taken}: is there already, and no earlier call wrote it; move it, or give another --out"
            )
    folder.mkdir(parents=True, exist_ok=True)
    for name in earlier:
        (folder / name).unlink()
    # Named before they are there, so that what a call that was cut short has left is known to the next.
    write_json(folder / LIST, {"files": dict.fromkeys(names)})
    results = Results(folder)
    try:
        yield results
    except BaseException:
        text = results.counted()
        # Of a full disk, or a folder that is gone, more errors come, and the first is told.
        with suppress(OSError):
            results.close()
            write_json(folder / LIST, {"files": results.written})
        say(text)
        raise
    results.close()
    write_json(folder / LIST, {"files": results.written})


def _earlier(folder: Path) -> list[str]:
    """Files that the list names and that are still as they were written, or were being written."""
    from naign_ext.json_files import read_json

    try:
        listed = (read_json(folder / LIST) or {}).get("files")
        known = dict(listed or {})
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise Mistake(f"damaged: {folder / LIST}: remove it, or give another --out") from None
    known |= {name + _PART: None for name, digest in known.items() if digest is None}
    return [
        name
        for name, digest in known.items()
        if _stays_inside(name)
        and not (folder / name).is_symlink()
        and (folder / name).is_file()
        and digest in (None, _sha256(folder / name))
    ]


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _keep_inputs(folder: Path, inputs: Iterable[Path]) -> None:
    target = (folder / "images").resolve()
    for given in inputs:
        own = given.resolve()
        if own == target or target in own.parents or (own in target.parents and target.exists()):
            raise Mistake(
                f"--out: {given} holds earlier results ({target}), or lies among them; give another --out"
            )


def csv_rows(x: "Tensor") -> bytes:
    """Rows (n, ...) as lines of numbers with commas between them, enough digits for float32."""
    import io

    import numpy as np

    lines = io.BytesIO()
    np.savetxt(lines, x.flatten(1).numpy(), delimiter=",", fmt="%.8g")
    return lines.getvalue()


def result_stems(names: Sequence[str]) -> list[str]:
    """Of each input's name that of its result, without the suffix: different ones, also where letters' case is one.

    a/x.png becomes a_x. Where two would have one name, they keep their suffix, and folders end in two underscores:
    x.png and x.jpg stay as they are, a/b.png and a_b.png become a__b.png and a_b.png. Numbers tell the rest apart.
    """
    shortest = [_joined(name, "_").removesuffix(PurePosixPath(name).suffix) for name in names]
    shared = Counter(stem.casefold() for stem in shortest)
    stems = [
        _joined(name, "__") if shared[stem.casefold()] > 1 else stem
        for stem, name in zip(shortest, names, strict=True)
    ]
    stems = [stem if len(os.fsencode(stem)) <= _MOST_BYTES else stem[-_MOST_BYTES // 4 :] for stem in stems]
    count = Counter(stem.casefold() for stem in stems)
    taken = {stem for stem, times in count.items() if times == 1}
    return [stem if count[stem.casefold()] == 1 else _numbered(stem, taken) for stem in stems]


def _joined(name: str, between: str) -> str:
    return between.join(part for part in PurePosixPath(name).parts if part not in ("/", ".."))


def _numbered(stem: str, taken: set[str]) -> str:
    """The stem where it is free, else with the first number that is; it is taken from then on."""
    number, found = 1, stem
    while found.casefold() in taken:
        number += 1
        found = f"{stem}_{number}"
    taken.add(found.casefold())
    return found
