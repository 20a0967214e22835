"""`naign evaluate`: every figure of a run, again."""

from typing import Annotated

import typer
from naign_cli.arguments import Checkpoint, Device, Json, Run, Seed, Weights, which
from naign_cli.guard import guarded
from naign_cli.output import notes, print_figures, print_files, print_json


@guarded
def evaluate(
    run: Run,
    *,
    seed: Seed = 0,
    samples: Annotated[
        int | None, typer.Option(help="Samples to judge; default: by the data set's size.")
    ] = None,
    device: Device = "auto",
    weights: Weights = "ema",
    checkpoint: Checkpoint = "best",
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Draw and write RUN/report/ anew.")
    ] = True,
    json: Json = False,
) -> None:
    """Measure a run's f on its data set, append the figures to RUN/metrics.jsonl and print them."""
    from naign_ext.report import write_report

    with notes().status("measuring") as status:
        found = write_report(
            run,
            seed=seed,
            samples=samples,
            device=device,
            weights=weights,
            checkpoint=which(checkpoint),
            pictures=report,
            say=status.update,
        )
    if json:
        print_json({"run": run, "figures": found.figures, "files": found.files if report else []})
        return
    print_figures(found.figures)
    if report:
        print_files(found.files, "pictures and figures")
