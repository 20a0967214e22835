"""Folders that a command writes its results into: those of an earlier call make room, other files are kept."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from naign_cli.guard import Mistake

LIST = ".naign-results.json"
"""The file in the folder that names what a call has written there, each with its SHA-256."""

_MOST_BYTES = 240
"""Of a result's name, so that it fits with suffix and number what file systems allow (255); letters have up to four."""


@contextmanager
def results_folder(folder: Path, names: Sequence[str], inputs: Iterable[Path] = ()) -> Iterator[None]:
    """Make room in the folder for the files of these names (relative), which are written within.

    What an earlier call wrote there, and nobody has changed since, is removed.

    Raises:
        Mistake: a file of another origin has one of the names, or an input lies among the results.
    """
    from naign_ext.json_files import write_json

    earlier = _earlier(folder)
    _keep_inputs(folder, inputs)
    own = set(earlier)
    for name in names:
        if name not in own and os.path.lexists(folder / name):
            raise Mistake(
                f"{folder / name}: is there already, and no earlier call wrote it; move it, or give another --out"
            )
    folder.mkdir(parents=True, exist_ok=True)
    for name in earlier:
        (folder / name).unlink()
    # Named before they are there, so that what a call that was cut short has left is known to the next.
    write_json(folder / LIST, {"files": dict.fromkeys(names)})
    yield
    write_json(folder / LIST, {"files": {name: _sha256(folder / name) for name in names}})


def _earlier(folder: Path) -> list[str]:
    """Files that the list names and that are still as they were written, or were being written."""
    from naign_ext.json_files import read_json

    try:
        listed = (read_json(folder / LIST) or {}).get("files")
        known = dict(listed or {})
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise Mistake(f"damaged: {folder / LIST}: remove it, or give another --out") from None
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
