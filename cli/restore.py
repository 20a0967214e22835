"""`naign restore`: restore images, or measure how well f restores corrupted ones."""

from collections.abc import Sequence
from functools import partial
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
    Seed,
    Steps,
    Weights,
    load,
    read_images,
    run_dataset,
)
from naign_cli.guard import Mistake, guarded
from naign_cli.output import print_files, print_json, print_table
from naign_cli.written import result_stems, results_folder

if TYPE_CHECKING:
    from torch import Tensor

SHOWN = 20


@guarded
def restore(
    run: Run,
    images: Inputs = None,
    *,
    corrupt: Annotated[
        str | None,
        typer.Option(help="Corrupt first: noise, mask, blur or downsample; without images, held-out data."),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(
            help="Noise: sigma (images span 2); mask: share; blur: sigma in pixels; downsample: factor."
        ),
    ] = None,
    keep_known: Annotated[
        bool,
        typer.Option(
            help="With --corrupt mask, blur or downsample: what is known of the original is put back."
        ),
    ] = False,
    corrupted_by: Annotated[
        str | None,
        typer.Option(
            help="The images were made by blur or downsample of --strength: put back what is known."
        ),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Held-out images at most.")] = 64,
    steps: Steps = 1,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Folder to write; default RUN/restored.")] = None,
    device: Device = "auto",
    weights: Weights = "ema",
    checkpoint: Checkpoint = "best",
    data_root: DataRoot = None,
    json: Json = False,
) -> None:
    """Apply f to corrupted images: files, folders, or the run's held-out data with --corrupt.

    With --corrupt the original is known, so PSNR and SSIM are reported before and after. Images are brought
    to the size f was trained at. Results have the names of their images; those of an earlier call into the same
    folder are removed, other files there are kept.
    """
    from naign_ext.transforms import corrupt as corrupt_images
    from naign_ext.transforms import degrade

    if corrupted_by is not None and (corrupt is not None or corrupted_by not in ("blur", "downsample")):
        raise Mistake("--corrupted-by: expected blur or downsample, and no --corrupt")
    if not images and corrupt is None:
        raise Mistake("images: give image files or a folder, or --corrupt KIND to use held-out data")
    if keep_known and corrupt not in ("mask", "blur", "downsample"):
        raise Mistake("--keep-known: needs --corrupt mask, blur or downsample, which say what is known")
    projector = load(run, device, weights, checkpoint)
    originals, names = read_images(images, projector) if images else _held_out(run, data_root, count)
    corrupted, lost = originals, None
    if corrupt is not None:
        corrupted, lost = corrupt_images(originals, corrupt, seed=seed, strength=strength)
    known_kind = corrupted_by or (corrupt if keep_known and lost is None else None)
    spoil = partial(degrade, kind=known_kind, strength=strength) if known_kind else None
    restored = projector.restore(corrupted, steps, lost=lost if keep_known else None, degrade=spoil)
    rows = _measure(originals, corrupted, restored, names) if corrupt is not None else []
    folder = out or run / "restored"
    stages = [stage for stage in (originals if corrupt else None, corrupted, restored) if stage is not None]
    files = _write(folder, stages, names, images or ())
    if json:
        mean = (
            {key: sum(row[key] for row in rows) / len(rows) for key in rows[0] if key != "name"}
            if rows
            else None
        )
        print_json(
            {"corrupt": corrupt, "images": rows or [{"name": n} for n in names], "mean": mean, "files": files}
        )
        return
    if rows:
        _print_rows(rows)
    print_files(files[:1], "rows: original, corrupted, restored" if corrupt else "rows: before, after")
    print_files([files[-1].parent], f"{len(names)} restored, one by one")


def _held_out(run: Path, data_root: Path | None, count: int) -> tuple["Tensor", list[str]]:
    dataset = run_dataset(run, data_root)
    if len(dataset.heldout) == 0:
        raise Mistake(f"{run}: nothing was held out in training; give image files or a folder")
    chosen = dataset.heldout[:count]
    return chosen, [f"heldout_{i:05d}" for i in range(len(chosen))]


def _measure(
    original: "Tensor", corrupted: "Tensor", restored: "Tensor", names: Sequence[str]
) -> list[dict[str, Any]]:
    """PSNR and SSIM of every image, before and after; mean squared error for vectors."""
    from naign_ext.evaluation import psnr, ssim

    columns: dict[str, Any] = {}
    if original.dim() == 4:
        for name, measure in (("psnr", psnr), ("ssim", ssim)):
            columns[f"{name}_before"] = measure(original, corrupted)
            columns[f"{name}_after"] = measure(original, restored)
        columns["gain"] = columns["psnr_after"] - columns["psnr_before"]
    else:
        columns["error_before"] = (corrupted - original).square().mean(dim=1)
        columns["error_after"] = (restored - original).square().mean(dim=1)
    values = {name: column.tolist() for name, column in columns.items()}
    return [{"name": name, **{key: values[key][i] for key in values}} for i, name in enumerate(names)]


def _print_rows(rows: Sequence[dict[str, Any]]) -> None:
    keys = [key for key in rows[0] if key != "name"]
    titles = [key.replace("_", " ").replace("psnr", "PSNR").replace("ssim", "SSIM") for key in keys]
    mean = {key: sum(row[key] for row in rows) / len(rows) for key in keys}
    lines = [[row["name"], *(f"{row[key]:.3f}" for key in keys)] for row in rows[:SHOWN]]
    if len(rows) > SHOWN:
        lines.append([f"... {len(rows) - SHOWN} more", *("" for _ in keys)])
    lines.append([f"mean of {len(rows)}", *(f"{mean[key]:.3f}" for key in keys)])
    print_table("", ["", *titles], lines, numbers=titles)


def _write(
    folder: Path, stages: Sequence["Tensor"], names: Sequence[str], inputs: Sequence[Path]
) -> list[Path]:
    """A picture of all stages, row below row, and those of the last, the restored, under the inputs' names."""
    import torch

    if stages[-1].dim() != 4:
        import numpy as np

        path = folder / "restored.csv"
        with results_folder(folder, [path.name]):
            np.savetxt(path, torch.cat(list(stages), dim=1).numpy(), delimiter=",", fmt="%.8g")
        return [path]
    from naign_ext.data import save_image_grid, save_images

    stems = result_stems(names)
    shown = min(len(names), 12)
    with results_folder(folder, ["stages.png", *(f"images/{stem}.png" for stem in stems)], inputs):
        grid = save_image_grid(torch.cat([stage[:shown] for stage in stages]), folder / "stages.png", shown)
        return [grid, *save_images(stages[-1], folder / "images", stems=stems)]
