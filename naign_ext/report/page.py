"""One page with a run's metrics and pictures that needs nothing beside itself."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
import yaml
from jinja2 import Environment, StrictUndefined, Template
from PIL import Image

from naign_ext import __version__
from naign_ext.config import TrainConfig
from naign_ext.evaluation.results import Results
from naign_ext.projector import Projector
from naign_ext.report import tables
from naign_ext.report.tables import MetricRow

TEMPLATE = "report.html.j2"
_LONGEST_PARAMETERS = 2000


@dataclass(frozen=True)
class Picture:
    """A PNG file and what it shows."""

    caption: str
    path: Path

    @property
    def data(self) -> str:
        """The file in base64."""
        return base64.b64encode(self.path.read_bytes()).decode("ascii")

    @property
    def width(self) -> int:
        """In points of a page, which shows it at half its size."""
        with Image.open(self.path) as picture:
            return picture.width // 2


@dataclass(frozen=True)
class MetricTable:
    """The metrics of one group: a column for f or f(z), for f(f(z)) where there is one, and for each baseline."""

    group: str
    rows: list[MetricRow]

    @property
    def columns(self) -> list[str]:
        """Heads of the columns of f."""
        return ["f(z)", "f(f(z))"] if any(row.twice for row in self.rows) else ["f"]

    @property
    def baselines(self) -> list[str]:
        """Heads of the columns of baselines."""
        return tables.baseline_columns(self.rows)


def render_page(
    config: TrainConfig,
    projector: Projector,
    results: Results,
    pictures: Sequence[Picture],
    records: Sequence[Mapping[str, Any]] = (),
    features: str = "",
) -> str:
    """The report as ASCII HTML with the pictures inside it; records: of the run's metrics.jsonl."""
    rows = tables.metric_rows(results)
    page = _template().render(
        title=f"naign: {config.dataset}",
        facts={name: value for name, value in _facts(config, projector, records, features).items() if value},
        pictures=pictures,
        tables=[
            MetricTable(group, list(of_group)) for group, of_group in groupby(rows, lambda row: row.group)
        ],
        baselines=tables.baselines_sentence(results),
        restoration=tables.restoration_rows(results),
        restoration_columns=tables.RESTORATION_COLUMNS,
        accuracy=tables.accuracy_sentence(results),
        configuration=_configuration(config),
    )
    return page.encode("ascii", "xmlcharrefreplace").decode("ascii")


def _template() -> Template:
    text = resources.files("naign_ext.report").joinpath(TEMPLATE).read_text(encoding="ascii")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(text)


def _facts(
    config: TrainConfig, projector: Projector, records: Sequence[Mapping[str, Any]], features: str
) -> dict[str, str]:
    parameters = sum(p.numel() for p in projector.f.parameters())
    seconds = next((r["seconds"] for r in reversed(records) if r.get("kind") == "train"), None)
    return {
        "data set": config.dataset,
        "objective": config.objective.name,
        "preset": config.preset,
        "seed": str(config.seed),
        "updates": f"{projector.about.get('step')} of {config.steps}",
        "training time": "" if seconds is None else f"{seconds:.0f} s",
        "network": f"{config.model.architecture}, {parameters:,} parameters",
        "weights": str(projector.about.get("weights")),
        "images compared by": features if projector.kind == "image" else "",
        "versions": f"naign {__version__}, torch {torch.__version__}",
    }


def _configuration(config: TrainConfig) -> str:
    """The configuration as YAML; hundreds of file hashes belong in config.yaml, not on a page to read."""
    values = config.model_dump(mode="json")
    if len(json.dumps(values.get("data_parameters", {}))) >= _LONGEST_PARAMETERS:
        del values["data_parameters"]
    text: str = yaml.safe_dump(values, sort_keys=False)
    return text
