"""Runs that are killed at any moment and resumed: the weights must be those of a run that was never stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch

from faults import templates
from faults.verdicts import FaultError
from faults.workers import quiet

Say = Callable[[str], None]
MOST_KILLS = 6
RUNS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "kept match": ("objective.match=dataset", "objective.resample_every=3"),
    "warm start": ("objective.match=dataset", "objective.resample_every=3", "objective.warm_start=true"),
    "adaptive": ("objective=adaptive-imle",),
    "normalised": ("model.normalisation=batch", "model.activation=silu"),
    "often saved": ("log.checkpoint_every=1", "log.every=1"),
    "never saved": ("log.checkpoint_every=0",),
}  # fmt: skip


@dataclass(frozen=True)
class Uninterrupted:
    """A run that was never stopped: what others must end with, and how long one takes."""

    settings: tuple[str, ...]
    tensors: dict[str, dict[str, Any]]
    records: list[dict[str, Any]]
    seconds: float


def settings_of(name: str) -> tuple[str, ...]:
    from naign_ext.objectives import OBJECTIVES

    given = tuple(s for s in RUNS[name] if not s.startswith("objective=") or s[10:] in OBJECTIVES)
    return ("steps=40", *given)


def uninterrupted(name: str, folder: Path) -> Uninterrupted:
    """The run of that name, once."""
    settings = settings_of(name)
    out = folder / name.replace(" ", "-")
    began = time.monotonic()
    _in_child(lambda: _train(settings, out), None)
    return Uninterrupted(settings, _weights(out), _records(out), time.monotonic() - began)


def _train(settings: tuple[str, ...], out: Path) -> None:
    """Begin the run, or go on with it."""
    from naign_ext.run import is_run
    from naign_ext.training.trainer import resume, train

    if is_run(out):
        resume(out)
    else:
        train(templates.configuration(templates.PLANE, *settings), out)


def _in_child(do: Callable[[], None], after: float | None, report: Path | None = None) -> bool:
    """do in a process of its own, killed after so many seconds; whether it came to its end.

    Raises Fault where it fails otherwise than by the kill.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = 3
        try:
            with quiet():
                do()
            status = 0
        except BaseException as error:
            if report is not None:
                report.write_text(f"{type(error).__name__}: {error}")
        finally:
            os._exit(status)
    if after is not None:
        time.sleep(after)
        os.kill(pid, signal.SIGKILL)
    return _ended(os.waitpid(pid, 0)[1], report)


def _ended(status: int, report: Path | None = None) -> bool:
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    if status != 0:
        told = report.read_text() if report is not None and report.exists() else ""
        raise FaultError(f"a run that was killed does not go on: {told or f'status {status}'}")
    return True


def _weights(run: Path) -> dict[str, dict[str, Any]]:
    from naign_ext.checkpoint import load_checkpoint

    return load_checkpoint(run, "last").tensors


def _records(run: Path) -> list[dict[str, Any]]:
    """Of metrics.jsonl, without times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_s", "cost")} for line in lines]


def kill_and_resume(
    rng: Random, folder: Path, expected: Uninterrupted, say: Say, *, as_process: bool = False
) -> int:
    """A run with kills at random moments; how many hit it. Fault where it ends with other bits or records."""
    out, kills = folder / "run", 0
    wanted = 1 if as_process else rng.randrange(1, MOST_KILLS + 1)
    for _ in range(wanted):
        if as_process:
            hit = _kill_process(rng, out, expected, say)
        else:
            after = rng.random() * 1.1 * expected.seconds
            say(f"killed after {after:.3f} s")
            hit = not _in_child(lambda: _train(expected.settings, out), after, folder / "error")
        kills += hit
        if not hit:
            break
    _in_child(lambda: _train(expected.settings, out), None, folder / "error")
    compare(out, expected)
    return kills


def _kill_process(rng: Random, out: Path, expected: Uninterrupted, say: Say) -> bool:
    """The command itself, killed from its very start on."""
    settings = [part for s in (*templates.SMALL, *expected.settings) for part in ("--set", s)]
    command = [
        sys.executable,
        "-m",
        "naign_cli",
        "train",
        "--dataset",
        templates.PLANE,
        *settings,
        "--no-report",
    ]
    child = subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    after = rng.random() * 8
    say(f"the command, killed after {after:.3f} s")
    try:
        child.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
    return child.returncode != 0


def compare(run: Path, expected: Uninterrupted) -> None:
    """Fault unless the run ended with the very bits and records of the one that was never stopped."""
    found = _weights(run)
    for file, tensors in expected.tensors.items():
        for name, value in tensors.items():
            if name not in found[file] or not torch.equal(found[file][name], value):
                raise FaultError(f"{file}.safetensors: {name} is another than without the kills")
    if _records(run) != expected.records:
        raise FaultError("metrics.jsonl has other records than without the kills")
    left = [p.name for p in (run / "checkpoints").iterdir() if p.name.startswith(".")]
    if left:
        raise FaultError(f"left among the checkpoints: {left}")
