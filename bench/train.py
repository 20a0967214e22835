"""Where the time of an update goes, by preset, and what more processes make of it.

Every run is a process of its own (under torchrun where there are several) that trains for a few updates and
writes the trainer's own account of them; the first window of updates is left out. Runs of one preset take turns.
With several processes the global batch is shared, and in a second row grows with their number. Several objectives
train the same network on the same batches.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from naign_bench import harness
from naign_bench.harness import Absent, Measurement, Results, Row
from torch.nn.modules.batchnorm import _BatchNorm

if TYPE_CHECKING:
    from naign_ext.config import TrainConfig
    from naign_ext.distributed.processes import Processes

PRESETS = ("trimodal1d", "8gaussians", "digits", "mnist5k", "lfw100")
WINDOWS = 6
_LIMIT_S = 1800
_LINK, _LINK_BYTES = "link", 8 << 20
COLUMNS: dict[str, str] = {
    **harness.COLUMNS,
    "preset": "quick, default or paper",
    "objective": "name of the objective",
    "processes": "processes that share the run",
    "batch": "data points in an update, of all processes together",
    "rows": "rows of data",
    "pool": "latents in the pool",
    "resample": "updates between matches of the whole data set; 1 where each batch is matched",
    "matched": "rows of data that a match is for",
    "d": "numbers in a row",
    "passes": "rows that pass f with gradients for each row of the batch",
    "parameters": "parameters of f",
    "batch_norms": "layers of batch normalisation",
    "stages": "seconds of an update by stage, medians over windows",
    "shares": "each stage's part of the median; other: what no stage counts",
    "search_and_loss": "part of the update that search and loss take",
    "images_per_s": "batch over the median",
    "speedup": "images_per_s over that of one process with the same objective",
}


@dataclass
class Run:
    """One way to run a preset: seconds and stages of its windows of updates."""

    name: str
    config: TrainConfig
    processes: int
    batch: int
    seconds: list[float] = field(default_factory=list)
    stages: list[dict[str, float]] = field(default_factory=list)
    error: str | None = None


def run_train(
    datasets: Sequence[str] | None = None,
    *,
    preset: str = "default",
    objectives: Sequence[str] = (),
    processes: Sequence[int] = (),
    settings: Sequence[str] = (),
    updates: int = 20,
    repeats: int = 1,
    device: str = "cpu",
    threads: int | None = None,
    json_path: Path | str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Results:
    """Train each data set's preset for a while and return rows of `COLUMNS` (written to json_path).

    datasets: names; None: `PRESETS`. objectives: names of naign train; none: the preset's. processes: also in so many
    of them. settings: key=value, as for naign train.
    updates: of one window; a run has 6 and the first is left out. repeats: runs of each kind. threads: of each
    process.
    """
    from naign_ext.config import resolve_config

    harness.check_choices(
        device=device,
        dtype="float32",
        processes=min(processes, default=1),
        updates=updates,
        repeats=repeats,
    )
    threads = torch.get_num_threads() if threads is None else threads
    say = progress or (lambda _: None)
    results = Results(harness.environment(device, threads, "train"))
    many = [count for count in processes if count > 1]
    if many:
        say("the link between processes")
        results.header["links"] = {
            str(count): json.loads(_in_processes(count, [_LINK], threads)) for count in many
        }
    for name in PRESETS if datasets is None else datasets:
        runs = []
        for objective in objectives or (None,):
            flags, prefix = {"objective": objective}, f"{objective}, " if objective else ""
            config = resolve_config(name, preset, flags=flags, settings=[*settings, f"device={device}"])
            runs += _runs(config, many, prefix)
        for _ in range(repeats):
            for run in runs:
                say(f"{name} {preset}: {run.name}")
                if run.error is None:
                    _measure(run, updates, threads)
        results.rows += _rows(runs)
        if json_path is not None:
            harness.save(results, json_path)
    return results


def _runs(config: TrainConfig, processes: Sequence[int], prefix: str) -> list[Run]:
    batch = config.batch_size
    runs = [Run(f"{prefix}1 process", config, 1, batch)]
    for count in processes:
        runs.append(Run(f"{prefix}{count} processes", config, count, batch))
        runs.append(Run(f"{prefix}{count} processes, batch x {count}", config, count, count * batch))
    return runs


def _measure(run: Run, updates: int, threads: int) -> None:
    """One run in processes of its own; its windows are added."""
    from naign_ext.config import save_config
    from naign_ext.metrics_log import read_metrics

    log = run.config.log.model_copy(
        update={
            "every": updates,
            "samples_every": 0,
            "checkpoint_every": 0,
            "tensorboard": False,
            "exact_cost": True,
        }
    )
    changes = {"steps": WINDOWS * updates, "batch_size": run.batch, "log": log}
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder) / "config.yaml", Path(folder) / "run"
        save_config(run.config.model_copy(update=changes), file)
        try:
            _in_processes(run.processes, [str(file), str(out)], threads)
        except RuntimeError as error:
            run.error = str(error)
            return
        records = [r for r in read_metrics(out) if r["kind"] == "train"]
    for before, after in itertools.pairwise(records):
        run.seconds.append((after["seconds"] - before["seconds"]) / updates)
        run.stages.append(after["cost"])


def _in_processes(count: int, arguments: Sequence[str], threads: int) -> str:
    """Standard output of this module run in so many processes; RuntimeError with the first error they tell."""
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(count), "-m"]
    done = subprocess.run(
        [sys.executable, "-m", *(torchrun if count > 1 else []), "naign_bench.train", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.splitlines()
        raise RuntimeError(
            next((line for line in lines if "Error:" in line), lines[-1] if lines else "no word")
        )
    return done.stdout


def _rows(runs: Sequence[Run]) -> list[Row]:
    rows = []
    for run in runs:
        problem = describe(run.config)
        columns = {
            **dict.fromkeys(COLUMNS),
            **problem,
            "matched": problem["rows"] if problem["matched"] == "rows" else run.batch,
            "workload": run.config.dataset,
            "shape": [run.batch, problem["pool"] or 0, problem["d"]],
            "dtype": "float32",
            "peer": run.name,
            "processes": run.processes,
            "batch": run.batch,
        }
        outcome = Absent(run.name, run.error) if run.error else Measurement(run.seconds)
        row = harness.row(columns, outcome)
        if row["status"] == "ok":
            row |= _accounts(run, row["median_s"])
        rows.append(row)
    alone = {row["objective"]: row["images_per_s"] for row in rows if row["processes"] == 1}
    for row in rows:
        one = alone[row["objective"]]
        row["speedup"] = row["images_per_s"] / one if one and row["images_per_s"] else None
    return rows


def _accounts(run: Run, median: float) -> dict[str, Any]:
    stages = {name: statistics.median(s[name] for s in run.stages) for name in run.stages[0]}
    other = max(0.0, median - sum(stages.values()))
    shares = {name: seconds / median for name, seconds in {**stages, "other": other}.items()}
    return {
        "stages": stages,
        "shares": shares,
        "search_and_loss": shares["search"] + shares["loss"],
        "images_per_s": run.batch / median,
    }


def describe(config: TrainConfig) -> dict[str, Any]:
    """What the cost of a run depends on, by the names of `COLUMNS`."""
    from naign_ext.models import build_model, parameter_count
    from naign_ext.run import load_configured
    from naign_ext.training.batches import with_copies

    data = with_copies(load_configured(config).train, config)
    with torch.random.fork_rng(devices=[]):
        f = build_model(config.model.architecture, data.shape[1:], **config.model.build_options())
    options = config.objective
    pool = getattr(options, "pool_size", None)
    whole = getattr(options, "match", "batch") in ("dataset", "adaptive")
    terms = 2 + sum(getattr(options, f"{name}_weight", 0) > 0 for name in ("denoise", "restore"))
    counts = {
        "projection": getattr(options, "projected", 0),
        "foreign": getattr(options, "foreign_samples", 0),
    }
    beside = sum(n for name, n in counts.items() if getattr(options, f"{name}_weight", 0))
    return {
        "preset": config.preset,
        "objective": options.name,
        "rows": len(data),
        "pool": pool,
        "resample": getattr(options, "resample_every", 1) if whole else 1,
        "matched": "rows" if whole else "batch",
        "d": data[0].numel(),
        "passes": (1 if options.name == "imle" else terms) + beside / config.batch_size,
        "parameters": parameter_count(f),
        "batch_norms": sum(isinstance(module, _BatchNorm) for module in f.modules()),
    }


def main(arguments: Sequence[str]) -> None:
    """What each process of a measurement does: time the link, or run a configuration file into a folder."""
    from naign_ext.config import load_config
    from naign_ext.training.trainer import train

    if arguments[0] == _LINK:
        _time_link()
    else:
        train(load_config(arguments[0]), arguments[1])


def _time_link() -> None:
    """Print the latency of a hop and the bytes a second of an all_reduce between the processes."""
    from naign_ext.distributed.processes import join

    with join() as processes:
        small, large = torch.zeros(1), torch.zeros(_LINK_BYTES // 4)
        short, long = (_seconds_of_sum(values, processes) for values in (small, large))
        part = (processes.world_size - 1) / processes.world_size
        found = {
            "latency_s": short / (2 * math.log2(processes.world_size)),
            "bytes_per_s": 2 * part * _LINK_BYTES / max(long - short, 1e-9),
        }
        if processes.is_main:
            print(json.dumps(found))


def _seconds_of_sum(values: torch.Tensor, processes: Processes, times: int = 30) -> float:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        processes.shard.sum(values)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[times // 3 :])


if __name__ == "__main__":
    main(sys.argv[1:])
