"""The search for IGN's settings on a data set."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from naign_ext.evaluation import describe
from naign_ext.json_files import rounded
from naign_ext.reproduce.methods import Settings
from naign_ext.reproduce.runs import Run

# What decides, one figure for each kind of claim, by the kind of data: vectors, labelled images, others.
VECTOR_FIGURES = ("energy_distance", "high_quality", "residual_spearman")
LABELLED_FIGURES = ("fld_features", "classes", "restore_noise_0.5_gain", "ood_auroc")
IMAGE_FIGURES = ("fld_pixels", "train_coverage", "restore_noise_0.5_gain", "ood_auroc")

# What has to be measured for them.
VECTOR_PARTS = ("energy_distance", "high_quality", "distance_field")
IMAGE_PARTS = ("fld", "classes", "train_coverage", "restoration", "auroc")

# More candidates than these run a first heat, one seed and a part of the updates; so many go on to train in full.
MOST_IN_FULL = 13
HEAT_SHARE = 0.25
FINALISTS = 4


def leaders(search: Mapping[str, Any]) -> list[Settings]:
    """The best candidates of a heat, in the order in which they were tried."""
    ranks = [candidate["mean_rank"] for candidate in search["candidates"]]
    best = sorted(range(len(ranks)), key=lambda i: (ranks[i], i))[:FINALISTS]
    return [search["candidates"][i]["settings"] for i in sorted(best)]


def choose(candidates: Sequence[Settings], runs: Sequence[Sequence[Run]]) -> dict[str, Any]:
    """The search as plain data: every candidate with the means of its figures, its rank, and the number of the
    chosen one.

    A candidate's rank is the mean, over the figures of its data set's kind, of its place among all candidates by
    the mean over seeds; a candidate one of whose runs diverged comes last in all. The smallest mean rank wins,
    the first of equals.
    """
    rows = [_means(of_candidate) for of_candidate in runs]
    keys = _figures_of(rows)
    ranks = [0.0] * len(rows)
    for key in keys:
        lower = describe(key).better == "lower"
        scores = [_score(row, key, lower=lower) for row in rows]
        for i, score in enumerate(scores):
            below, equal = sum(s < score for s in scores), sum(s == score for s in scores)
            ranks[i] += (below + (equal - 1) / 2) / len(keys)
    best = min(range(len(ranks)), key=lambda i: (ranks[i], i))
    return {
        "decided_by": list(keys),
        "chosen": best,
        "candidates": [
            {
                "settings": dict(settings),
                "mean_rank": round(rank, 4),
                "diverged": sum(run.status == "diverged" for run in of_candidate),
                "figures": rounded({key: row.get(key) for key in keys}),
            }
            for settings, rank, row, of_candidate in zip(candidates, ranks, rows, runs, strict=True)
        ],
    }


def _means(runs: Sequence[Run]) -> dict[str, float]:
    if any(not run.figures for run in runs):
        return {}
    shared = set.intersection(*(set(run.figures) for run in runs))
    return {key: statistics.fmean(run.figures[key] for run in runs) for key in shared}


def _figures_of(rows: Sequence[Mapping[str, float]]) -> tuple[str, ...]:
    for keys in (LABELLED_FIGURES, IMAGE_FIGURES):
        if any(keys[0] in row for row in rows):
            return keys
    present = set().union(*rows)
    return tuple(key for key in VECTOR_FIGURES if key in present) or VECTOR_FIGURES


def _score(row: Mapping[str, float], key: str, *, lower: bool) -> float:
    if key not in row:
        return float("inf")
    return row[key] if lower else -row[key]
