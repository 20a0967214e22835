"""The search for IGN's settings on a data set."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from naign_ext.evaluation import Condition, Key, Results, Row, describe
from naign_ext.evaluation.results import MAP, ONCE
from naign_ext.json_files import rounded
from naign_ext.reproduce.methods import Settings
from naign_ext.reproduce.runs import Run

# What decides, one metric for each kind of claim, by the kind of data: vectors, labelled images, others.
_GAIN, _AUROC = Key("gain", MAP, Condition("noise", 0.5)), Key("ood_auroc", MAP)
VECTOR_METRICS = (Key("energy_distance", ONCE), Key("high_quality", ONCE), Key("residual_spearman", MAP))
LABELLED_METRICS = (Key("fld", ONCE), Key("classes", ONCE), _GAIN, _AUROC)
IMAGE_METRICS = (Key("fld_pixels", ONCE), Key("train_coverage", ONCE), _GAIN, _AUROC)

# What has to be measured for them.
OF_VECTORS = ("energy_distance", "high_quality", "distance_field")
OF_IMAGES = ("fld", "classes", "train_coverage", "restoration", "auroc")

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
    """The search as plain data: every candidate with the means of its metrics, its rank, and the number of the
    chosen one.

    A candidate's rank is the mean, over the metrics of its data set's kind, of its place among all candidates by
    the mean over seeds; a candidate one of whose runs diverged comes last in all. The smallest mean rank wins,
    the first of equals.
    """
    rows = [_means(of_candidate) for of_candidate in runs]
    keys = _metrics_of(rows)
    ranks = [0.0] * len(rows)
    for key in keys:
        lower = describe(key).better == "lower"
        scores = [_score(row, key, lower=lower) for row in rows]
        for i, score in enumerate(scores):
            below, equal = sum(s < score for s in scores), sum(s == score for s in scores)
            ranks[i] += (below + (equal - 1) / 2) / len(keys)
    best = min(range(len(ranks)), key=lambda i: (ranks[i], i))
    return {
        "decided_by": [key.to_json() for key in keys],
        "chosen": best,
        "candidates": [
            {
                "settings": dict(settings),
                "mean_rank": round(rank, 4),
                "diverged": sum(run.status == "diverged" for run in of_candidate),
                "metrics": rounded(_rows(row, keys).to_json()),
            }
            for settings, rank, row, of_candidate in zip(candidates, ranks, rows, runs, strict=True)
        ],
    }


def _means(runs: Sequence[Run]) -> dict[Key, float]:
    if any(not run.results.rows for run in runs):
        return {}
    shared = set.intersection(*({row.key for row in run.results.rows} for run in runs))
    return {key: statistics.fmean(run.results[key] for run in runs) for key in shared}


def _rows(means: Mapping[Key, float], keys: Sequence[Key]) -> Results:
    """The means as rows; NaN where there is none."""
    return Results(tuple(Row(k.metric, k.subject, means.get(k, math.nan), k.condition) for k in keys))


def _metrics_of(rows: Sequence[Mapping[Key, float]]) -> tuple[Key, ...]:
    for keys in (LABELLED_METRICS, IMAGE_METRICS):
        if any(keys[0] in row for row in rows):
            return keys
    present = set().union(*rows)
    return tuple(key for key in VECTOR_METRICS if key in present) or VECTOR_METRICS


def _score(row: Mapping[Key, float], key: Key, *, lower: bool) -> float:
    if key not in row:
        return float("inf")
    return row[key] if lower else -row[key]
