"""Random arguments for every command, taken from the Typer app itself."""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import typer

from faults import templates
from faults.verdicts import OURS, FaultError, RefusedError
from faults.workers import Kind, Kinds

Say = Callable[[str], None]
MOST_LINES = 14
"""Of an error, with the frame that Typer draws about a wrong option."""
_CODES = (0, 1, 2)
_WORDS = "x nan [red] :cat: -1 1e400 auto cpu cuda:9 Cpu"
_TEXTS = ("", "\ud800", "a\x1b[31m", "x" * 5000, *_WORDS.split())
_DIGITS = "-1 0 1 2 3 1.5 x nan inf -inf 1e-400"
_NUMBERS = ("", "9" * 30, str(2**63), str(2**31), *_DIGITS.split())
_WORK = "steps count cases updates repeats samples seeds grid chunk threads k jobs processes"
"""Options that say how much is to be done: large numbers that are allowed would take long, and are no fault."""
_LEFT_OUT = re.compile(r"^\d+ of \d+ images skipped; the others are done$", re.MULTILINE)
"""How a command ends that did what it could and named the rest."""
_LITTLE = ("1", "2", "3", "-1", "0", "x", "1.5", "", "9" * 40)
_SETTINGS = """
steps=2 batch_size=4 seed=-1 model.widths=[2] model.widths=[] model.widths=3 = a=b steps objective=x device=tpu
objective.pool_size=0 log.every=x image_size=8 augment.flip=maybe optimiser.betas=[1] precision=fp8 steps=[
steps=!!python/name:os log.tensorboard=false train_rows=0 data_seed=1e3 heldout_fraction=1 model.architecture=x
objective.latent_scale=.nan seed=99999999999999999999999 log.samples=0 optimiser.lr=1e30 optimiser.lr=-1
"""
WRITTEN = ("out", "picture", "json", "plot", "results", "data_root")
"""Options that name what a command writes, or may."""
_NAMES = {
    "dataset": ("8gaussians", "8gaussians", "moons", "digits", "x", "folder:", "folder:/dev/null", "folder:."),
    "preset": ("quick", "default", "paper", "x", ""),
    "workloads": ("quick", "x", "", "small"),
    "checkpoint": ("best", "last", "12", "8", "-1", "x", "", "9" * 30),
    "weights": ("ema", "model", "x", ""),
    "device": ("cpu", "cpu", "cpu", "auto", "cuda", "cuda:7", "x", ""),
    "corrupt": ("noise", "mask", "blur", "downsample", "x", ""),
    "corrupted_by": ("blur", "downsample", "x"),
    "metrics": ("projection", "samples", "x", "", ",", "fld"),
    "features": ("pixels", "pca", "x", "classifier"),
    "claim": ("report", "x", ""),
    "name": ("mnist", "ffhq100", "x", "lfw100"),
    "url": ("http://localhost:1/a", "file:///etc/passwd", "x", "https://localhost:1/", ""),
    "objective": ("naign", "ign", "imle", "x"),
    "objectives": ("naign", "ign", "x"),
    "datasets": ("8gaussians", "x"),
    "dtype": ("float32", "float16", "x"),
    "reference": ("heldout", "x", "/dev/zero"),
}  # fmt: skip


def all_commands() -> dict[tuple[str, ...], Any]:
    """Every command by the words that call it."""
    from naign_cli.main import app

    return dict(_below((), typer.main.get_command(app)))


def _below(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not hasattr(command, "commands"):
        yield words, command
        return
    for name, inner in command.commands.items():
        yield from _below((*words, name), inner)


def parameters(command: Any) -> list[Any]:
    """All parameters of a command, also those that are made when it is used."""
    return list(command.get_params(typer.Context(command)))


def _type_of(parameter: Any) -> str:
    """In words; Typer keeps the annotation, or click's type made of it."""
    described = getattr(parameter, "type_descriptor", None)
    kept = type(parameter.type).__name__ if described is None else str(described.annotation)
    return kept.lower()


def arguments(rng: Random, made: Path, folder: Path, words: tuple[str, ...], command: Any) -> list[str]:
    """A command line: each option given or not, with a sound value or an odd one."""
    line = list(words)
    for parameter in parameters(command):
        if parameter.name in ("help", "version"):
            continue
        is_argument = parameter.param_type_name == "argument"
        if not is_argument and rng.random() > 0.3:
            continue
        if is_argument and not parameter.required and rng.random() < 0.3:
            continue
        names = [*parameter.opts, *parameter.secondary_opts]
        if getattr(parameter, "is_flag", False):
            line.append(rng.choice(names))
            continue
        times = rng.choice([1, 1, 2]) if parameter.multiple or parameter.nargs == -1 else 1
        for _ in range(times):
            value = _value(rng, made, folder, parameter)
            line += [value] if is_argument else [rng.choice(names), value]
    if rng.random() < 0.05:
        line.insert(
            rng.randrange(len(line) + 1), rng.choice(["--unknown", "-x", "--", "-", "\x01", "--json"])
        )
    return [part.replace("\x00", "") for part in _kept_short(line, words)]


def _kept_short(line: list[str], words: tuple[str, ...]) -> list[str]:
    """Commands that do much by default are told to do little."""
    if words == ("train",):
        return [*line, *(part for setting in templates.SMALL for part in ("--set", setting)), "--no-report"]
    if words[0] == "bench" and words[-1] in ("knn", "loss", "pool", "train"):
        # A peer or a workload of no such name, since the least of what there is takes many seconds.
        options = {"pool": ["--device", "x"], "train": ["--preset", "x"]}
        return [*line, *options.get(words[-1], ["--peer", "x"])]
    if words == ("bench", "exactness"):
        return [*line, "--cases", "3"]
    if words[0] == "reproduce" and "report" not in line:
        return [*line, "--dataset", "x"]
    if words == ("evaluate",):
        return [*line, "--samples", "9", "--no-report", "--metrics", "projection"]
    return line


def _value(rng: Random, made: Path, folder: Path, parameter: Any) -> str:
    name = parameter.name.strip("_")
    kind = _type_of(parameter)
    if name == "set":
        return rng.choice(_SETTINGS.split())
    if "path" in kind or name in ("run", "images", "out", "resume", "config", "data_root", "rows", "picture"):
        return str(_path(rng, made, folder, name))
    if name in _NAMES and rng.random() < 0.85:
        return rng.choice(_NAMES[name])
    if "int" in kind or "float" in kind or "range" in kind:
        return rng.choice(_LITTLE if name in _WORK.split() else _NUMBERS)
    return rng.choice(_TEXTS)


def _path(rng: Random, made: Path, folder: Path, name: str) -> Path:
    """A path that fits, or one that does not; runs are copies, since commands write into them."""
    if name in ("run", "resume") and rng.random() < 0.8:
        chosen = rng.choice(["run", "image-run", "run-pretrained", "image-run-pretrained"])
        if not (folder / chosen).exists():
            shutil.copytree(made / chosen, folder / chosen)
        return folder / chosen
    if name == "images" and rng.random() < 0.7:
        return made / rng.choice(
            [templates.IMAGES, f"{templates.IMAGES}/png0.png", f"{templates.IMAGES}/jpg1.jpg"]
        )
    if name == "rows" and rng.random() < 0.7:
        return made / "benched" / rng.choice(["train-cpu.json", "loss-cpu.json", "train-processes-cpu.json"])
    if name == "results" and rng.random() < 0.7:
        return made / "reproduced"
    if name in WRITTEN:
        # Never outside of the folder: whoever runs this may be allowed to write everywhere.
        names = ["new", "new.png", "new/deep", "new.json", "\udcff", "", "x" * 300, "[red]", "a\x1b[1m"]
        return folder / rng.choice(names)
    elsewhere = ("", "/", "~nobody/x", "/dev/null", "/dev/full", "/dev/zero", "/proc/self/mem")
    odd = [folder, *map(Path, elsewhere)]
    odd += [folder / name for name in ("missing", "x" * 300, "[red]", "a\x1b[1m")]
    return rng.choice([*odd, made / "run" / "config.yaml", made / templates.IMAGES / "png0.png"])


def _refuse(*_: Any, **__: Any) -> Any:
    raise OSError(101, "Network is unreachable")


def invoke(line: list[str]) -> None:
    """The command in this process; RefusedError where it ends in one clear error, FaultError where in anything else."""
    from naign_cli.main import app
    from typer.testing import CliRunner

    with (
        patch.object(socket.socket, "connect", _refuse),
        patch.object(socket, "getaddrinfo", _refuse),
        patch.dict("os.environ", {"COLUMNS": "200"}),
    ):
        result = CliRunner().invoke(app, line)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    check(result.exit_code, result.stderr)


def check(code: int, errors: str) -> None:
    """RefusedError where a command said in one place what is wrong; FaultError where it did neither that nor well."""
    shown = errors[-3000:]
    if code not in _CODES:
        raise FaultError(f"exit code {code}: {shown}")
    if "Traceback (most recent call last)" in errors:
        raise FaultError(f"a traceback: {shown}")
    if code == 0:
        return
    if code == 1 and _LEFT_OUT.search(errors):
        raise RefusedError(shown)
    found = len(re.findall(r"^(error:|Usage:)", errors, re.MULTILINE))
    begun = errors.rfind("error:")
    if found == 0 and "Error" not in errors:
        raise FaultError(f"exit code {code} without a word: {shown}")
    if begun >= 0 and len(errors[begun:].splitlines()) > MOST_LINES:
        raise FaultError(f"an error of {len(errors[begun:].splitlines())} lines: {shown}")
    if re.search(rf"error: (None|.*?<class|.*?\b({'|'.join(OURS)})\.)", errors):
        raise FaultError(f"words of the program alone: {shown}")
    raise RefusedError(shown)


def command_line(made: Path, rng: Random, folder: Path, say: Say) -> None:
    """One call of one command; one in a hundred as a process of its own."""
    found = all_commands()
    words = rng.choice(sorted(found))
    line = arguments(rng, made, folder, words, found[words])
    say(" ".join(map(repr, line)))
    if rng.random() >= 0.01:
        invoke(line)
        return
    say("as a process")
    # What no shell can pass on is left out.
    words_as_bytes = [os.fsencode(part) for part in line if "\ud800" not in part]
    command = [sys.executable, "-m", "naign_cli", *words_as_bytes]
    ended = subprocess.run(command, capture_output=True, timeout=60, cwd=folder, check=False)
    check(ended.returncode, ended.stderr.decode("utf-8", "replace"))


def kinds(made: Path) -> Kinds:
    """Calls of commands; made: the templates."""
    return {"command": Kind(partial(command_line, made), seconds=60.0)}
