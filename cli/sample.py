"""`naign sample`: new data from a trained f."""

import math
from pathlib import Path
from typing import Annotated

import typer
from naign_cli.arguments import Checkpoint, Device, Json, Run, Seed, Steps, Weights, load
from naign_cli.guard import guarded
from naign_cli.output import print_files, print_json
from naign_cli.written import results_folder


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
    """Write samples f(z): a grid and separate images, or rows of numbers for vectors.

    --steps 2 writes f(f(z)), and so on. Samples of an earlier call into the same folder are removed.
    """
    projector = load(run, device, weights, checkpoint)
    samples = projector.sample(count, seed, steps)
    folder = out or run / "sampled"
    if projector.kind == "image":
        from naign_ext.data import save_image_grid, save_images

        names = [f"{index:05d}.png" for index in range(count)]
        with results_folder(folder, ["grid.png", *(f"images/{name}" for name in names)]):
            grid = save_image_grid(samples, folder / "grid.png", math.ceil(math.sqrt(count)))
            files = [grid, *save_images(samples, folder / "images")]
    else:
        import numpy as np

        files = [folder / "samples.csv"]
        with results_folder(folder, [files[0].name]):
            np.savetxt(files[0], samples.flatten(1).numpy(), delimiter=",", fmt="%.8g")
    if json:
        print_json({"count": count, "steps": steps, "seed": seed, "files": files})
    else:
        print_files(files[:1])
        if len(files) > 1:
            print_files([files[1].parent], f"{count} samples, one by one")
