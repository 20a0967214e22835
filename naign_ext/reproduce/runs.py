"""Trained and judged runs, each in a folder named by a hash of what determines it, reused when it is there."""

import hashlib
import json
import math
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, Literal

import torch

from naign_ext.checkpoint import checkpoint_paths, load_checkpoint
from naign_ext.config.schema import TrainConfig
from naign_ext.data import Dataset
from naign_ext.evaluation import PARTS, evaluate
from naign_ext.json_files import read_json, write_json
from naign_ext.projector import Projector
from naign_ext.reproduce.baselines import restoration_baselines
from naign_ext.run import load_configured
from naign_ext.training.progress import Progress
from naign_ext.training.trainer import NonFiniteLossError, resume, train

REVISION = 1
"""Raise it when training or judging changes so much that finished runs must not be reused."""

JUDGE_SEED = 0
CURVE_SAMPLES = 1000
_CURVE_PARTS = ("fld", "classes")
_UNHASHED = ("log", "data_parameters", "device", "data_root", "preset")

ALL_BUT_ANCHORS: tuple[str, ...] = tuple(part for part in PARTS if part != "anchors")

Figures = dict[str, float]


@dataclass(frozen=True)
class Job:
    """A run to train and judge.

    parts: of :func:`naign_ext.evaluation.evaluate`; with "anchors" the trivial baselines of its data are judged too.
    judged_on_all: against the whole training set, where the
    run was trained on a part of it. curve: judge the samples at every checkpoint too.
    """

    config: TrainConfig
    parts: tuple[str, ...] = ALL_BUT_ANCHORS
    judged_on_all: bool = False
    curve: bool = False


@dataclass(frozen=True)
class Run:
    """A finished run. status diverged: a loss or gradient was not finite; then there are no figures.

    curve: figures of the samples at each checkpoint, with their "step".
    """

    folder: Path
    config: TrainConfig
    status: Literal["completed", "diverged"]
    figures: Figures
    curve: list[Figures] = field(default_factory=list)

    def projector(self) -> Projector:
        """The f that was judged."""
        return Projector.load(self.folder, "cpu")


class InterruptedRunError(KeyboardInterrupt):
    """A run was stopped by a signal; it is saved and continues at the next call."""


def run_name(config: TrainConfig) -> str:
    """Folder name: data set, objective, and a hash of all that determines the weights."""
    values = config.model_dump(mode="json", exclude=set(_UNHASHED))
    text = json.dumps({"revision": REVISION, **values}, sort_keys=True)
    safe = "".join(c if c.isalnum() else "-" for c in config.dataset)[-40:]
    return f"{safe}-{config.objective.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def carry_out_all(jobs: Sequence[Job], root: Path, *, workers: int, say: Callable[[str], None]) -> list[Run]:
    """The runs of the jobs, in their order; equal jobs are carried out once, unfinished runs continued.

    workers: processes, one thread each; 1 stays in this process, with its threads.
    """
    unique: dict[tuple[str, bool], Job] = {}
    for job in jobs:
        key = (run_name(job.config), job.judged_on_all)
        parts = (*unique[key].parts, *job.parts) if key in unique else job.parts
        unique[key] = replace(job, parts=tuple(dict.fromkeys(parts)))
    missing = {key: job for key, job in unique.items() if not is_finished(job, root)}
    found: dict[tuple[str, bool], Run] = {}
    if missing:
        say(f"{len(missing)} of {len(unique)} runs to train or judge")
    if workers > 1 and len(missing) > 1:
        found |= _in_processes(missing, root, workers, say)
    for key, job in unique.items():
        if key not in found:
            if key in missing:
                say(f"training {key[0]}")
            found[key] = carry_out(job, root)
    return [found[(run_name(job.config), job.judged_on_all)] for job in jobs]


def _in_processes(
    missing: dict[tuple[str, bool], Job], root: Path, workers: int, say: Callable[[str], None]
) -> dict[tuple[str, bool], Run]:
    found = {}
    # Two jobs that share a folder must not run at once: the second judges what the first has trained.
    first: dict[str, tuple[str, bool]] = {}
    for name, on_all in missing:
        first.setdefault(name, (name, on_all))
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin_worker)
    try:
        futures = {pool.submit(carry_out, missing[key], root): key for key in first.values()}
        for number, future in enumerate(as_completed(futures), start=1):
            found[futures[future]] = future.result()
            say(f"{number}/{len(futures)} {futures[future][0]}")
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return found


def _begin_worker() -> None:
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Else the run of a killed reproduction would go on, beside the next reproduction's in the same folder."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def is_finished(job: Job, root: Path) -> bool:
    """Whether the job's run is trained and judged."""
    folder = root / run_name(job.config)
    outcome = read_json(folder / "outcome.json")
    if outcome is None:
        return False
    judged = read_json(folder / _judgement_file(job))
    return outcome["status"] == "diverged" or (judged is not None and set(job.parts) <= set(judged["parts"]))


def carry_out(job: Job, root: Path) -> Run:
    """Train, judge, or read what is there already."""
    folder = root / run_name(job.config)
    outcome = read_json(folder / "outcome.json") or _train(job, folder)
    figures: Figures = {}
    if outcome["status"] == "completed":
        judged = read_json(folder / _judgement_file(job))
        if judged is None or not set(job.parts) <= set(judged["parts"]):
            known = judged or {"parts": []}
            job = replace(job, parts=tuple(dict.fromkeys((*known["parts"], *job.parts))))
            judged = {"parts": job.parts, "figures": judge(job, folder)}
            write_json(folder / _judgement_file(job), judged)
        figures = judged["figures"]
    return Run(
        folder,
        job.config,
        outcome["status"],
        figures,
        read_curve(folder, job.config),
    )


def judge(job: Job, folder: Path) -> Figures:
    """The figures of the run's best checkpoint on the test part of its data."""
    projector = Projector.load(folder, "cpu")
    dataset = judged_data(job.config, judged_on_all=job.judged_on_all)
    try:
        figures = evaluate(
            projector.f, dataset, seed=JUDGE_SEED, latent_scale=projector.latent_scale, parts=job.parts
        )
    except ValueError as error:
        if "finite" not in str(error):
            raise
        return {}
    if {"anchors", "restoration"} <= set(job.parts) and dataset.kind == "image":
        figures |= restoration_baselines(dataset, JUDGE_SEED)
    return {key: value for key, value in figures.items() if math.isfinite(value)}


def judged_data(config: TrainConfig, *, judged_on_all: bool = False) -> Dataset:
    """The data a run is judged on: held-out rows that chose nothing."""
    if judged_on_all:
        config = config.model_copy(update={"train_rows": None})
    return load_configured(config).for_test()


def _train(job: Job, folder: Path) -> dict[str, Any]:
    progress = _Curve(job, folder) if job.curve else Progress()
    started = (folder / "config.yaml").is_file()
    try:
        result = (
            resume(folder, progress=progress) if started else train(job.config, folder, progress=progress)
        )
    except NonFiniteLossError as error:
        outcome = {"status": "diverged", "step": error.step, "term": error.term}
    else:
        if result.status == "interrupted":
            raise InterruptedRunError
        outcome = {"status": "completed", "step": result.step, "seconds": round(result.seconds, 3)}
    write_json(folder / "outcome.json", outcome)
    _keep_judged_checkpoint(folder)
    return outcome


class _Curve(Progress):
    """Judges the samples at every checkpoint and keeps the figures in curve.jsonl, one line a step."""

    def __init__(self, job: Job, folder: Path) -> None:
        self._dataset = judged_data(job.config)
        self._file = folder / "curve.jsonl"

    def wrote(self, kind: str, path: Path) -> None:
        """See :meth:`Progress.wrote`."""
        if kind != "checkpoint":
            return
        checkpoint = load_checkpoint(path)
        try:
            figures = evaluate(
                checkpoint.build(),
                self._dataset,
                seed=JUDGE_SEED,
                samples=CURVE_SAMPLES,
                latent_scale=checkpoint.latent_scale,
                parts=_CURVE_PARTS,
            )
        except ValueError as error:
            if "finite" not in str(error):
                raise
            figures = {}
        with self._file.open("a", encoding="ascii") as file:
            file.write(json.dumps({"step": checkpoint.step, **_finite(figures)}) + "\n")


def read_curve(folder: Path, config: TrainConfig) -> list[Figures]:
    """The figures at each checkpoint that every seed has, by step; of a step that was judged twice the last.

    A run that was interrupted has a checkpoint of its own, where it was stopped.
    """
    file = folder / "curve.jsonl"
    if not file.is_file():
        return []
    by_step: dict[float, Figures] = {}
    for line in file.read_text(encoding="ascii").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        by_step[record["step"]] = record
    every = config.log.checkpoint_every or config.steps
    due = (step for step in by_step if step % every == 0 or step == config.steps)
    return [by_step[step] for step in sorted(due)]


def _keep_judged_checkpoint(folder: Path) -> None:
    """Remove all checkpoints but the judged one: a finished run is not trained on, and there are hundreds."""
    paths = checkpoint_paths(folder)
    if not paths:
        return
    best = load_checkpoint(folder, "best").path
    for path in paths:
        if path != best:
            for file in path.iterdir():
                file.unlink()
            path.rmdir()


def _judgement_file(job: Job) -> str:
    return "figures-all.json" if job.judged_on_all else "figures.json"


def _finite(figures: Figures) -> Figures:
    return {key: value for key, value in figures.items() if math.isfinite(value)}
