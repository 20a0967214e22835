"""Fig. 5: faces from a hundred images."""

from pathlib import Path

import torch
from torch import Tensor

from naign_ext.evaluation import Key
from naign_ext.evaluation.ood import nearest_row
from naign_ext.evaluation.results import MAP, ONCE, TWICE
from naign_ext.reproduce import drawing
from naign_ext.reproduce.claims.base import Claim, Result
from naign_ext.reproduce.runs import judged_data
from naign_ext.reproduce.study import Evidence, Series, Study

FLD, COVERAGE = Key("fld_pixels", ONCE), Key("train_coverage", ONCE)
_COLUMNS = 14


def draw(study: Study, evidence: Evidence, result: Result, path: Path) -> None:
    """Samples of each method's first seed, each above its nearest training image."""
    metrics = result["metrics"]["lfw100"]
    runs = evidence.runs["lfw100"]
    rows = len(runs) + 1
    heights = [1.0, *[2.05] * len(runs)]
    with drawing.page(
        path, rows, 1, height=0.47 * sum(heights) + 0.7, gridspec_kw={"height_ratios": heights}
    ) as (figure, axes):
        data = judged_data(next(iter(runs.values()))[0].config).train
        drawing.images(axes[0][0], data[:_COLUMNS], _COLUMNS)
        drawing.side_label(axes[0][0], "training data")
        for (method, of_method), (axis,) in zip(runs.items(), axes[1:], strict=True):
            run = of_method[0]
            drawing.side_label(axis, _note(drawing.label(method), metrics[method]))
            drawing.bare(axis)
            if run.status == "completed":
                data = judged_data(run.config).train
                samples = run.projector().sample(_COLUMNS, seed=1)
                drawing.images(axis, _stacked(samples, nearest_row(data, samples)), _COLUMNS)
        drawing.footnote(
            figure,
            f"{study.note}; above samples f(z) of the first, below the training image nearest to each; numbers: means",
        )


def _stacked(above: Tensor, below: Tensor) -> Tensor:
    return torch.cat([above, below])


def _note(title: str, series: Series) -> str:
    lines = [title]
    for key, text in ((FLD, "FLD {:.3g}"), (COVERAGE, "coverage {:.2f}")):
        values = [v for v in series.get(key, []) if v is not None]
        if values:
            lines.append(text.format(sum(values) / len(values)))
    return "\n".join(lines)


CLAIM = Claim(
    name="faces",
    source="Fig. 5",
    title="Faces from few images",
    sentence="Trained on a hundred faces, NAIGN generates more of them, and closer to the data, than IGN.",
    datasets=("lfw100",),
    compared=(FLD, COVERAGE, Key("fixed_point_heldout", MAP)),
    shown=(
        FLD.of(TWICE),
        *(Key(name, ONCE) for name in ("authenticity", "variance_ratio", "precision", "recall")),
        Key("idempotence", MAP),
    ),
    caption="LFW-100 (80 training images) in place of FFHQ-100. FLD of few images is a rough guide: read it beside "
    "coverage and the trivial baselines.",
    draw=draw,
)
