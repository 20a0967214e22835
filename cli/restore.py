"""`naign restore`: restore images, or measure how well f restores corrupted ones."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
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
    Weights,
    load,
    run_dataset,
)
from naign_cli.guard import Mistake, guarded
from naign_cli.images import Chunk, GivenImages, finish, split
from naign_cli.output import print_files, print_json, print_table, results
from naign_cli.written import csv_rows, result_stems, results_folder

if TYPE_CHECKING:
    from torch import Tensor

    from naign_ext.evaluation.restoring import Choice, Recipe
    from naign_ext.projector import Projector

_NAMED = ("noise", "blur", "downsample")
SHOWN = 20
PICTURED = 12
Stages = tuple[list[int], list["Tensor"]]
"""Of some images: their places among all, and what they were, were made and have become, each (n, *sample_shape)."""


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
            help="The images were made by noise, blur or downsample of --strength: put back what is known, and "
            "restore in the way that is best for it."
        ),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Held-out images at most.")] = 64,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=10_000,
            help="How often f is applied; default: the way that is best on validation images, where it is known how "
            "the images were corrupted, else once.",
        ),
    ] = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Folder to write; default RUN/restored.")] = None,
    device: Device = "auto",
    weights: Weights = "ema",
    checkpoint: Checkpoint = "best",
    data_root: DataRoot = None,
    json: Json = False,
) -> None:
    """Apply f to corrupted images: files, folders, or the run's held-out data with --corrupt.

    Where --corrupt or --corrupted-by says how images were corrupted, the way to restore them is chosen on the run's
    validation images: how often f is applied, the mean over which shifts and flips, and how much of it is taken. Where
    f cannot help, images stay as they are.

    With --corrupt the original is known, so PSNR and SSIM are reported before and after. Images are brought
    to the size f was trained at. Results have the names of their images, and are written one by one: a call that is
    stopped keeps those it has. Those of an earlier call into the same folder are removed, other files there are kept.

    An image that cannot be read is named and left out; the others are restored, and the exit code is 1.
    """
    if corrupted_by is not None and (corrupt is not None or corrupted_by not in _NAMED):
        raise Mistake(f"--corrupted-by: expected {', '.join(_NAMED[:-1])} or {_NAMED[-1]}, and no --corrupt")
    if not images and corrupt is None:
        raise Mistake("images: give image files or a folder, or --corrupt KIND to use held-out data")
    if keep_known and corrupt not in ("mask", "blur", "downsample"):
        raise Mistake("--keep-known: needs --corrupt mask, blur or downsample, which say what is known")
    projector = load(run, device, weights, checkpoint)
    task = _Task(steps or 1, seed, corrupt, strength, keep_known, corrupted_by)
    choice = None if steps else _choose(projector, run, data_root, task)
    recipe = None if choice is None else choice.recipe
    given = GivenImages(images, projector) if images else None
    names, chunks = (given.names, given.chunks()) if given else _held_out(run, data_root, count)
    # The first are read, or none can be, before a result of an earlier call makes room.
    chunks = chain([next(chunks)], chunks)
    rows: list[dict[str, Any]] = []

    def stages() -> Iterator[Stages]:
        for number, (places, originals) in enumerate(chunks):
            found = task.stages(projector, recipe, number, originals)
            if corrupt is not None:
                original, corrupted, restored = found
                rows.extend(_measure(original, corrupted, restored, [names[place] for place in places]))
            yield places, found

    write = _write_images if projector.kind == "image" else _write_rows
    done, files = write(out or run / "restored", stages(), names, images or ())
    if json:
        mean = (
            {key: sum(row[key] for row in rows) / len(rows) for key in rows[0] if key != "name"}
            if rows
            else None
        )
        print_json(
            {
                "corrupt": corrupt,
                "way": None if choice is None else _as_json(choice),
                "images": rows or [{"name": names[place]} for place in done],
                "mean": mean,
                "skipped": given.skipped_rows() if given else [],
                "files": files,
            }
        )
    else:
        if rows:
            _print_rows(rows)
        print_files(files[:1], "rows: original, corrupted, restored" if corrupt else "rows: before, after")
        print_files([files[-1].parent], f"{len(done)} restored, one by one")
        results().print(_way(task, steps, choice), soft_wrap=True)
    finish(given)


@dataclass(frozen=True)
class _Task:
    """What is done to every chunk of images."""

    steps: int
    seed: int
    corrupt: str | None
    strength: float | None
    keep_known: bool
    corrupted_by: str | None

    def stages(
        self, projector: "Projector", recipe: "Recipe | None", number: int, originals: "Tensor"
    ) -> list["Tensor"]:
        """The originals where they are corrupted here, the corrupted and the restored; each chunk draws of its own."""
        from naign_ext.seeds import derive_seed
        from naign_ext.transforms import corrupt, degrade

        corrupted, lost = originals, None
        if self.corrupt is not None:
            seed = derive_seed(self.seed, "chunk", number) if number else self.seed
            corrupted, lost = corrupt(originals, self.corrupt, seed=seed, strength=self.strength)
        known = self.corrupted_by or (self.corrupt if self.keep_known else None)
        spoil = None
        if known in ("blur", "downsample"):
            spoil = partial(degrade, kind=known, strength=self.strength)
        lost = lost if self.keep_known else None
        restored = projector.restore(corrupted, self.steps, lost=lost, degrade=spoil, recipe=recipe)
        return [*([] if self.corrupt is None else [originals]), corrupted, restored]


def _choose(projector: "Projector", run: Path, data_root: Path | None, task: _Task) -> "Choice | None":
    """The best way on the run's validation images; None where there are none, or nothing says what is to be undone."""
    from naign_ext.evaluation.restoring import MOST_TRIED
    from naign_ext.run import is_run

    kind = task.corrupt or task.corrupted_by
    if kind is None or projector.kind != "image" or not is_run(run):
        return None
    try:
        validation = run_dataset(run, data_root).validation
    except ValueError:
        # The run's data need not be there to restore other images.
        return None
    if validation is None or len(validation) == 0:
        return None
    known = task.keep_known or task.corrupted_by is not None
    return projector.choose_recipe(
        validation[:MOST_TRIED], kind, task.strength, keep_known=known, seed=task.seed + 1
    )


def _as_json(choice: "Choice") -> dict[str, Any]:
    """What was chosen, and what it gains on how many validation images."""
    return {**asdict(choice.recipe), **{k: v for k, v in asdict(choice).items() if k != "recipe"}}


def _way(task: _Task, steps: int | None, choice: "Choice | None") -> str:
    """A sentence on how the images were restored, and why so."""
    kind = task.corrupt or task.corrupted_by
    if choice is None:
        if steps is None and kind is None:
            return "way: f, applied once; --corrupted-by KIND finds a better one"
        return f"way: f, applied {'once' if task.steps == 1 else f'{task.steps} times'}"
    tried = f"{choice.images} validation images"
    if not choice.helps:
        return f"way: left as they are, since on {tried} f makes {kind} no better"
    once = "" if choice.gain == choice.gain_of_one_pass else f", f once {choice.gain_of_one_pass:+.2f} dB"
    return f"way: {choice.recipe.words}; on {tried} {choice.gain:+.2f} dB{once}"


def _held_out(run: Path, data_root: Path | None, count: int) -> tuple[list[str], Iterator[Chunk]]:
    dataset = run_dataset(run, data_root)
    if len(dataset.heldout) == 0:
        raise Mistake(f"{run}: nothing was held out in training; give image files or a folder")
    chosen = dataset.heldout[:count]
    return [f"heldout_{i:05d}" for i in range(len(chosen))], split(chosen)


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


def _write_images(
    folder: Path, stages: Iterator[Stages], names: Sequence[str], inputs: Sequence[Path]
) -> tuple[list[int], list[Path]]:
    """The restored images under their inputs' names, and a picture of the first ones' stages, row below row."""
    import torch

    from naign_ext.data import image_grid
    from naign_ext.data.images import png_bytes, to_pixels

    stems = result_stems(names)
    done: list[int] = []
    files: list[Path] = []
    pictured: list[Tensor] = []
    with results_folder(folder, ["stages.png", *(f"images/{stem}.png" for stem in stems)], inputs) as results:
        for places, found in stages:
            if not pictured:
                pictured = [stage[:PICTURED] for stage in found]
            for place, pixels in zip(places, to_pixels(found[-1]), strict=True):
                files.append(results.write(f"images/{stems[place]}.png", png_bytes(pixels)))
            done += places
        grid = image_grid(torch.cat(pictured), len(pictured[0]))
        return done, [results.write("stages.png", png_bytes(grid)), *files]


def _write_rows(
    folder: Path, stages: Iterator[Stages], names: Sequence[str], inputs: Sequence[Path]
) -> tuple[list[int], list[Path]]:
    """Vectors as rows of numbers, all stages side by side."""
    import torch

    done: list[int] = []
    with results_folder(folder, ["restored.csv"], inputs) as results:
        for places, found in stages:
            path = results.append("restored.csv", csv_rows(torch.cat(found, dim=1)))
            done += places
    return done, [path]
