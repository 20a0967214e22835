"""Quality against the number of training images."""

from pathlib import Path

import torch

from naign_ext.evaluation import Key, evaluate
from naign_ext.evaluation.results import ONCE
from naign_ext.reproduce import drawing
from naign_ext.reproduce.claims.base import Claim, Result
from naign_ext.reproduce.methods import BEST, IGN, PLAIN
from naign_ext.reproduce.runs import JUDGE_SEED, Run, judged_data
from naign_ext.reproduce.study import Evidence, Study
from naign_ext.run import load_configured

DATASET = "digits"
SIZES = (30, 300, 100, 50, 1000)
_METHODS = (PLAIN, BEST, IGN)
FLD, COVERAGE = Key("fld", ONCE), Key("coverage", ONCE)
_METRICS = ("fld", "prdc", "classes", "train_coverage", "projection")
_COMPONENTS = 8


def sizes(study: Study) -> list[int]:
    """The numbers of images that are tried, ascending."""
    return sorted(SIZES[: study.effort.sizes])


def collect(study: Study, claim: Claim) -> Evidence:
    """Every method on nested parts of the training set, all judged against the whole of it."""
    del claim
    evidence = Evidence()
    jobs, places = [], []
    for size in sizes(study):
        for method in _METHODS:
            for seed in study.effort.final_seeds:
                options = {"changes": {"train_rows": size}, "judged_on_all": True, "curve": False}
                jobs.append(study.job(method, DATASET, seed, metrics=_METRICS, baselines=False, **options))
                places.append((label(size), method))
    for (name, method), run in zip(places, study.carry_out(jobs), strict=True):
        evidence.runs.setdefault(name, {}).setdefault(method, []).append(run)
    for name, runs in evidence.runs.items():
        evidence.baselines[name] = {FLD: {"pca": [_pca_fld(run) for run in runs[BEST]]}}
    evidence.extra["sizes"] = sizes(study)
    return evidence


def label(size: int) -> str:
    """The name of a part of the training set in tables."""
    return f"{DATASET}, {size} images"


def _pca_fld(run: Run) -> float:
    """FLD of the Gaussian with the few images' mean and 8 principal components: a linear map of latents."""
    few, everything = load_configured(run.config), judged_data(run.config, judged_on_all=True)
    rows = few.train.flatten(1)
    centre = rows.mean(dim=0)
    _, singular, axes = torch.linalg.svd(rows - centre, full_matrices=False)
    kept = min(_COMPONENTS, len(singular))
    deviation = singular[:kept] / (len(rows) - 1) ** 0.5

    def sample(z: torch.Tensor) -> torch.Tensor:
        drawn: torch.Tensor = centre + (z.flatten(1)[:, :kept] * deviation) @ axes[:kept]
        return drawn.view_as(z)

    return evaluate(sample, everything, seed=JUDGE_SEED, metrics=["fld"], baselines=False)[FLD]


def draw(study: Study, evidence: Evidence, result: Result, path: Path) -> None:
    """FLD and coverage of all training images against the number trained on."""
    series = result["metrics"]
    counts = evidence.extra["sizes"]
    panels = ((FLD, "FLD (lower is better)"), (COVERAGE, "coverage of all images"))
    with drawing.page(path, 1, 2, height=3.0) as (figure, axes):
        for axis, (key, title) in zip(axes[0], panels, strict=True):
            for method in _METHODS:
                seeds = [series[label(size)][method].get(key, []) for size in counts]
                if any(None in values or not values for values in seeds):
                    continue
                drawing.band(axis, counts, list(zip(*seeds, strict=True)), method)
            axis.set_xscale("log")
            axis.set_xticks(counts, [str(size) for size in counts])
            axis.minorticks_off()
            axis.set_xlabel("training images")
            axis.set_ylabel(title)
        fields = [result["baselines"][label(size)][FLD]["pca"] for size in counts]
        means = [sum(values) / len(values) for values in fields]
        axes[0][0].plot(counts, means, "x:", color=drawing.FAINT, linewidth=1, label="PCA Gaussian")
        handles, texts = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside upper center", ncols=4)
        drawing.footnote(figure, f"{DATASET}; {study.note}; line: mean; shading: smallest to largest")


CLAIM = Claim(
    name="few-shot",
    source="few-shot experiments",
    title="Few training images",
    sentence="NAIGN generates better samples than IGN from few training images.",
    datasets=(DATASET,),
    compared=(FLD, COVERAGE),
    shown=(Key("classes", ONCE), Key("train_coverage", ONCE), Key("recall", ONCE)),
    caption="Runs on nested parts of the training set, judged against the whole of it and on the same held-out images.",
    draw=draw,
    collect=collect,
)
