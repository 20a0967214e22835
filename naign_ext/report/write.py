"""The end of a run: metrics, pictures, and one page with both."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from naign_ext.checkpoint import Which
from naign_ext.evaluation import EvalContext, Results
from naign_ext.evaluation.evaluate import measure
from naign_ext.evaluation.features import SpaceName
from naign_ext.evaluation.registry import METRICS, chosen_metrics
from naign_ext.report.page import render_page
from naign_ext.report.pictures import draw_pictures
from naign_ext.run import Run


@dataclass(frozen=True)
class Report:
    """What was measured, in which feature space sets of images were compared, and the files below the run folder."""

    results: Results
    features: str
    page: Path
    pictures: list[Path] = field(default_factory=list)

    @property
    def meaning(self) -> dict[str, str]:
        """What each metric is, in a sentence."""
        found = (METRICS.find(name) for name in self.results.metrics)
        return {about.name: f"{about.title}: {about.text}" for about in found}

    @property
    def files(self) -> list[Path]:
        """The page and its pictures."""
        return [self.page, *self.pictures]


def write_report(
    run: Run | str | Path,
    *,
    seed: int = 0,
    samples: int | None = None,
    device: torch.device | str | None = None,
    weights: Literal["ema", "model"] = "ema",
    checkpoint: Which = "best",
    pictures: bool = True,
    metrics: Collection[str] | None = None,
    baselines: bool = True,
    features: SpaceName | None = None,
    feature_weights: str | Path | None = None,
    say: Callable[[str], None] | None = None,
) -> Report:
    """Judge a run's f on data that chose nothing, append the rows to its metrics.jsonl, write RUN/report/.

    The record has kind "evaluation", the checkpoint's step, seed, weights, and all rows under "metrics".

    Args:
        run: a run, or the path of one or of one of its checkpoints.
        seed, samples, metrics, baselines, features, feature_weights: as for :func:`naign_ext.evaluation.evaluate`.
        device, weights, checkpoint: as for :meth:`Projector.load`.
        pictures: also draw the pictures and write the page.
        say: receives a line before each stage.

    Raises:
        ConfigError, CheckpointError, DataUnavailableError (ValueErrors): the run or its data cannot be read.
    """
    chosen = chosen_metrics(metrics)
    run = run if isinstance(run, Run) else Run.open(run)
    tell = say or (lambda line: None)
    projector = run.projector(device, weights, checkpoint)
    tell("measuring")
    context = EvalContext.prepare(
        projector.f,
        run.dataset.for_test(),
        seed=seed,
        samples=samples,
        latent_scale=projector.latent_scale,
        features=features,
        feature_weights=feature_weights,
    )
    results, space = measure(context, chosen, baselines=baselines), context.judges.space.name
    step = int(projector.about["step"])
    with run.log(step) as log:
        facts = {"step": step, "weights": weights, "seed": seed, "features": space}
        log.write({"kind": "evaluation", **facts, "metrics": results.to_json()})
    page = run.path / "report" / "report.html"
    if not pictures:
        return Report(results, space, page)
    tell("drawing")
    records = run.metrics()
    drawn = draw_pictures(context, results, records, page.parent)
    page.write_text(render_page(run.config, projector, results, drawn, records, space), encoding="ascii")
    return Report(results, space, page, [picture.path for picture in drawn])
