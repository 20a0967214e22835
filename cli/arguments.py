"""Options that several commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer
from naign_cli.guard import Mistake

if TYPE_CHECKING:
    from naign_ext.data import Dataset
    from naign_ext.projector import Projector
    from naign_ext.run import Run as OpenRun

Run = Annotated[
    Path, typer.Argument(metavar="RUN", help="Run folder, a checkpoint's folder, or one of save_pretrained.")
]
Inputs = Annotated[
    list[Path] | None, typer.Argument(metavar="[IMAGE]...", help="Image files, or folders of them.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Weights = Annotated[str, typer.Option(help="ema: their running average; model: the last weights.")]
Checkpoint = Annotated[str, typer.Option(help="best, last, or a step.")]
Seed = Annotated[int, typer.Option(help="Seed of everything drawn.")]
Steps = Annotated[int, typer.Option(min=1, max=10_000, help="How often f is applied.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Any field that naign train --help lists; may be repeated."
    ),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="Where the run's data are now, if they have been moved or renamed."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


def load(run: Path, device: str, weights: str, checkpoint: str) -> "Projector":
    """The projector that the options name."""
    from naign_ext.projector import Projector

    return Projector.load(run, device, cast(Literal["ema", "model"], weights), which(checkpoint))


def which(checkpoint: str) -> Literal["best", "last"] | int:
    """best, last or a step, as load_checkpoint takes it."""
    if checkpoint in ("best", "last"):
        return cast(Literal["best", "last"], checkpoint)
    try:
        return int(checkpoint)
    except ValueError:
        raise Mistake(f"--checkpoint: expected best, last or a step, got {checkpoint!r}") from None


def opened(run: Path, data_root: Path | None) -> "OpenRun":
    """The run of a path, its data at data_root where that is given."""
    from naign_ext.run import Run

    return Run.open(run, None if data_root is None else {"data_root": str(data_root)})


def run_dataset(run: Path, data_root: Path | None) -> "Dataset":
    """The data set that the run was trained on, with its test rows as those held out."""
    from naign_ext.run import is_run

    if not is_run(run):
        raise Mistake(
            f"{run}: no config.yaml there, so its data set is unknown; give images, or a run folder"
        )
    return opened(run, data_root).dataset.for_test()
