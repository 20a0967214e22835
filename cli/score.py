"""`naign score`: how far images are from the data, as f sees it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from naign_cli.arguments import (
    Checkpoint,
    DataRoot,
    Device,
    Inputs,
    Json,
    Run,
    Weights,
    load,
    read_images,
    run_dataset,
)
from naign_cli.guard import Mistake, guarded
from naign_cli.output import print_json, print_table, results

if TYPE_CHECKING:
    from torch import Tensor

    from naign_ext.projector import Projector

SHOWN = 20
KEYS = ("residual", "energy", "normalised", "multiscale")
SCORES = ("residual", "normalised", "multiscale")


@guarded
def score(
    run: Run,
    images: Inputs = None,
    *,
    reference: Annotated[
        str | None,
        typer.Option(help="Known data to tell the images from: a file, a folder, or heldout; gives AUROC."),
    ] = None,
    device: Device = "auto",
    weights: Weights = "ema",
    checkpoint: Checkpoint = "best",
    data_root: DataRoot = None,
    json: Json = False,
) -> None:
    """Print residual |f(x) - x|, energy (its square), energy over the image's variance, and its log over three blurs.

    Without images, the run's out-of-distribution set is scored against its held-out data.
    """
    from naign_ext.evaluation import auroc

    projector = load(run, device, weights, checkpoint)
    if images:
        x, names = read_images(images, projector)
    else:
        x, names = _outside(run, data_root)
        reference = reference or "heldout"
    scores = projector.score(x)
    columns = {key: getattr(scores, key) for key in KEYS}
    separation: dict[str, Any] = {}
    if reference is not None:
        known = projector.score(_reference(reference, run, data_root, projector))
        separation = {key: auroc(getattr(known, key), columns[key]) for key in SCORES}
    rows: list[dict[str, Any]] = [
        {"name": name, **{k: float(columns[k][i]) for k in KEYS}} for i, name in enumerate(names)
    ]
    mean = {key: float(column.double().mean()) for key, column in columns.items()}
    if json:
        print_json({"scores": rows, "mean": mean, "reference": reference, "auroc": separation or None})
        return
    lines = [[row["name"], *(f"{row[key]:.4g}" for key in KEYS)] for row in rows[:SHOWN]]
    if len(rows) > SHOWN:
        lines.append([f"... {len(rows) - SHOWN} more", *("" for _ in KEYS)])
    lines.append([f"mean of {len(rows)}", *(f"{mean[key]:.4g}" for key in KEYS)])
    print_table("", ["", *KEYS], lines, numbers=KEYS)
    if separation:
        shown = ", ".join(f"{value:.3f} by {key}" for key, value in separation.items())
        results().print(f"AUROC against {reference}: {shown}", soft_wrap=True)


def _outside(run: Path, data_root: Path | None) -> tuple["Tensor", list[str]]:
    dataset = run_dataset(run, data_root)
    if dataset.ood is None:
        raise Mistake(
            "images: give image files or a folder; this run's data set has no out-of-distribution set"
        )
    return dataset.ood, [f"ood_{i:05d}" for i in range(len(dataset.ood))]


def _reference(name: str, run: Path, data_root: Path | None, projector: "Projector") -> "Tensor":
    if name != "heldout":
        return read_images([Path(name)], projector)[0]
    heldout = run_dataset(run, data_root).heldout
    if len(heldout) == 0:
        raise Mistake("--reference: nothing was held out in training; give a folder of images")
    return heldout
