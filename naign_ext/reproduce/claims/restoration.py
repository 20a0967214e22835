"""Restoring corrupted images that f has not seen."""

from pathlib import Path

import torch

from naign_ext.evaluation.restoration import RESTORATIONS
from naign_ext.reproduce import drawing
from naign_ext.reproduce.baselines import best_tv
from naign_ext.reproduce.claims.base import Claim, Result
from naign_ext.reproduce.methods import BEST, IGN, METHODS, PLAIN
from naign_ext.reproduce.runs import JUDGE_SEED, judged_data
from naign_ext.reproduce.study import Evidence, Study
from naign_ext.transforms import corrupt

_NAMES = [name for name, _, _ in RESTORATIONS]
_EACH = 3


def draw(study: Study, evidence: Evidence, result: Result, path: Path) -> None:
    """Gains in PSNR by corruption and method, a panel for each data set; pictures go beside it."""
    series, trivial = result["figures"], result["trivial"]
    with drawing.page(path, 1, len(evidence.runs), height=3.6, sharey=True) as (figure, axes):
        for axis, dataset in zip(axes[0], evidence.runs, strict=True):
            keys = [f"restore_{name}_gain" for name in _NAMES]
            values = {
                method: [[v for v in series[dataset][method].get(key, []) if v is not None] for key in keys]
                for method in METHODS
                if method in series[dataset]
            }
            others = [
                {k: v for k, v in trivial[dataset].get(key, {}).items() if k != "nothing"} for key in keys
            ]
            drawing.dots(axis, [_words(name) for name in _NAMES], values, others)
            axis.axvline(0, color=drawing.INK, linewidth=0.7, zorder=0)
            axis.set_title(dataset)
            axis.set_xlabel("gain in PSNR, dB")
        handles, texts = axes[0][-1].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside upper center", ncols=5)
        drawing.footnote(
            figure,
            f"{study.note}; marker: mean, line: smallest to largest; crosses: best Gaussian filter, total variation, "
            "nearest training image",
        )
    for dataset in sorted({"lfw100", "mnist5k"} & set(evidence.runs)):
        _pictures(study, evidence, dataset, path.with_name(f"{path.name}-{dataset}"))


def _pictures(study: Study, evidence: Evidence, dataset: str, path: Path) -> None:
    """Some held-out images under each corruption, and what the methods make of them."""
    runs = evidence.runs[dataset]
    data = judged_data(runs[BEST][0].config)
    # Held-out rows may lie in the order of their classes.
    clean = data.heldout[:: len(data.heldout) // _EACH][:_EACH]
    rows = ["original", "corrupted", "total variation", *(METHODS[m].label for m in (IGN, PLAIN, BEST))]
    with drawing.page(path, len(rows), len(RESTORATIONS), height=0.52 * len(rows) + 0.5) as (figure, axes):
        for column, (name, kind, strength) in enumerate(RESTORATIONS):
            corrupted = corrupt(clean, kind, seed=JUDGE_SEED, strength=strength)[0]
            train = data.train[:64]
            denoise = best_tv(train, corrupt(train, kind, seed=JUDGE_SEED + 1, strength=strength)[0])
            pictures = [clean, corrupted, denoise(corrupted)]
            for method in (IGN, PLAIN, BEST):
                run = runs[method][0]
                done = run.status == "completed"
                pictures.append(run.projector().project(corrupted) if done else torch.ones_like(clean))
            for row, picture in enumerate(pictures):
                drawing.images(axes[row][column], picture, _EACH)
            axes[0][column].set_title(_words(name))
        for row, text in enumerate(rows):
            drawing.side_label(axes[row][0], text)
        drawing.footnote(figure, f"{study.note}, the first shown; held-out images of {dataset}")


def _words(name: str) -> str:
    return name.replace("noise_", "noise ").replace("downsample", "downsampled").replace("mask", "masked")


CLAIM = Claim(
    name="restoration",
    source="restoration figures",
    title="Corrupted images are restored",
    sentence="f of NAIGN brings corrupted images nearer to the originals than f of IGN.",
    datasets=("lfw100", "digits", "mnist5k"),
    figures=tuple(f"restore_{name}_gain" for name in _NAMES),
    shown=(
        *(f"restore_{name}_known_gain" for name in ("mask", "blur", "downsample")),
        "restore_noise_1.0_accuracy_after",
        "restore_noise_1.0_accuracy_before",
    ),
    caption="Gain in PSNR of f(corrupted) over the corrupted images.",
    draw=draw,
)
