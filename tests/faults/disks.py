"""Disks that are full or read-only: one clear line, and a run that goes on to the same bits once there is room."""

import ctypes
import os
import resource
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

from faults import commands, kills, templates
from faults.verdicts import FaultError
from faults.workers import Kind, Kinds

Say = Callable[[str], None]
_libc = ctypes.CDLL(None, use_errno=True)
_NEW_MOUNTS, _NEW_USERS = 0x00020000, 0x10000000
_READ_ONLY, _REMOUNT = 1, 32
_PRIVATE = 1 << 18 | 1 << 14


class CannotMountError(Exception):
    """The system does not allow mounts here."""


def _mount(target: Path, options: str, flags: int = 0) -> None:
    if _libc.mount(b"tmpfs", os.fsencode(target), b"tmpfs", flags, options.encode()) != 0:
        raise CannotMountError(os.strerror(ctypes.get_errno()))


def own_mounts() -> None:
    """From here on this process sees mounts of its own, which end with it."""
    user, group = os.getuid(), os.getgid()
    if _libc.unshare(_NEW_MOUNTS) != 0:
        if _libc.unshare(_NEW_USERS | _NEW_MOUNTS) != 0:
            raise CannotMountError(os.strerror(ctypes.get_errno()))
        with suppress(OSError):
            Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _libc.mount(b"none", b"/", None, _PRIVATE, None)


def can_mount() -> bool:
    """Whether small disks can be mounted, tried in a process of its own."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            own_mounts()
            _mount(Path("/mnt"), "size=64k")
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1] == 0


def full_disk(made: Path, expected: kills.Uninterrupted, rng: Random, folder: Path, say: Say) -> None:
    """Something that writes on a disk of some kilobytes; a run then goes on where there is room."""
    disk = folder / "disk"
    disk.mkdir()
    size = rng.randrange(4, 200)
    own_mounts()
    _mount(disk, f"size={size}k")
    say(f"a disk of {size} KiB")
    if rng.random() < 0.5:
        _write_something(rng, made, disk, say)
        return
    say("train")
    with suppress(OSError, ValueError):
        kills._train(expected.settings, disk / "run")
    _mount(disk, "size=100m", _REMOUNT)
    _go_on(disk / "run", expected)


def short_files(made: Path, expected: kills.Uninterrupted, rng: Random, folder: Path, say: Say) -> None:
    """The same with files that may only have so many bytes, where nothing can be mounted."""
    size = rng.randrange(100, 12_000)
    say(f"files of at most {size} bytes")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        if rng.random() < 0.5:
            _write_something(rng, made, folder / "disk", say)
            return
        say("train")
        with suppress(OSError, ValueError):
            kills._train(expected.settings, folder / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    _go_on(folder / "run", expected)


def _go_on(run: Path, expected: kills.Uninterrupted) -> None:
    """Now that there is room, the run must come to the same end."""
    try:
        kills._train(expected.settings, run)
    except (OSError, ValueError) as error:
        raise FaultError(f"does not go on once there is room: {error}") from error
    kills.compare(run, expected)


def read_only_disk(made: Path, rng: Random, folder: Path, say: Say) -> None:
    """Everything that writes, on a disk that is read-only; what only reads must work."""
    disk = folder / "disk"
    disk.mkdir()
    own_mounts()
    _mount(disk, "size=50m")
    for name in ("run", "image-run", "run-pretrained"):
        shutil.copytree(made / name, disk / name)
    _mount(disk, "size=50m", _REMOUNT | _READ_ONLY)
    say("a read-only disk")
    if rng.random() < 0.3:
        from naign_ext.projector import Projector
        from naign_ext.run import Run

        Run.open(disk / "run").metrics()
        Projector.load(disk / "run", "cpu").sample(2)
        commands.invoke(["score", str(disk / "image-run"), str(made / templates.IMAGES), "--json"])
        return
    _write_something(rng, disk, disk, say, expect_failure=True)


def _write_something(rng: Random, made: Path, disk: Path, say: Say, *, expect_failure: bool = False) -> None:
    """A command whose results go to the disk."""
    images = (
        str(made / templates.IMAGES) if (made / templates.IMAGES).exists() else str(templates.ROOT / "docs")
    )
    small = [part for setting in templates.SMALL for part in ("--set", setting)]
    lines = {
        "sample": ["sample", made / "run", "-n", "3000", "--out", disk / "out"],
        "sample images": ["sample", made / "image-run", "-n", "9", "--out", disk / "out"],
        "restore": ["restore", made / "image-run", images, "--out", disk / "out"],
        "train": ["train", "--dataset", templates.PLANE, *small, "--no-report", "--out", disk / "new"],
        "evaluate": [
            "evaluate",
            made / "run",
            "--samples",
            "9",
            "--metrics",
            "projection",
            "--no-report",
            "--json",
        ],
        "resume": ["train", "--resume", made / "run", "--steps", "14", "--no-report"],
    }
    name = rng.choice(list(lines))
    line = [str(part) for part in lines[name]]
    if name == "evaluate":
        line.append(str(disk / "rows.json"))
    if name in ("evaluate", "resume") and not expect_failure:
        try:
            shutil.copytree(made / "run", disk / "run", copy_function=shutil.copyfile)
        except shutil.Error:
            say("too small for the run itself")
            return
        line = [part.replace(str(made / "run"), str(disk / "run")) for part in line]
    say(" ".join(line[:3]))
    commands.invoke(line)
    if expect_failure:
        raise FaultError(f"{name} says that it wrote to a read-only disk")


def kinds(made: Path, expected: kills.Uninterrupted, *, mounts: bool) -> Kinds:
    """Full and read-only disks; made: the templates."""

    def full(rng: Random, folder: Path, say: Say) -> None:
        (full_disk if mounts else short_files)(made, expected, rng, folder, say)

    def read_only(rng: Random, folder: Path, say: Say) -> None:
        read_only_disk(made, rng, folder, say)

    return {"full disk": Kind(full)} | ({"read-only disk": Kind(read_only)} if mounts else {})
