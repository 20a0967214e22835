"""Trained and judged runs, each in a folder named by a hash of what determines it, reused when it is there."""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, Literal

import torch

from naign_ext.checkpoint import checkpoint_paths, load_checkpoint
from naign_ext.config import TrainConfig
from naign_ext.data import Dataset
from naign_ext.evaluation import Results, evaluate
from naign_ext.evaluation.flat_keys import read_results, results_of
from naign_ext.evaluation.registry import chosen_metrics
from naign_ext.json_files import mend_last_line, read_json, reading, write_json
from naign_ext.options import shown
from naign_ext.projector import Projector
from naign_ext.run import load_configured
from naign_ext.training.progress import Progress
from naign_ext.training.trainer import NonFiniteLossError, resume, train
from naign_ext.untrusted import DamagedFileError, parse_json, read_damageable

REVISION = 1
"""Raise it when training or judging changes so much that finished runs must not be reused."""

JUDGE_SEED = 0
CURVE_SAMPLES = 1000
_CURVE_METRICS = ("fld", "classes")
_UNHASHED = ("log", "data_parameters", "device", "data_root", "preset")


@dataclass(frozen=True)
class Job:
    """A run to train and judge.

    metrics: names that :func:`naign_ext.evaluation.evaluate` takes, None for all. baselines: judge those of its data
    too. judged_on_all: against the whole training set, where the run was trained on a part of it. curve: judge the
    samples at every checkpoint too.
    """

    config: TrainConfig
    metrics: Collection[str] | None = None
    baselines: bool = False
    judged_on_all: bool = False
    curve: bool = False

    def with_more(self, metrics: Collection[str] | None, *, baselines: bool) -> "Job":
        """The same, judged by further metrics."""
        union = chosen_metrics(self.metrics) | chosen_metrics(metrics)
        return replace(self, metrics=union, baselines=self.baselines or baselines)


@dataclass(frozen=True)
class CurvePoint:
    """What the samples at a checkpoint scored."""

    step: int
    results: Results


@dataclass(frozen=True)
class Run:
    """A finished run. status diverged: a loss or gradient was not finite; then there are no results.

    curve: of each checkpoint that was judged, by step.
    """

    folder: Path
    config: TrainConfig
    status: Literal["completed", "diverged"]
    results: Results
    curve: list[CurvePoint] = field(default_factory=list)

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
        known = unique.get(key, job)
        unique[key] = job.with_more(known.metrics, baselines=known.baselines)
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
    outcome = _outcome(folder)
    if outcome is None:
        return False
    return outcome["status"] == "diverged" or _judgement(job, folder) is not None


def _outcome(folder: Path) -> dict[str, Any] | None:
    """How the run ended, if it did."""
    file = folder / "outcome.json"
    outcome = read_json(file)
    if outcome is not None and outcome.get("status") not in ("completed", "diverged"):
        raise DamagedFileError(
            file, f"status: expected completed or diverged, got {shown(outcome.get('status'))}"
        )
    return outcome


def carry_out(job: Job, root: Path) -> Run:
    """Train, judge, or read what is there already."""
    folder = root / run_name(job.config)
    outcome = _outcome(folder) or _train(job, folder)
    results = Results()
    if outcome["status"] == "completed":
        judged = _judgement(job, folder)
        results = _judge_anew(job, folder) if judged is None else judged
    return Run(folder, job.config, outcome["status"], results, read_curve(folder, job.config))


def _judgement(job: Job, folder: Path) -> Results | None:
    """The results there are, where they have all that the job asks for."""
    file = folder / _judgement_file(job)
    judged = read_json(file)
    if judged is None:
        return None
    with reading(file):
        metrics, baselines = _asked(judged)
        if chosen_metrics(job.metrics) <= metrics and (baselines or not job.baselines):
            return read_results(judged)
    return None


def _asked(judged: Mapping[str, Any]) -> tuple[frozenset[str], bool]:
    """What a judgement was asked for: metrics, and whether also baselines, among the parts of naign 0.1 the anchors."""
    if "parts" not in judged:
        return frozenset(judged["asked"]), judged["baselines"]
    return chosen_metrics(set(judged["parts"]) - {"anchors"}), "anchors" in judged["parts"]


def _judge_anew(job: Job, folder: Path) -> Results:
    """Judge by what the job asks for and by what the run was judged by before."""
    file = folder / _judgement_file(job)
    known = read_json(file)
    if known is not None:
        with reading(file):
            metrics, baselines = _asked(known)
            job = job.with_more(metrics, baselines=baselines)
    results = judge(job, folder)
    asked = {"asked": sorted(chosen_metrics(job.metrics)), "baselines": job.baselines}
    write_json(folder / _judgement_file(job), {**asked, "metrics": results.to_json()})
    return results


def judge(job: Job, folder: Path) -> Results:
    """What the run's best checkpoint scores on the test part of its data."""
    projector = Projector.load(folder, "cpu")
    dataset = judged_data(job.config, judged_on_all=job.judged_on_all)
    try:
        results = evaluate(
            projector.f,
            dataset,
            seed=JUDGE_SEED,
            latent_scale=projector.latent_scale,
            metrics=job.metrics,
            baselines=job.baselines,
        )
    except ValueError as error:
        if "finite" not in str(error):
            raise
        return Results()
    return results.finite()


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
    """Judges the samples at every checkpoint and keeps the rows in curve.jsonl, one line a step."""

    def __init__(self, job: Job, folder: Path) -> None:
        self._dataset = judged_data(job.config)
        self._file = folder / "curve.jsonl"

    def wrote(self, kind: str, path: Path) -> None:
        """See :meth:`Progress.wrote`."""
        if kind != "checkpoint":
            return
        checkpoint = load_checkpoint(path)
        try:
            results = evaluate(
                checkpoint.build(),
                self._dataset,
                seed=JUDGE_SEED,
                samples=CURVE_SAMPLES,
                latent_scale=checkpoint.latent_scale,
                metrics=_CURVE_METRICS,
                baselines=False,
            )
        except ValueError as error:
            if "finite" not in str(error):
                raise
            results = Results()
        mend_last_line(self._file)
        with self._file.open("a", encoding="ascii") as file:
            file.write(json.dumps({"step": checkpoint.step, "metrics": results.finite().to_json()}) + "\n")


def read_curve(folder: Path, config: TrainConfig) -> list[CurvePoint]:
    """The results at each checkpoint that every seed has, by step; of a step that was judged twice the last.

    A run that was interrupted has a checkpoint of its own, where it was stopped.
    """
    file = folder / "curve.jsonl"
    if not os.path.lexists(file):
        return []
    by_step: dict[int, CurvePoint] = {}
    with reading(file):
        # What a crash cut off has no end of line.
        for line in read_damageable(file).split(b"\n")[:-1]:
            record = parse_json(line)
            by_step[int(record["step"])] = _curve_point(record)
    every = config.log.checkpoint_every or config.steps
    due = (step for step in by_step if step % every == 0 or step == config.steps)
    return [by_step[step] for step in sorted(due)]


def _curve_point(record: Mapping[str, Any]) -> CurvePoint:
    """Lines of naign 0.1 hold flat keys beside the step."""
    if "metrics" in record:
        return CurvePoint(record["step"], read_results(record))
    return CurvePoint(record["step"], results_of({k: v for k, v in record.items() if k != "step"}))


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
