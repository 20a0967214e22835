"""`naign train`: configure, train, evaluate, report; alone or as one of the processes that torchrun starts."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from naign_cli.arguments import Settings
from naign_cli.fields import with_field_flags
from naign_cli.guard import Mistake, guarded
from naign_cli.output import busy, notes, print_files, print_json, print_metrics, results, say
from naign_cli.startup import FAILED

if TYPE_CHECKING:
    from naign_ext.config import TrainConfig
    from naign_ext.distributed.processes import Processes
    from naign_ext.report import Report
    from naign_ext.run import Run
    from naign_ext.training.progress import Progress, TrainResult

Out = Annotated[
    Path | None, typer.Option(metavar="RUN", help="Run folder to write; default runs/DATASET-PRESET.")
]
Resume = Annotated[
    Path | None,
    typer.Option(
        metavar="RUN", help="Continue this run, or RUN/checkpoints/step_..., as if it had never stopped."
    ),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="YAML with the fields below.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")]
Pictures = Annotated[
    bool, typer.Option("--report/--no-report", help="Measure, draw and write RUN/report/ at the end.")
]


@guarded
@with_field_flags("dataset", "preset", "objective.name", "seed", "data_root", "device", "steps")
def train(
    *,
    fields: dict[str, Any],
    out: Out = None,
    resume: Resume = None,
    config: ConfigFile = None,
    set_: Settings = None,
    json: Json = False,
    report: Pictures = True,
) -> None:
    """Train f on a data set, then evaluate it and draw what it does.

    Later wins: defaults, the preset for the data set, --config, flags, --set.

    Ctrl-C or SIGTERM saves and stops (exit code 1); --resume continues.

    Many processes share a run: torchrun --nproc-per-node 2 -m naign_cli train ... (docs/scaling.md).
    """
    from naign_ext.config import overrides, resolve_config
    from naign_ext.distributed.processes import join
    from naign_ext.training.callbacks import default_callbacks
    from naign_ext.training.trainer import Trainer

    if resume is not None:
        _refuse_with_resume({**fields, "out": out, "config": config})
        start: TrainConfig | Mapping[str, Any] = overrides(fields, set_ or ())
    else:
        start = resolve_config(file=config, flags=fields, settings=set_ or ())
    _check_repeatable(out, resume)
    with join() as processes, _watched(processes) as progress:
        run = _begin(start, out, resume, processes)
        result = Trainer(run, default_callbacks(progress)).fit()
    if processes.is_main:
        _finish(run, result, json=json, report=report)
    elif result.status == "interrupted":
        raise typer.Exit(FAILED)


def _refuse_with_resume(given: Mapping[str, Any]) -> None:
    from naign_ext.config import RESUMABLE

    for key, value in given.items():
        if value is not None and key not in RESUMABLE:
            raise Mistake(
                f"--{key.removesuffix('.name')}: cannot be given with --resume; a resumed run keeps its configuration"
                + ("; --data-root tells where its data are now" if key == "dataset" else "")
            )


def _check_repeatable(out: Path | None, resume: Path | None) -> None:
    """torchrun --max-restarts repeats the command as it stands, so the command has to name the run."""
    from naign_ext.distributed.processes import whole_number_from

    if whole_number_from("TORCHELASTIC_MAX_RESTARTS", 0) > 0 and out is None and resume is None:
        raise Mistake(
            "--out: expected a run folder, since torchrun --max-restarts repeats the command and continues the run "
            "that it finds there"
        )


@contextmanager
def _watched(processes: "Processes") -> "Iterator[Progress]":
    """What is told of the run, for the main process on the screen; a lost process is told in words by all others."""
    from naign_cli.progress import watch

    from naign_ext.distributed.processes import ProcessLostError
    from naign_ext.training.progress import Progress
    from naign_ext.training.signals import StopRequest

    # torchrun ends the others when a process is lost; that must not cut short what they say of it.
    with (
        nullcontext() if not processes.is_distributed else StopRequest(),
        watch(notes()) if processes.is_main else nullcontext(Progress()) as progress,
    ):
        try:
            yield progress
        except ProcessLostError as error:
            say("[bold red]error:[/] ", markup=True, end="")
            say(str(error))
            raise typer.Exit(FAILED) from None


def _begin(
    start: "TrainConfig | Mapping[str, Any]",
    out: Path | None,
    resume: Path | None,
    processes: "Processes",
) -> "Run":
    """The run of a configuration, or the one to resume with changes; a job that torchrun has restarted goes on."""
    from naign_ext.checkpoint import run_folder
    from naign_ext.config import TrainConfig
    from naign_ext.distributed.processes import whole_number_from
    from naign_ext.run import Run, is_run

    restarted = whole_number_from("TORCHELASTIC_RESTART_COUNT", 0) > 0
    if isinstance(start, TrainConfig):
        if processes.is_main:
            _name_stand_in(start)
        if restarted and out is not None and processes.on_main(lambda: is_run(out)):
            return Run.open(out, processes=processes)
        return Run.create(start, out or _default_folders(start.dataset, start.preset), processes)
    assert resume is not None
    # A restart takes the last checkpoint, also where the first start was given another one.
    return Run.open(run_folder(resume) if restarted else resume, start, processes)


def _name_stand_in(config: "TrainConfig") -> None:
    """Say where the preset is not the data set's own."""
    from naign_ext.data import OWN_PRESET, find_dataset

    preset = find_dataset(config.dataset)[0].info.preset
    if preset != OWN_PRESET:
        say(f"preset: {config.dataset} has none of its own; that for {preset} stands in")


def _finish(run: "Run", result: "TrainResult", *, json: bool, report: bool) -> None:
    """Evaluate a completed run; an interrupted one is named with the way to continue it."""
    written = _write_report(run) if report and result.status == "completed" else None
    if json:
        print_json(
            {
                "run": result.run,
                "status": result.status,
                "step": result.step,
                "steps": result.steps,
                "seconds": result.seconds,
                "signal": result.signal,
                "checkpoint": result.checkpoint,
                "best": result.best,
                "metrics": written.results.to_json() if written else None,
                "files": written.files if written else [],
            }
        )
    elif written is not None:
        results().print()
        print_metrics(written.results, written.features)
        print_files(written.files, "pictures and tables")
        print_files([result.run / "metrics.jsonl", result.best], "all numbers, and the weights")
    if result.status == "interrupted":
        say(f"stopped by {result.signal} after {result.step} of {result.steps} updates; everything is saved")
        say(f"continue with: naign train --resume {result.run}")
        raise typer.Exit(FAILED)


def _write_report(run: "Run") -> "Report":
    from naign_ext.report import write_report

    with busy("measuring") as told:
        return write_report(run, device=run.config.device, say=told)


def _default_folders(dataset: str, preset: str) -> list[Path]:
    """runs/DATASET-PRESET, and those with a number to take where that is taken."""
    safe = "".join(c if c.isalnum() else "-" for c in dataset.rpartition("/")[2] or dataset).strip("-")
    base = Path("runs") / f"{safe}-{preset}"
    return [base, *(base.with_name(f"{base.name}-{i}") for i in range(2, 10_000))]
