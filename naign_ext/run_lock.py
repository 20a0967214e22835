"""Who may train in a run's folder: one process at a time, and a start that fails leaves nothing of itself there."""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from naign_ext.config import ConfigError

LOCK_FILE = ".lock"
_WRITTEN_AT_START = ("config.yaml", "metrics.jsonl", ".metrics.jsonl.new", "samples", "checkpoints")
_EVENTS = "events.out.tfevents."
_WITHOUT_LOCKS = frozenset((errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP))


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """While it lasts, no other process can train in the folder. The lock dies with its process, however that ends.

    File systems that have no locks are used without one.

    Raises:
        ConfigError: another process has it.
    """
    descriptor = _locked(folder)
    try:
        yield
    finally:
        # Before it is let go of: whoever has opened the file meanwhile finds that it is not the folder's. Where the
        # folder was removed and another run begun there, the file is that one's.
        with suppress(OSError):
            if _is_open_as(folder / LOCK_FILE, descriptor):
                (folder / LOCK_FILE).unlink()
        os.close(descriptor)


def _locked(folder: Path) -> int:
    path = folder / LOCK_FILE
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise ConfigError(
                f"run: another process trains in {folder}; wait for its end or stop it"
            ) from None
        except OSError as error:
            if error.errno not in _WITHOUT_LOCKS:
                os.close(descriptor)
                raise
        if _is_open_as(path, descriptor):
            return descriptor
        os.close(descriptor)


def _is_open_as(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@dataclass(frozen=True)
class Start:
    """What a folder was before a run began there, by which a start that fails is undone.

    made: the folders that were made for it, innermost first. present: names of what it held.
    """

    folder: Path
    made: tuple[Path, ...]
    present: frozenset[str]

    def undo(self) -> None:
        """Remove what a run writes before its first update, and nothing else."""
        for path in list(self.folder.iterdir()) if self.folder.is_dir() else ():
            is_ours = path.name in _WRITTEN_AT_START or path.name.startswith(_EVENTS)
            if is_ours and path.name not in self.present:
                _remove(path)

    def remove_folders(self) -> None:
        """Remove the folders that were made and are empty."""
        for folder in self.made:
            with suppress(OSError):
                folder.rmdir()


def make_folder(folders: Iterable[Path]) -> Start:
    """The first of several folders that is not there, made; one folder alone may be there.

    Each is made by one process alone, so that two which look for a free name at the same time find two.
    """
    names = list(folders)
    for folder in names:
        made = tuple(path for path in (folder, *folder.parents) if not path.exists())
        try:
            folder.mkdir(parents=True, exist_ok=len(names) == 1)
        except FileExistsError:
            if len(names) == 1:
                raise
            continue
        return Start(folder, made, frozenset(path.name for path in folder.iterdir()))
    raise ConfigError(f"out: {names[0]} and all {len(names)} names after it are taken; choose a folder")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
