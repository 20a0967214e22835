"""`naign train`: configure, train, judge, report; alone or as one of the processes that torchrun starts."""

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from naign_cli.guard import FAILED, Mistake, guarded
from naign_cli.output import notes, print_files, print_json, print_metrics, results, say
from typer.core import TyperCommand

if TYPE_CHECKING:
    from naign_ext.config.schema import TrainConfig
    from naign_ext.distributed.processes import Processes
    from naign_ext.report import Report
    from naign_ext.training.progress import Progress, TrainResult


class TrainCommand(TyperCommand):
    """Adds every field of the configuration to the help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Options first, then the fields in groups."""
        super().format_help(ctx, formatter)
        from naign_cli.fields import print_fields

        print_fields(results())


def _datasets(incomplete: str) -> list[str]:
    from naign_ext.data import dataset_names

    return [name for name in [*dataset_names(), "folder:"] if name.startswith(incomplete)]


def _presets(incomplete: str) -> list[str]:
    from naign_ext.config.presets import PRESETS

    return [name for name in PRESETS if name.startswith(incomplete)]


def _objectives(incomplete: str) -> list[str]:
    from naign_ext.objectives import OBJECTIVES

    return [name for name in OBJECTIVES if name.startswith(incomplete)]


Dataset = Annotated[
    str | None,
    typer.Option(help="Data set by name, or folder:PATH; see naign data list.", autocompletion=_datasets),
]
Preset = Annotated[
    str | None,
    typer.Option(help="quick, default or paper; chosen for the data set.", autocompletion=_presets),
]
ObjectiveName = Annotated[
    str | None,
    typer.Option(
        help="What is minimised: naign, ign, imle, adaptive-imle, rs-imle, matching.",
        autocompletion=_objectives,
    ),
]
Seed = Annotated[int | None, typer.Option(help="Seed of weights, latents, noise and the order of the data.")]
Out = Annotated[
    Path | None, typer.Option(metavar="RUN", help="Run folder to write; default runs/DATASET-PRESET.")
]
DataRoot = Annotated[Path | None, typer.Option(help="Folder or archive that holds the data, where needed.")]
Resume = Annotated[
    Path | None,
    typer.Option(
        metavar="RUN", help="Continue this run, or RUN/checkpoints/step_..., as if it had never stopped."
    ),
]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Steps = Annotated[int | None, typer.Option(help="Updates of the weights.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="YAML with the fields below.")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any field below; may be repeated.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")]
Pictures = Annotated[
    bool, typer.Option("--report/--no-report", help="Measure, draw and write RUN/report/ at the end.")
]


@guarded
def train(
    *,
    dataset: Dataset = None,
    preset: Preset = None,
    objective: ObjectiveName = None,
    seed: Seed = None,
    out: Out = None,
    data_root: DataRoot = None,
    resume: Resume = None,
    device: Device = None,
    steps: Steps = None,
    config: ConfigFile = None,
    set_: Settings = None,
    json: Json = False,
    report: Pictures = True,
) -> None:
    """Train f on a data set, then judge it and draw what it does.

    Later wins: defaults, the preset for the data set, --config, flags, --set.

    Ctrl-C or SIGTERM saves and stops (exit code 1); --resume continues.

    Many processes share a run: torchrun --nproc-per-node 2 -m naign_cli train ... (docs/scaling.md).
    """
    from naign_ext.config.schema import resolve_config
    from naign_ext.distributed.processes import join

    flags = {"device": device, "steps": steps, "data_root": None if data_root is None else str(data_root)}
    if resume is not None:
        given = {"dataset": dataset, "preset": preset, "objective": objective, "seed": seed, "out": out}
        refused = [name for name, value in {**given, "config": config}.items() if value is not None]
        if refused:
            raise Mistake(
                f"--{refused[0]}: cannot be given with --resume; a resumed run keeps its configuration"
            )
        start: TrainConfig | Mapping[str, Any] = _changes(flags, set_ or [])
    else:
        start = resolve_config(
            dataset,
            preset,
            file=config,
            flags={**flags, "objective": objective, "seed": seed},
            settings=set_ or (),
        )
    _check_repeatable(out, resume)
    with join() as processes:
        result = _run(start, out, resume, processes)
    if processes.is_main:
        _finish(result, json=json, report=report)
    elif result.status == "interrupted":
        raise typer.Exit(FAILED)


def _check_repeatable(out: Path | None, resume: Path | None) -> None:
    """torchrun --max-restarts repeats the command as it stands, so the command has to name the run."""
    if int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0 and out is None and resume is None:
        raise Mistake(
            "--out: expected a run folder, since torchrun --max-restarts repeats the command and continues the run "
            "that it finds there"
        )


def _run(
    start: "TrainConfig | Mapping[str, Any]",
    out: Path | None,
    resume: Path | None,
    processes: "Processes",
) -> "TrainResult":
    """A new run of a configuration, or the resumed one with changes; the first process is watched."""
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
            return _start(start, out, resume, processes, progress)
        except ProcessLostError as error:
            say("[bold red]error:[/] ", end="")
            say(str(error), markup=False)
            raise typer.Exit(FAILED) from None


def _start(
    start: "TrainConfig | Mapping[str, Any]",
    out: Path | None,
    resume: Path | None,
    processes: "Processes",
    progress: "Progress",
) -> "TrainResult":
    """Train, or resume; a job that torchrun has restarted continues what it began."""
    from naign_ext.checkpoint import run_folder
    from naign_ext.config.schema import TrainConfig
    from naign_ext.training import trainer

    restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    if isinstance(start, TrainConfig):
        folder = processes.on_main(lambda: out or _free_folder(start.dataset, start.preset))
        if not (restarted and processes.on_main((folder / "config.yaml").is_file)):
            return trainer.train(start, folder, progress=progress)
        return trainer.resume(folder, progress=progress)
    assert resume is not None
    # A restart takes the last checkpoint, also where the first start was given another one.
    return trainer.resume(run_folder(resume) if restarted else resume, changes=start, progress=progress)


def _finish(result: "TrainResult", *, json: bool, report: bool) -> None:
    """Judge a completed run; an interrupted one is named with the way to continue it."""
    written = _write_report(result) if report and result.status == "completed" else None
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
        say(f"continue with: naign train --resume {result.run}", markup=False)
        raise typer.Exit(FAILED)


def _write_report(result: "TrainResult") -> "Report":
    from naign_ext.report import write_report
    from naign_ext.run import Run

    run = Run.open(result.run)
    with notes().status("measuring") as status:
        return write_report(run, device=run.config.device, say=status.update)


def _free_folder(dataset: str, preset: str) -> Path:
    """runs/DATASET-PRESET, with a number where that is taken."""
    safe = "".join(c if c.isalnum() else "-" for c in dataset.rpartition("/")[2] or dataset).strip("-")
    base = Path("runs") / f"{safe}-{preset}"
    candidates = (base if i == 1 else base.with_name(f"{base.name}-{i}") for i in range(1, 10_000))
    return next(folder for folder in candidates if not folder.exists())


def _changes(flags: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Flags and key=value settings as nested values."""
    import yaml

    changes: dict[str, Any] = {key: value for key, value in flags.items() if value is not None}
    for text in settings:
        key, separator, value = text.partition("=")
        if not separator:
            raise Mistake(f"--set: expected key=value, got {text!r}")
        *sections, name = key.strip().split(".")
        offset = changes
        for section in sections:
            offset = offset.setdefault(section, {})
        offset[name] = yaml.safe_load(value)
    return changes
