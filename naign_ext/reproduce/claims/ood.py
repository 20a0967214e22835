"""Telling data from what is not data by the residual."""

import statistics
from pathlib import Path

import numpy as np
import torch

from naign_ext.evaluation import Key, nearest_distance
from naign_ext.evaluation.results import MAP
from naign_ext.reproduce import drawing
from naign_ext.reproduce.claims.base import Claim, Result
from naign_ext.reproduce.runs import Run, judged_data
from naign_ext.reproduce.study import Evidence, Study

AUROC = Key("ood_auroc", MAP)
_FALSE = np.linspace(0, 1, 201)


def draw(study: Study, evidence: Evidence, result: Result, path: Path) -> None:
    """ROC curves of the residual, and of the distance to the nearest training image."""
    with drawing.page(path, 1, len(evidence.runs), height=2.9, sharey=True) as (figure, axes):
        for axis, dataset in zip(axes[0], evidence.runs, strict=True):
            runs = evidence.runs[dataset]
            axis.plot([0, 1], [0, 1], color="#e0e3e6", linewidth=0.8)
            for method, of_method in runs.items():
                rows = [_roc(run) for run in of_method if run.status == "completed"]
                if rows:
                    values = [v for v in result["metrics"][dataset][method][AUROC] if v is not None]
                    text = f"{drawing.label(method)}: {statistics.fmean(values):.3f}"
                    drawing.band(axis, list(_FALSE), rows, method, label=text)
            nearest = [_nearest_roc(run) for run in next(iter(runs.values()))]
            mean = statistics.fmean(result["baselines"][dataset][AUROC]["nearest"])
            axis.plot(
                _FALSE, np.mean(nearest, axis=0), color=drawing.FAINT, linestyle=(0, (1, 1)), linewidth=1.3,
                label=f"nearest training image: {mean:.3f}",
            )  # fmt: skip
            axis.set_title(dataset)
            axis.set_xlabel("data taken for foreign")
            axis.set_ylim(0.3, 1.02)
            axis.legend(loc="lower right", fontsize=6, handlelength=2.2)
        axes[0][0].set_ylabel("foreign found")
        drawing.footnote(
            figure,
            f"{study.note}; line: mean, shading: smallest to largest; numbers: AUROC; foreign: images that are "
            "not faces; digits with their quarters rearranged",
        )


def _roc(run: Run) -> list[float]:
    dataset = judged_data(run.config)
    assert dataset.ood is not None
    projector = run.projector()
    return roc(projector.score(dataset.heldout).residual, projector.score(dataset.ood).residual)


def _nearest_roc(run: Run) -> list[float]:
    dataset = judged_data(run.config)
    assert dataset.ood is not None
    return roc(nearest_distance(dataset.train, dataset.heldout), nearest_distance(dataset.train, dataset.ood))


def roc(inside: torch.Tensor, outside: torch.Tensor) -> list[float]:
    """Share of outside above each threshold, against the share of inside above it, at 201 even shares."""
    thresholds = torch.cat([inside, outside]).sort(descending=True).values
    false = (inside[None] >= thresholds[:, None]).float().mean(dim=1).numpy()
    found = (outside[None] >= thresholds[:, None]).float().mean(dim=1).numpy()
    return [float(v) for v in np.interp(_FALSE, np.r_[0, false], np.r_[0, found])]


CLAIM = Claim(
    name="ood",
    source="Section 4, out-of-distribution detection",
    title="Foreign images are recognised",
    sentence="The residual of NAIGN tells data from foreign images better than that of IGN.",
    datasets=("lfw100", "digits", "mnist5k"),
    compared=(AUROC, Key("ood_auroc_normalised", MAP), Key("ood_auroc_multiscale", MAP)),
    caption="ROC curves of the residual |f(x) - x| on held-out against foreign images.",
    draw=draw,
)
