"""Fig. 4: FLD over the course of training."""

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naign_ext.evaluation import Key
from naign_ext.evaluation.results import ONCE, TWICE
from naign_ext.reproduce import drawing
from naign_ext.reproduce.claims.base import Claim, Result, train_on_each
from naign_ext.reproduce.runs import Run
from naign_ext.reproduce.study import Evidence, Series, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KEYS = (Key("fld", ONCE), Key("fld_pixels", ONCE))
LATE = Key("fld_late", ONCE)


def collect(study: Study, claim: Claim) -> Evidence:
    """Every run's curve, and of each the highest FLD in the second half of training."""
    evidence = train_on_each(study, claim)
    for dataset, runs in evidence.runs.items():
        own: dict[str, Series] = {}
        curves: dict[str, list[Any]] = {}
        for method, of_method in runs.items():
            found = [curve(run) for run in of_method]
            curves[method] = found
            own[method] = {LATE: [late(points) for points in found]}
        evidence.own[dataset] = own
        evidence.extra[dataset] = curves
    return evidence


def curve(run: Run) -> list[list[float]]:
    """[update, FLD] at each checkpoint; those without a finite FLD are left out."""
    points = []
    for point in run.curve:
        values = [point.results[key] for key in KEYS if key in point.results]
        if values:
            points.append([point.step, values[0]])
    return points


def late(points: list[list[float]]) -> float | None:
    """The highest FLD in the second half of a curve."""
    if not points:
        return None
    half = points[-1][0] / 2
    return max(value for step, value in points if step >= half)


def draw(study: Study, evidence: Evidence, result: Result, path: Path) -> None:
    """FLD against the part of training that is done."""
    with drawing.page(path, 1, len(evidence.runs), height=3.1) as (figure, axes):
        for axis, (dataset, curves) in zip(axes[0], evidence.extra.items(), strict=True):
            shown: list[float] = []
            for method, of_seeds in curves.items():
                complete = [points for points in of_seeds if points]
                length = min((len(points) for points in complete), default=0)
                if length == 0:
                    continue
                last = complete[0][-1][0]
                share = [100 * step / last for step, _ in complete[0][:length]]
                rows = [[value for _, value in points[:length]] for points in complete]
                drawing.band(axis, share, rows, method)
                shown += [value for row in rows for value in row[1:]]
            key = next((k for k in KEYS if k in result["baselines"][dataset]), None)
            if key is not None:
                shown += _baseline_lines(
                    axis, result["baselines"][dataset][key], 1.5 * max(shown, default=100.0)
                )
            axis.set_title(dataset)
            axis.set_xlabel("% of training")
            axis.set_xlim(0, 112)
            if shown:
                spread = max(shown) - min(shown)
                axis.set_ylim(min(shown) - 0.08 * spread, max(shown) + 0.08 * spread)
        axes[0][0].set_ylabel("FLD (lower is better)")
        figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
        drawing.footnote(
            figure,
            f"{study.note}; line: mean; shading: smallest to largest; dotted: samplers without a network",
        )


def _baseline_lines(axis: "Axes", baselines: dict[str, list[float]], highest: float) -> list[float]:
    """Dotted lines at the means of the Gaussian and the blurred data, and these means; those too high are left out."""
    means = {name: statistics.fmean(baselines[name]) for name in ("pca", "blur") if baselines.get(name)}
    means = {name: mean for name, mean in means.items() if mean < highest}
    for name, mean in means.items():
        axis.axhline(mean, color=drawing.FAINT, linewidth=0.8, linestyle=":")
        words = {"pca": "PCA", "blur": "blur"}[name]
        axis.text(101, mean, words, fontsize=6.5, va="bottom", color=drawing.TRUE)
    return list(means.values())


CLAIM = Claim(
    name="fld-over-training",
    source="Fig. 4",
    title="Quality over training",
    sentence="NAIGN reaches a lower FLD than IGN and keeps it: training is stable.",
    datasets=("digits", "mnist5k"),
    compared=(KEYS[0], LATE, Key("classes", ONCE)),
    shown=(
        KEYS[0].of(TWICE),
        *(Key(name, ONCE) for name in ("confident", "variance_ratio", "train_coverage")),
    ),
    caption="Feature Likelihood Divergence of samples at every twelfth of training, on held-out images.",
    draw=draw,
    collect=collect,
)
