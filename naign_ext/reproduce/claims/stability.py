"""Whether training survives the choice of the learning rate."""

import statistics
from pathlib import Path

from naign_ext.evaluation import Key
from naign_ext.evaluation.results import ONCE
from naign_ext.reproduce import drawing
from naign_ext.reproduce.claims.base import Claim, Result
from naign_ext.reproduce.methods import BEST, IGN, PLAIN
from naign_ext.reproduce.runs import Run
from naign_ext.reproduce.study import Evidence, Study

DATASET = "8gaussians"
RATES = (1e-3, 1e-2, 1e-4, 3e-3, 3e-2, 3e-4, 1e-1, 3e-1)
MODES_NEEDED = 6
_METHODS = (PLAIN, BEST, IGN)
MODES, QUALITY, TRAINED = Key("modes", ONCE), Key("high_quality", ONCE), Key("trained", ONCE)
_METRICS = ("modes", "high_quality", "energy_distance", "projection")


def rates(study: Study) -> list[float]:
    """The learning rates that are tried, ascending."""
    return sorted(RATES[: study.effort.rates])


def collect(study: Study, claim: Claim) -> Evidence:
    """Every method at each learning rate."""
    del claim
    evidence = Evidence()
    jobs, places = [], []
    for rate in rates(study):
        for method in _METHODS:
            for seed in study.effort.final_seeds:
                changes = {"optimiser.lr": rate}
                jobs.append(
                    study.job(method, DATASET, seed, metrics=_METRICS, baselines=False, changes=changes)
                )
                places.append((label(rate), method))
    for (name, method), run in zip(places, study.carry_out(jobs), strict=True):
        evidence.runs.setdefault(name, {}).setdefault(method, []).append(run)
    survivals = {}
    for method in _METHODS:
        table = [[survived(run) for run in evidence.runs[label(rate)][method]] for rate in rates(study)]
        survivals[method] = {TRAINED: [statistics.fmean(seed) for seed in zip(*table, strict=True)]}
        evidence.extra[method] = [statistics.fmean(seeds) for seeds in table]
    evidence.own[f"{DATASET}, all learning rates"] = {
        method: {key: list(values) for key, values in of_method.items()}
        for method, of_method in survivals.items()
    }
    evidence.extra["rates"] = rates(study)
    return evidence


def survived(run: Run) -> bool:
    """Whether a run neither diverged nor collapsed: at least 6 of the 8 modes hold a tenth of their share."""
    return run.status == "completed" and (run.results.get(MODES) or 0.0) >= MODES_NEEDED


def label(rate: float) -> str:
    """The name of a learning rate in tables."""
    return f"{DATASET}, learning rate {rate:g}"


def draw(study: Study, evidence: Evidence, result: Result, path: Path) -> None:
    """Share of seeds that survive, and the quality of their samples, against the learning rate."""
    tried = evidence.extra["rates"]
    with drawing.page(path, 1, 2, height=2.9) as (figure, axes):
        left, right = axes[0]
        for i, method in enumerate(_METHODS):
            left.plot(
                [rate * 1.05 ** (i - 1) for rate in tried], [100 * v for v in evidence.extra[method]],
                color=drawing.COLOURS[method], linestyle=drawing.LINES[method], marker=drawing.MARKERS[method],
                markersize=4.5, linewidth=1.4, label=drawing.label(method),
            )  # fmt: skip
            values = [result["metrics"][label(rate)][method].get(QUALITY, []) for rate in tried]
            filled = [
                [0.0 if v is None else v for v in seeds] or [0.0] * study.effort.seeds for seeds in values
            ]
            drawing.band(right, tried, list(zip(*filled, strict=True)), method)
        left.set_ylim(-5, 105)
        left.set_ylabel("% of seeds not lost")
        right.set_ylabel("share of good samples")
        right.set_ylim(0, 1)
        figure.legend(*right.get_legend_handles_labels(), loc="outside upper center", ncols=3)
        for axis in (left, right):
            axis.set_xscale("log")
            axis.set_xticks(tried, [f"{rate:g}".removeprefix("0") for rate in tried])
            axis.minorticks_off()
            axis.set_xlabel("learning rate")
        drawing.footnote(
            figure,
            f"{DATASET}; {study.note}; collapsed: fewer than {MODES_NEEDED} of 8 modes; shading: smallest to "
            "largest, a diverged run counts as 0",
        )


CLAIM = Claim(
    name="stability",
    source="training stability",
    title="Training survives the learning rate",
    sentence="NAIGN trains at more learning rates than IGN without diverging or collapsing.",
    datasets=(DATASET,),
    compared=(TRAINED,),
    shown=(MODES, QUALITY, Key("energy_distance", ONCE)),
    caption="Left: seeds that neither diverge nor collapse. Right: share of samples within 4 sigma of a mode.",
    draw=draw,
    collect=collect,
)
