"""`naign evaluate`: every metric of a run, again."""

import json as json_module
from pathlib import Path
from typing import Annotated, Literal, cast

import typer
from naign_cli.arguments import Checkpoint, DataRoot, Device, Run, Seed, Weights, opened, which
from naign_cli.guard import Mistake, guarded
from naign_cli.output import busy, plain, print_files, print_json, print_metrics

METRICS_HELP = (
    "Only these, separated by commas: the groups projection, samples, ood, likelihood, restoration; families prdc "
    "(precision, recall, density, coverage), auroc, distance_field; or single metrics of docs/metrics.md, such as fld. "
    "Default: all that fit the data."
)
FEATURES_HELP = (
    "Where sets of images are compared: pixels, pca (64 components), classifier (trained once for the data set and "
    "kept in $NAIGN_CACHE, else ~/.cache/naign/classifiers), inception or dinov2 (weights must be on disk). Default: "
    "classifier where images have labels, else pixels."
)


@guarded
def evaluate(
    run: Run,
    *,
    metrics: Annotated[
        list[str] | None, typer.Option("--metrics", metavar="NAMES", help=METRICS_HELP)
    ] = None,
    features: Annotated[str | None, typer.Option(help=FEATURES_HELP, metavar="SPACE")] = None,
    feature_weights: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Weights of inception (a file) or dinov2 (a folder)."),
    ] = None,
    baselines: Annotated[
        bool,
        typer.Option("--baselines/--no-baselines", help="Also measure what has no network in it."),
    ] = True,
    anchors: Annotated[
        bool | None,
        typer.Option("--anchors/--no-anchors", hidden=True, help="The name of --baselines in naign 0.1."),
    ] = None,
    seed: Seed = 0,
    samples: Annotated[
        int | None, typer.Option(help="Samples to judge; default: by the data set's size, 1000 to 2000.")
    ] = None,
    device: Device = "auto",
    weights: Weights = "ema",
    checkpoint: Checkpoint = "best",
    data_root: DataRoot = None,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Draw and write RUN/report/ anew.")
    ] = True,
    json: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="FILE", help="Write the rows and what they mean as JSON; - is stdout."
        ),
    ] = None,
) -> None:
    """Measure a run's f on its data set, append the rows to RUN/metrics.jsonl and print them.

    Beside each number stands what baselines without a network score. docs/metrics.md defines all of them.
    """
    from naign_ext.evaluation import SPACES
    from naign_ext.evaluation.registry import chosen_metrics
    from naign_ext.report import write_report

    if features is not None and features not in SPACES:
        raise Mistake(f"--features: expected one of {', '.join(SPACES)}, got {features!r}")
    names = [name.strip() for part in metrics or [] for name in part.split(",") if name.strip()]
    try:
        chosen_metrics(names or None)
    except ValueError as error:
        raise Mistake(f"--{error}") from None
    with busy("measuring") as told:
        found = write_report(
            opened(run, data_root),
            seed=seed,
            samples=samples,
            device=device,
            weights=cast(Literal["ema", "model"], weights),
            checkpoint=which(checkpoint),
            pictures=report,
            metrics=names or None,
            baselines=baselines if anchors is None else anchors,
            features=features,
            feature_weights=feature_weights,
            say=told,
        )
    answer = {
        "run": run,
        "features": found.features,
        "metrics": found.results.to_json(),
        "meaning": found.meaning,
        "files": found.files if report else [],
    }
    if json is not None and str(json) == "-":
        print_json(answer)
        return
    print_metrics(found.results, found.features)
    written = list(found.files) if report else []
    if json is not None:
        json.write_text(json_module.dumps(plain(answer), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        written.append(json)
    if written:
        print_files(written, "pictures and tables")
