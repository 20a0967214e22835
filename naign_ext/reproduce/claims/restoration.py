"""Restoring corrupted images that f has not seen."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from naign_ext.evaluation import Condition, Key
from naign_ext.evaluation.baselines import CORRUPTED
from naign_ext.evaluation.classical import MOST_TUNED, best_tv_weight, denoise_tv
from naign_ext.evaluation.results import MAP
from naign_ext.evaluation.subjects import RECOGNISED, RESTORATIONS
from naign_ext.reproduce import drawing
from naign_ext.reproduce.claims.base import Claim, Result
from naign_ext.reproduce.methods import BEST, IGN, METHODS, PLAIN
from naign_ext.reproduce.runs import JUDGE_SEED, judged_data
from naign_ext.reproduce.study import Evidence, Study
from naign_ext.transforms import corrupt

if TYPE_CHECKING:
    from matplotlib.figure import SubFigure

GAINS = tuple(Key("gain", MAP, condition) for condition in RESTORATIONS)
ACCURACY = Key("accuracy", MAP, RECOGNISED)
_PICTURED = (IGN, PLAIN, BEST)
_ROWS = ("original", "corrupted", "total variation", *(METHODS[m].label for m in _PICTURED))
_EACH = 3
_GAINS_HEIGHT, _ROW_HEIGHT = 3.6, 0.52


def draw(study: Study, evidence: Evidence, result: Result, path: Path) -> None:
    """Gains in PSNR by corruption and method, a panel for each data set; pictures of two data sets below."""
    pictured = sorted({"lfw100", "mnist5k"} & set(evidence.runs))
    heights = [_GAINS_HEIGHT, *[_ROW_HEIGHT * len(_ROWS) + 0.5] * len(pictured)]
    with drawing.sheet(path, height=sum(heights)) as figure:
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        _gains(parts[0], study, evidence, result)
        for part, dataset in zip(parts[1:], pictured, strict=True):
            _pictures(part, study, evidence, dataset)


def _gains(figure: "SubFigure", study: Study, evidence: Evidence, result: Result) -> None:
    series, baselines = result["metrics"], result["baselines"]
    axes = figure.subplots(1, len(evidence.runs), sharey=True, squeeze=False)[0]
    for axis, dataset in zip(axes, evidence.runs, strict=True):
        values = {
            method: [[v for v in series[dataset][method].get(key, []) if v is not None] for key in GAINS]
            for method in METHODS
            if method in series[dataset]
        }
        others = [
            {k: v for k, v in baselines[dataset].get(key, {}).items() if k != "nothing"} for key in GAINS
        ]
        drawing.dots(axis, [_words(condition) for condition in RESTORATIONS], values, others)
        axis.axvline(0, color=drawing.INK, linewidth=0.7, zorder=0)
        axis.set_title(dataset)
        axis.set_xlabel("gain in PSNR, dB")
    handles, texts = axes[-1].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside upper center", ncols=5)
    drawing.footnote(
        figure,
        f"{study.note}; marker: mean, line: smallest to largest; crosses: best Gaussian filter, total variation, "
        "nearest training image",
    )


def _pictures(figure: "SubFigure", study: Study, evidence: Evidence, dataset: str) -> None:
    """Some held-out images under each corruption, and what the methods make of them."""
    runs = evidence.runs[dataset]
    data = judged_data(runs[BEST][0].config)
    # Held-out rows may lie in the order of their classes.
    clean = data.heldout[:: len(data.heldout) // _EACH][:_EACH]
    axes = figure.subplots(len(_ROWS), len(RESTORATIONS), squeeze=False)
    for column, condition in enumerate(RESTORATIONS):
        kind, strength = condition.corruption, condition.strength
        corrupted = corrupt(clean, kind, seed=JUDGE_SEED, strength=strength)[0]
        train = data.train[:MOST_TUNED]
        weight = best_tv_weight(train, corrupt(train, kind, seed=JUDGE_SEED + 1, strength=strength)[0])
        pictures = [clean, corrupted, denoise_tv(corrupted, weight)]
        for method in _PICTURED:
            run = runs[method][0]
            done = run.status == "completed"
            pictures.append(run.projector().project(corrupted) if done else torch.ones_like(clean))
        for row, picture in enumerate(pictures):
            drawing.images(axes[row][column], picture, _EACH)
        axes[0][column].set_title(_words(condition))
    for row, text in enumerate(_ROWS):
        drawing.side_label(axes[row][0], text)
    drawing.footnote(figure, f"{study.note}, the first shown; held-out images of {dataset}")


def _words(condition: Condition) -> str:
    return {"mask": "masked", "downsample": "downsampled"}.get(condition.corruption, condition.words)


CLAIM = Claim(
    name="restoration",
    source="restoration figures",
    title="Corrupted images are restored",
    sentence="f of NAIGN brings corrupted images nearer to the originals than f of IGN.",
    datasets=("lfw100", "digits", "mnist5k"),
    compared=GAINS,
    shown=(
        *(Key("gain", MAP, Condition(kind, known=True)) for kind in ("mask", "blur", "downsample")),
        ACCURACY,
        ACCURACY.of(CORRUPTED),
    ),
    caption="Gain in PSNR of f(corrupted) over the corrupted images.",
    draw=draw,
)
