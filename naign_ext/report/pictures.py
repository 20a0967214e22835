"""The pictures of a report: which of them fit a data set, drawn of the samples that were judged."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from naign_ext.evaluation import EvalContext, Results
from naign_ext.evaluation.results import BEST, MAP, ONCE, TWICE
from naign_ext.evaluation.subjects import Detector, Restored
from naign_ext.latents import spherical_steps
from naign_ext.report import plots, tables
from naign_ext.report.page import Picture

_BETWEEN_LATENTS, _BETWEEN_IMAGES = 3, 2


def draw_pictures(
    context: EvalContext, results: Results, records: Sequence[Mapping[str, Any]], folder: Path
) -> list[Picture]:
    """Write the pictures that fit the data set to a folder.

    context: what was judged; results: the metrics of it that are written beside; records: of the run's metrics.jsonl.
    """
    dataset, train = context.dataset, context.train.cpu()
    samples = {ONCE: context.once.cpu(), TWICE: context.twice.cpu()}
    drawn = [
        Picture(
            "Training data, samples f(z) that f makes of noise z, and f applied to the samples again.",
            plots.draw_samples(train, samples, folder / "samples.png"),
        )
    ]
    if dataset.kind == "image":
        drawn += _images(context, results, train, folder)
    elif train.shape[1] <= 2:
        caption = (
            "The residual |f(x) - x| is the distance to the data as f sees it; f moves points onto data."
        )

        def f(x: Tensor) -> Tensor:
            return context.apply(x).cpu()

        drawn.append(Picture(caption, plots.draw_landscape(f, train, folder / "landscape.png")))
    if dataset.ood is not None and len(dataset.heldout) > 0:
        detector = next(d for d in context.subjects(Detector.own) if d.name == MAP)
        caption = (
            "The residual on held-out data and on data of another kind; AUROC 0.5 is chance, 1 is perfect."
        )
        drawn.append(Picture(caption, plots.draw_ood(detector, results, folder / "ood.png")))
    curves = plots.draw_training(records, folder / "training.png")
    if curves is not None:
        caption = "Loss terms on the training batches, and the validation scores that chose the checkpoint."
        drawn.append(Picture(caption, curves))
    return drawn


def _images(context: EvalContext, results: Results, train: Tensor, folder: Path) -> list[Picture]:
    samples = context.once.cpu()
    caption = (
        f"Samples, and below each the training image nearest to it. {tables.memorisation_sentence(results)}"
    )
    drawn = [
        Picture(caption.strip(), plots.draw_neighbours(samples, train, folder / "neighbours.png")),
        _interpolations(context, folder / "interpolations.png"),
    ]
    if restored := _restored(context):
        best = any(images.name == BEST for images in restored)
        last = " At its best: by the recipe that was best on validation images." if best else ""
        for path, what in plots.draw_restored(restored, results, folder / "restored.png").items():
            caption = (
                f"Held-out images, spoilt ({what}), and what f makes of each. Right: mean PSNR and its gain."
            )
            drawn.append(Picture(caption + last, path))
    times = plots.reduction(train)
    note = f" Images are shown at 1/{times} of their size." if times > 1 else ""
    return [Picture(picture.caption + note, picture.path) for picture in drawn]


def _restored(context: EvalContext) -> list[Restored]:
    """What f makes of spoilt images, and the same at its best, or else with what is known put back."""
    found = context.subjects(Restored.own)
    best = {images.condition for images in found if images.name == BEST}

    def is_shown(images: Restored) -> bool:
        known = images.condition is not None and images.condition.known
        return images.name == BEST or (images.name == MAP and not (known and images.condition in best))

    return [images for images in found if is_shown(images)]


def _interpolations(context: EvalContext, path: Path) -> Picture:
    """Between the first latents, and between test images where there are two."""
    count = plots.columns(context.train)

    def f(x: Tensor) -> Tensor:
        return context.apply(x).cpu()

    pairs = torch.split(context.latents[: 2 * _BETWEEN_LATENTS], 2)
    between = [f(spherical_steps(first, second, count)) for first, second in pairs]
    caption = "f from one latent to another, along the great circle through both"
    images = plots.spread(context.heldout, 2 * _BETWEEN_IMAGES)
    if len(images) < 2:
        return Picture(f"{caption}.", plots.draw_interpolations(between, [], path))
    # Of a sorted set, neighbours show the same thing: each is mixed with one from the other half.
    half = len(images) // 2
    share = torch.linspace(0, 1, count, device=images.device).view(-1, 1, 1, 1)
    mixed = [torch.lerp(images[i], images[half + i], share) for i in range(half)]
    caption += "; and held-out images mixed with one another, and what f makes of the mixtures."
    fades = [(mixture.cpu(), f(mixture)) for mixture in mixed]
    return Picture(caption, plots.draw_interpolations(between, fades, path))
