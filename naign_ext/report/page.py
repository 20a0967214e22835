"""The end of a run: figures, pictures, and one page with both that needs nothing beside itself."""

import base64
import html
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from naign_ext import __version__
from naign_ext.checkpoint import Which
from naign_ext.config import TrainConfig
from naign_ext.data import Dataset
from naign_ext.evaluation import PARTS, describe, evaluate
from naign_ext.evaluation.descriptions import BASELINES
from naign_ext.evaluation.evaluate import default_features
from naign_ext.evaluation.features import SpaceName
from naign_ext.metrics_log import read_metrics
from naign_ext.projector import Projector
from naign_ext.report import plots
from naign_ext.run import Run

_PICTURED = 2000
HIDDEN = ("modes_total", "classes_total")
_BETTER = {"lower": "lower is better", "higher": "higher is better", "closer": "1 is best", "-": ""}


@dataclass(frozen=True)
class Report:
    """What was measured, in which feature space sets of images were compared, and what was written, below the run
    folder."""

    figures: dict[str, float]
    features: str
    page: Path
    pictures: list[Path] = field(default_factory=list)

    @property
    def meaning(self) -> dict[str, str]:
        """What each figure is, in a sentence."""
        return {key: f"{describe(key).title}: {describe(key).text}" for key in self.figures}

    @property
    def files(self) -> list[Path]:
        """The page and its pictures."""
        return [self.page, *self.pictures]


@dataclass(frozen=True)
class FigureRow:
    """A line of the table: the figure of f(z), of f(f(z)) where there is one, and of each baseline that has it."""

    group: str
    title: str
    value: str
    twice: str
    better: str
    anchors: dict[str, str]
    text: str


@dataclass(frozen=True)
class RestorationRow:
    """A corruption of held-out images: PSNR in dB and SSIM before and after f, and a Gaussian filter's
    gain."""

    what: str
    psnr_before: str
    psnr_after: str
    gain: str
    gain_clipped: str
    filter_gain: str
    ssim_before: str
    ssim_after: str


def write_report(
    run: Run | str | Path,
    *,
    seed: int = 0,
    samples: int | None = None,
    device: torch.device | str | None = None,
    weights: str = "ema",
    checkpoint: Which = "best",
    pictures: bool = True,
    parts: Collection[str] = PARTS,
    features: SpaceName | None = None,
    feature_weights: str | Path | None = None,
    say: Callable[[str], None] | None = None,
) -> Report:
    """Judge a run's f on data that chose nothing, append the figures to its metrics.jsonl, write RUN/report/.

    The record has kind "evaluation", the checkpoint's step, seed, weights, and all figures under "figures".

    Args:
        run: or its folder, or that of one of its checkpoints.
        seed, samples, parts, features, feature_weights: as for :func:`naign_ext.evaluation.evaluate`.
        device, weights, checkpoint: as for :meth:`Projector.load`.
        pictures: also draw the pictures and write the page.
        say: receives a line before each stage.

    Raises:
        ConfigError, CheckpointError, DataUnavailableError (ValueErrors): the run or its data cannot be read.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    folder, config, tell = run.path, run.config, say or (lambda line: None)
    projector = run.projector(device, weights, checkpoint)  # type: ignore[arg-type]
    dataset = run.dataset.for_test()
    tell("measuring")
    space = features or default_features(dataset)
    figures = evaluate(
        projector.f,
        dataset,
        seed=seed,
        samples=samples,
        latent_scale=projector.latent_scale,
        parts=parts,
        features=space,
        feature_weights=feature_weights,
    )
    step = int(projector.about["step"])
    facts = {"step": step, "weights": weights, "seed": seed, "features": space}
    record = {"kind": "evaluation", **facts, "figures": figures}
    with run.log(step) as log:
        log.write(record)
    page = folder / "report" / "report.html"
    if not pictures:
        return Report(figures, space, page)
    tell("drawing")
    drawn = draw_pictures(folder, projector, dataset, figures, seed=seed)
    page.write_text(render_page(config, projector, figures, drawn, run.metrics()), encoding="ascii")
    return Report(figures, space, page, [path for _, path in drawn])


def draw_pictures(
    run: Path, projector: Projector, dataset: Dataset, figures: Mapping[str, float], *, seed: int = 0
) -> list[tuple[str, Path]]:
    """Write the pictures that fit the data set to RUN/report/; (caption, path) of each."""
    folder, f = run / "report", projector.project
    latents = projector.sample(_PICTURED, seed, steps=0)
    drawn = [("samples", plots.draw_samples(f, latents, dataset, folder / "samples.png"))]
    if dataset.kind == "image":
        if len(dataset.heldout) > 0:
            path = plots.draw_restored(f, dataset, folder / "restored.png", seed, figures)
            drawn.append(("restored", path))
        path = plots.draw_neighbours(f(latents[:12]), dataset, folder / "neighbours.png")
        drawn.append(("neighbours", path))
    elif math.prod(dataset.sample_shape) <= 2:
        drawn.append(("landscape", plots.draw_landscape(f, dataset, folder / "landscape.png")))
    if dataset.ood is not None and len(dataset.heldout) > 0:
        drawn.append(("ood", plots.draw_ood(f, dataset, folder / "ood.png", figures)))
    curves = plots.draw_training(read_metrics(run), folder / "training.png")
    return [(_CAPTIONS[name], path) for name, path in drawn + ([("training", curves)] if curves else [])]


_CAPTIONS = {
    "samples": "Training data, samples f(z), and f applied again.",
    "restored": "Held-out images, their corruptions, and what f makes of each. Right: mean PSNR and its gain.",
    "neighbours": "Samples and the training images nearest to them: how much is memorised.",
    "landscape": "The residual |f(x) - x| is the distance to the data as f sees it; f moves points onto data.",
    "ood": "The residual on held-out data and on data of another kind; AUROC 0.5 is chance, 1 is perfect.",
    "training": "Loss terms on the training batches, and the validation figures that chose the checkpoint.",
}


def figure_rows(figures: Mapping[str, float]) -> list[FigureRow]:
    """The figures as lines of a table, in the order of evaluate, restoration apart (see restoration_rows)."""
    rows = []
    for key, value in figures.items():
        if key in HIDDEN or key.endswith("_twice") or key.startswith(("anchor_", "restore_")):
            continue
        about = describe(key)
        anchors = {
            BASELINES[name][0]: short_figure(figures[f"anchor_{key}_{name}"])
            for name in BASELINES
            if f"anchor_{key}_{name}" in figures
        }
        rows.append(
            FigureRow(
                group=about.group,
                title=about.title,
                value=format_figure(value) + _out_of(key, figures),
                twice=format_figure(figures[f"{key}_twice"]) if f"{key}_twice" in figures else "",
                better=_BETTER[about.better],
                anchors=anchors,
                text=about.text,
            )
        )
    return rows


def restoration_rows(figures: Mapping[str, float]) -> list[RestorationRow]:
    """The restoration of held-out images, a line for each corruption; empty for vectors."""
    names = [
        k.removeprefix("restore_").removesuffix("_psnr_after") for k in figures if k.endswith("_psnr_after")
    ]
    rows = []
    for name in names:
        cell = {m: figures.get(f"restore_{name}_{m}") for m in _RESTORATION_CELLS}
        signed = {m: "" if v is None else f"{v:+.2f}" for m, v in cell.items()}
        plain = {m: "" if v is None else f"{v:.2f}" for m, v in cell.items()}
        rows.append(
            RestorationRow(
                what=name.replace("_known", ", known part kept").replace("_", " "),
                psnr_before=plain["psnr_before"],
                psnr_after=plain["psnr_after"],
                gain=signed["gain"],
                gain_clipped=signed["gain_clipped"],
                filter_gain=signed["filter_gain"],
                ssim_before=plain["ssim_before"],
                ssim_after=plain["ssim_after"],
            )
        )
    return rows


_RESTORATION_CELLS = (
    "psnr_before",
    "psnr_after",
    "gain",
    "gain_clipped",
    "filter_gain",
    "ssim_before",
    "ssim_after",
)


def baselines_sentence(figures: Mapping[str, float]) -> str:
    """What the baselines of these figures are; empty where there are none."""
    rows = figure_rows(figures)
    used = {name for row in rows for name in row.anchors}
    return "; ".join(f"{name}: {what}" for name, what in BASELINES.values() if name in used)


def accuracy_sentence(figures: Mapping[str, float]) -> str:
    """A classifier's accuracy on noisy held-out images before and after f; empty where there is none."""
    prefix = "restore_noise_1.0_accuracy_"
    if f"{prefix}after" not in figures:
        return ""
    before, after = (format_figure(figures[f"{prefix}{when}"]) for when in ("before", "after"))
    clean = figures.get("anchor_accuracy_classifier")
    clear = "" if clean is None else f" (clean images: {format_figure(clean)})"
    return (
        f"A classifier's accuracy on held-out images with noise of sigma 1: {before}, after f {after}{clear}."
    )


def format_figure(value: float) -> str:
    """Three significant digits, whole numbers as such."""
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def short_figure(value: float) -> str:
    """At most six or seven characters, for columns to compare by."""
    if not math.isfinite(value) or abs(value) >= 1e5:
        return f"{value:.0e}".replace("e+", "e")
    digits = 3 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    return format_figure(value) if value == int(value) else f"{value:.{digits}f}"


def _out_of(key: str, figures: Mapping[str, float]) -> str:
    total = figures.get(f"{key}_total")
    return "" if total is None else f" of {format_figure(total)}"


def render_page(
    config: TrainConfig,
    projector: Projector,
    figures: Mapping[str, float],
    pictures: Sequence[tuple[str, Path]],
    records: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The report as one ASCII HTML page with the pictures inside it."""
    parameters = sum(p.numel() for p in projector.f.parameters())
    seconds = next((r["seconds"] for r in reversed(records) if r.get("kind") == "train"), None)
    facts = {
        "data set": config.dataset,
        "objective": config.objective.name,
        "preset": config.preset,
        "seed": config.seed,
        "updates": f"{projector.about.get('step')} of {config.steps}",
        "training time": "" if seconds is None else f"{seconds:.0f} s",
        "network": f"{config.model.architecture}, {parameters:,} parameters",
        "weights": str(projector.about.get("weights")),
        "versions": f"naign {__version__}, torch {torch.__version__}",
    }
    sections = [
        _facts(facts),
        *[_picture(caption, path) for caption, path in pictures],
        _figures_table(figures),
        _restoration_table(figures),
        _configuration(config),
    ]
    title = f"naign: {config.dataset}"
    page = _PAGE.replace("{{title}}", _escape(title)).replace("{{body}}", "\n".join(filter(None, sections)))
    return page.encode("ascii", "xmlcharrefreplace").decode("ascii")


def _facts(facts: Mapping[str, object]) -> str:
    cells = "".join(
        f"<div><dt>{_escape(name)}</dt><dd>{_escape(str(value))}</dd></div>"
        for name, value in facts.items()
        if value != ""
    )
    return f"<dl>{cells}</dl>"


def _picture(caption: str, path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return (
        f'<figure><img alt="{_escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{_escape(caption)}</figcaption></figure>"
    )


def _figures_table(figures: Mapping[str, float]) -> str:
    lines, group = [], ""
    rows = figure_rows(figures)
    for row in rows:
        if row.group != group:
            group = row.group
            lines.append(f'<tr class="group"><th colspan="5">{_escape(group)}</th></tr>')
        name = f"{_escape(row.title)}<small>{_escape(row.text)}</small>"
        numbers = "".join(f'<td class="number">{_escape(cell)}</td>' for cell in (row.value, row.twice))
        others = ", ".join(f"{name} {value}" for name, value in row.anchors.items())
        rest = f'<td class="better">{_escape(row.better)}</td><td>{_escape(others)}</td>'
        lines.append(f"<tr><td>{name}</td>{numbers}{rest}</tr>")
    if not lines:
        return ""
    head = "<tr><th>figure</th><th>f(z)</th><th>f(f(z))</th><th></th><th>for comparison, without f</th></tr>"
    note = ""
    if "samples" in figures:
        note = "<p>Squares and distances are means over all elements, in the data's unit.</p>"
        note += f"<p>Without f: {_escape(baselines_sentence(figures))}.</p>"
    return f"<h2>Figures</h2><table><thead>{head}</thead><tbody>{''.join(lines)}</tbody></table>{note}"


def _restoration_table(figures: Mapping[str, float]) -> str:
    rows = restoration_rows(figures)
    if not rows:
        return ""
    names = (
        "PSNR before",
        "after",
        "gain, dB",
        "gain over clipping",
        "Gaussian filter",
        "SSIM before",
        "after",
    )
    head = "<th>corruption</th>" + "".join(f'<th class="number">{name}</th>' for name in names)
    lines = []
    for row in rows:
        values = [getattr(row, name) for name in _RESTORATION_CELLS]
        cells = "".join(f'<td class="number">{_escape(value)}</td>' for value in values)
        lines.append(f"<tr><td>{_escape(row.what)}</td>{cells}</tr>")
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    sentence = accuracy_sentence(figures)
    return f"<h2>Restoration of held-out images</h2>{table}" + (
        f"<p>{_escape(sentence)}</p>" if sentence else ""
    )


def _configuration(config: TrainConfig) -> str:
    values = config.model_dump(mode="json")
    # Hundreds of file hashes belong in config.yaml, not on a page to read.
    parameters = json.dumps(values.pop("data_parameters", {}))
    if len(parameters) < 2000:
        values["data_parameters"] = json.loads(parameters)
    text = _escape(yaml.safe_dump(values, sort_keys=False))
    return f"<details><summary>Configuration</summary><pre>{text}</pre></details>"


def _escape(text: str) -> str:
    return html.escape(text)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="ascii">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{title}}</title>
<style>
  body { font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; color:
  #2d3640;
    background: #fff; max-width: 60rem; margin: 2.5rem auto; padding: 0 1.25rem; }
  h1 { font-size: 1.7rem; margin: 0 0 1rem; }
  h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; }
  dl { display: flex; flex-wrap: wrap; gap: .75rem 2rem; margin: 0 0 2rem; padding: 1rem 1.25rem;
    background: #f4f6f8; border-radius: 8px; }
  dt { font-size: .78rem; color: #66727d; }
  dd { margin: 0; font-weight: 600; }
  figure { margin: 2rem 0; }
  img { max-width: 100%; height: auto; display: block; margin: 0 auto; }
  figcaption { color: #66727d; font-size: .88rem; margin-top: .5rem; text-align: center; }
  table { border-collapse: collapse; width: 100%; font-size: .88rem; }
  th { text-align: left; font-weight: 600; vertical-align: bottom; padding: .35rem .6rem; }
  td { padding: .35rem .6rem; border-top: 1px solid #e6e9ec; vertical-align: top; }
  td small { display: block; color: #66727d; }
  td:nth-child(1) { min-width: 15rem; }
  .better { color: #66727d; white-space: nowrap; }
  .number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
  thead th:nth-child(n+2):nth-child(-n+3) { text-align: right; }
  .group th { padding-top: 1.1rem; color: #2b6cb0; }
  p { color: #66727d; font-size: .88rem; }
  details { margin-top: 2.5rem; }
  summary { cursor: pointer; font-weight: 600; }
  pre { background: #f4f6f8; padding: 1rem; border-radius: 8px; overflow-x: auto; font-size: .8rem; }
</style>
</head>
<body>
<h1>{{title}}</h1>
{{body}}
</body>
</html>
"""
