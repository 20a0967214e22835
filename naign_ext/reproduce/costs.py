"""What an update of each method costs: short runs that take turns, so that a busy machine is busy for all of them."""

import hashlib
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from naign_ext.config import TrainConfig
from naign_ext.json_files import read_json, write_json
from naign_ext.metrics_log import read_metrics
from naign_ext.reproduce.runs import InterruptedRunError, run_name
from naign_ext.training.trainer import NonFiniteLossError, train

Stages = dict[str, float]
"""Seconds of an update by stage, validation and checkpoints not among them."""

WINDOWS, WINDOW = 4, 10
"""Records of a short run, and updates of a record: a match that presets keep for 10 updates is due once in each."""


def costs_in_turns(
    configs: Mapping[str, TrainConfig], root: Path, *, rounds: int, threads: int | None
) -> dict[str, Stages]:
    """Seconds of an update by stage for each method: medians over all records of its runs, the first of each left out.

    Measured once: kept in a file of ``root`` under the names of the runs. A method that diverges at once has no cost.

    rounds: short runs of each method. threads: of torch meanwhile; None: as they are.
    """
    names = "".join(f"{method}={run_name(config)} " for method, config in configs.items())
    file = root / f"{hashlib.sha256(names.encode()).hexdigest()[:12]}.json"
    known = read_json(file)
    if known is not None:
        return known
    records: dict[str, list[Stages]] = {method: [] for method in configs}
    with _threads(threads):
        for _ in range(rounds):
            for method, config in configs.items():
                records[method] += _records(config)
    found = {method: _medians(rows) for method, rows in records.items() if rows}
    write_json(file, found)
    return found


def seconds_of(stages: Stages) -> float:
    """Seconds of an update."""
    return sum(stages.values())


def _records(config: TrainConfig) -> list[Stages]:
    log = config.log.model_copy(update={"every": WINDOW, "samples_every": 0, "checkpoint_every": 0})
    config = config.model_copy(update={"steps": WINDOWS * WINDOW, "log": log})
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        try:
            result = train(config, run)
        except NonFiniteLossError:
            return []
        if result.status == "interrupted":
            raise InterruptedRunError
        rows = [record["cost"] for record in read_metrics(run) if record["kind"] == "train"]
    return rows[1:]


def _medians(rows: list[Stages]) -> Stages:
    return {stage: statistics.median(row[stage] for row in rows) for stage in rows[0]}


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
