"""`naign sample`: new data from a trained f."""

import math
import os
import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from naign_cli.arguments import Checkpoint, Device, Json, Run, Seed, Steps, Weights, load
from naign_cli.guard import Mistake, guarded
from naign_cli.output import print_files, print_json, say
from naign_cli.written import csv_rows, results_folder

if TYPE_CHECKING:
    from torch import Tensor

MOST_PICTURED = 1024
NAME_BYTES = 500
"""Memory that a file's name takes while its call lasts: in several lists, and as JSON."""
MUCH = 1 << 30


@guarded
def sample(
    run: Run,
    *,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Number of samples.")] = 64,
    steps: Steps = 1,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Folder to write; default RUN/sampled.")] = None,
    device: Device = "auto",
    weights: Weights = "ema",
    checkpoint: Checkpoint = "best",
    json: Json = False,
) -> None:
    """Write samples f(z): a grid of the first 1024 and separate images, or rows of numbers for vectors.

    --steps 2 writes f(f(z)), and so on. Samples are written as they are made: memory does not grow with their size, and
    a call that is stopped keeps those it has. More than the disk can hold are refused. Samples of an earlier call into
    the same folder are removed.
    """
    projector = load(run, device, weights, checkpoint)
    folder = out or run / "sampled"
    batches = projector.sample_batches(count, seed, steps)
    first = next(batches)
    batches = chain([first], batches)
    if projector.kind == "image":
        files = _write_images(folder, count, first, batches)
    else:
        files = _write_rows(folder, count, first, batches)
    if json:
        print_json({"count": count, "steps": steps, "seed": seed, "files": files})
    else:
        print_files(files[:1])
        if len(files) > 1:
            print_files([files[1].parent], f"{count} samples, one by one")


def _write_images(folder: Path, count: int, first: "Tensor", batches: Iterator["Tensor"]) -> list[Path]:
    import torch

    from naign_ext.data import image_grid
    from naign_ext.data.images import png_bytes, to_pixels

    sizes = [len(png_bytes(pixels)) for pixels in to_pixels(first[:16])]
    _check_fits(folder, count, sum(sizes) / len(sizes), files=count)
    names = [f"images/{index:05d}.png" for index in range(count)]
    pictured: list[Tensor] = []
    files: list[Path] = []
    with results_folder(folder, ["grid.png", *names]) as results:
        for batch in batches:
            if len(files) < MOST_PICTURED:
                pictured.append(batch[: MOST_PICTURED - len(files)])
            for pixels in to_pixels(batch):
                files.append(results.write(names[len(files)], png_bytes(pixels)))
        shown = torch.cat(pictured)
        grid = image_grid(shown, math.ceil(math.sqrt(len(shown))))
        return [results.write("grid.png", png_bytes(grid)), *files]


def _write_rows(folder: Path, count: int, first: "Tensor", batches: Iterator["Tensor"]) -> list[Path]:
    from naign_ext.memory import check_fits

    bytes_each = len(csv_rows(first)) / len(first)
    # Not to write them, but whoever reads one table needs it.
    check_fits(
        f"a table of {count} samples",
        int(count * bytes_each),
        "ask for fewer by --count, with several --seed",
    )
    _check_fits(folder, count, bytes_each, files=1)
    with results_folder(folder, ["samples.csv"]) as results:
        for batch in batches:
            path = results.append("samples.csv", csv_rows(batch))
    return [path]


def _check_fits(folder: Path, count: int, bytes_each: float, *, files: int) -> None:
    """Refuse more samples, in so many files, than disk and memory can hold; say where they are many.

    Raises:
        Mistake: they do not fit; the text says what they take and what is free.
    """
    from naign_ext.memory import available_bytes, in_units

    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    disk = os.statvfs(there)
    blocks = math.ceil(bytes_each / disk.f_frsize) if files > 1 else bytes_each / disk.f_frsize
    needed, free = int(count * blocks * disk.f_frsize), shutil.disk_usage(there).free
    text = f"--count: {count} samples take about {in_units(needed)} on the disk"
    if needed > free:
        raise Mistake(
            f"{text}, of which {in_units(free)} are free in {there}; ask for fewer, or another --out"
        )
    # File systems without a fixed number of files say 0.
    if disk.f_files and files > disk.f_favail:
        raise Mistake(f"--count: {count} files, and {there} takes {disk.f_favail} more; ask for fewer")
    if (names := files * NAME_BYTES) > available_bytes():
        raise Mistake(
            f"--count: the names of {count} files take about {in_units(names)} of memory; ask for fewer"
        )
    if needed > MUCH:
        say(text)
