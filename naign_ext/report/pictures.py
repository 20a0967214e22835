"""The pictures of a report: which of them fit a data set, drawn of the samples that were judged."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from naign_ext.evaluation import EvalContext, Results
from naign_ext.evaluation.results import MAP, ONCE, TWICE
from naign_ext.evaluation.subjects import Detector, Restored
from naign_ext.report import plots
from naign_ext.report.page import Picture


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
            "Training data, samples f(z), and f applied again.",
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
    drawn = []
    restored = [images for images in context.subjects(Restored.own) if images.name == MAP]
    if restored:
        caption = (
            "Held-out images, their corruptions, and what f makes of each. Right: mean PSNR and its gain."
        )
        drawn.append(Picture(caption, plots.draw_restored(restored, results, folder / "restored.png")))
    caption = "Samples and the training images nearest to them: how much is memorised."
    path = plots.draw_neighbours(context.once.cpu(), train, folder / "neighbours.png")
    return [*drawn, Picture(caption, path)]
