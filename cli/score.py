"""`naign score`: how far images are from the data, as f sees it."""

from collections.abc import Iterator, Sequence
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
    run_dataset,
)
from naign_cli.guard import Mistake, guarded
from naign_cli.images import Chunk, GivenImages, finish, split
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

    Without images, the run's out-of-distribution set is scored against its held-out data. An image that cannot be
    read is named and left out; the others are scored, and the exit code is 1.
    """
    from naign_ext.evaluation import auroc

    projector = load(run, device, weights, checkpoint)
    given = GivenImages(images, projector) if images else None
    names, chunks = (given.names, given.chunks()) if given else _outside(run, data_root)
    if given is None:
        reference = reference or "heldout"
    known = GivenImages([Path(reference)], projector) if reference not in (None, "heldout") else None
    done, columns = _scores(projector, chunks)
    separation: dict[str, Any] = {}
    if reference is not None:
        _, of_known = _scores(projector, known.chunks() if known else _held_out(run, data_root))
        separation = {key: auroc(of_known[key], columns[key]) for key in SCORES}
    rows: list[dict[str, Any]] = [
        {"name": names[place], **{k: float(columns[k][i]) for k in KEYS}} for i, place in enumerate(done)
    ]
    mean = {key: float(column.double().mean()) for key, column in columns.items()}
    if json:
        skipped = given.skipped_rows() if given else []
        answer = {"scores": rows, "mean": mean, "reference": reference, "auroc": separation or None}
        print_json({**answer, "skipped": skipped})
    else:
        _print_scores(rows, mean, reference, separation)
    finish(given, known)


def _scores(projector: "Projector", chunks: Iterator[Chunk]) -> tuple[list[int], dict[str, "Tensor"]]:
    """Of all images their places and, by key, their scores (n,)."""
    import torch

    places: list[int] = []
    parts: dict[str, list[Tensor]] = {key: [] for key in KEYS}
    for chunk in chunks:
        places += chunk.places
        scores = projector.score(chunk.images)
        for key in KEYS:
            parts[key].append(getattr(scores, key))
    return places, {key: torch.cat(found) for key, found in parts.items()}


def _print_scores(
    rows: Sequence[dict[str, Any]],
    mean: dict[str, float],
    reference: str | None,
    separation: dict[str, float],
) -> None:
    lines = [[row["name"], *(f"{row[key]:.4g}" for key in KEYS)] for row in rows[:SHOWN]]
    if len(rows) > SHOWN:
        lines.append([f"... {len(rows) - SHOWN} more", *("" for _ in KEYS)])
    lines.append([f"mean of {len(rows)}", *(f"{mean[key]:.4g}" for key in KEYS)])
    print_table("", ["", *KEYS], lines, numbers=KEYS)
    if separation:
        shown = ", ".join(f"{value:.3f} by {key}" for key, value in separation.items())
        results().print(f"AUROC against {reference}: {shown}", soft_wrap=True)


def _outside(run: Path, data_root: Path | None) -> tuple[list[str], Iterator[Chunk]]:
    dataset = run_dataset(run, data_root)
    if dataset.ood is None:
        raise Mistake(
            "images: give image files or a folder; this run's data set has no out-of-distribution set"
        )
    return [f"ood_{i:05d}" for i in range(len(dataset.ood))], split(dataset.ood)


def _held_out(run: Path, data_root: Path | None) -> Iterator[Chunk]:
    heldout = run_dataset(run, data_root).heldout
    if len(heldout) == 0:
        raise Mistake("--reference: nothing was held out in training; give a folder of images")
    return split(heldout)
