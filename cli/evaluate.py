"""`naign evaluate`: every figure of a run, again."""

import json as json_module
from pathlib import Path
from typing import Annotated

import typer
from naign_cli.arguments import Checkpoint, Device, Run, Seed, Weights, which
from naign_cli.guard import Mistake, guarded
from naign_cli.output import notes, plain, print_figures, print_files, print_json

METRICS_HELP = (
    "Only these, separated by commas: the groups projection, samples, ood, likelihood, restoration, or single figures "
    "modes, high_quality, classes, energy_distance, w2, sliced_w2, fld, fid, kid, prdc (precision, recall, density, "
    "coverage), train_coverage, authenticity, variance_ratio, auroc, distance_field. Default: all that fit the data."
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
    anchors: Annotated[
        bool, typer.Option("--anchors/--no-anchors", help="Also measure what scores without f.")
    ] = True,
    seed: Seed = 0,
    samples: Annotated[
        int | None, typer.Option(help="Samples to judge; default: by the data set's size, 1000 to 2000.")
    ] = None,
    device: Device = "auto",
    weights: Weights = "ema",
    checkpoint: Checkpoint = "best",
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Draw and write RUN/report/ anew.")
    ] = True,
    json: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write figures with their meaning as JSON; - is stdout."),
    ] = None,
) -> None:
    """Measure a run's f on its data set, append the figures to RUN/metrics.jsonl and print them.

    Beside each figure stands what something trivial scores. docs/metrics.md defines all of them.
    """
    from naign_ext.evaluation import PARTS, SPACES
    from naign_ext.evaluation.evaluate import chosen_metrics
    from naign_ext.report.page import write_report

    if features is not None and features not in SPACES:
        raise Mistake(f"--features: expected one of {', '.join(SPACES)}, got {features!r}")
    names = [name.strip() for part in metrics or [] for name in part.split(",") if name.strip()]
    parts = [part for part in names or PARTS if part != "anchors"] + (["anchors"] if anchors else [])
    try:
        chosen_metrics(parts)
    except ValueError as error:
        raise Mistake(f"--metrics: {str(error).removeprefix('parts: ')}") from None
    with notes().status("measuring") as status:
        found = write_report(
            run,
            seed=seed,
            samples=samples,
            device=device,
            weights=weights,
            checkpoint=which(checkpoint),
            pictures=report,
            parts=parts,
            features=features,
            feature_weights=feature_weights,
            say=status.update,
        )
    answer = {
        "run": run,
        "features": found.features,
        "figures": found.figures,
        "meaning": found.meaning,
        "files": found.files if report else [],
    }
    if json is not None and str(json) == "-":
        print_json(answer)
        return
    print_figures(found.figures, found.features)
    written = list(found.files) if report else []
    if json is not None:
        json.write_text(json_module.dumps(plain(answer), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        written.append(json)
    if written:
        print_files(written, "pictures and figures")
