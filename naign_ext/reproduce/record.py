"""A claim's outcome as it stands in its JSON file, and files of naign 0.1 read as those of today.

In memory numbers stand under keys, ``result["metrics"][DATA SET][METHOD][Key] == [one value a seed]``; JSON has lists
of {metric, subject, condition, values} instead.
"""

import statistics
from collections.abc import Callable, Mapping
from typing import Any

from naign_ext.evaluation import Key
from naign_ext.evaluation.flat_keys import key_of, results_of

SCHEMA = 2

Values = list[float | None]
"""One value a seed; None where the run has none."""

OfBaselines = dict[str, dict[Key, dict[str, list[float]]]]
"""By data set, metric and baseline, one value a seed."""


def to_json(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result as plain values."""
    metrics = {
        dataset: {
            method: [{**key.to_json(), "values": values} for key, values in of_method.items()]
            for method, of_method in methods.items()
        }
        for dataset, methods in result["metrics"].items()
    }
    comparisons = [
        {**{name: value for name, value in one.items() if name != "key"}, **one["key"].to_json()}
        for one in result["comparisons"]
    ]
    return {
        **result,
        "metrics": metrics,
        "baselines": _baselines_to_json(result["baselines"]),
        "true_data": _baselines_to_json(result["true_data"]),
        "comparisons": comparisons,
    }


def _baselines_to_json(of_datasets: OfBaselines) -> dict[str, Any]:
    return {
        dataset: [{**key.to_json(), "values": by_name} for key, by_name in of_keys.items()]
        for dataset, of_keys in of_datasets.items()
    }


def from_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """A result from what :func:`to_json` gave, or from a file of schema 1."""
    if value["schema"] == 1:
        return _from_schema_1(value)
    metrics = {
        dataset: {method: _by_key(rows) for method, rows in methods.items()}
        for dataset, methods in value["metrics"].items()
    }
    return {
        **value,
        "metrics": metrics,
        "baselines": {dataset: _by_key(rows) for dataset, rows in value["baselines"].items()},
        "true_data": {dataset: _by_key(rows) for dataset, rows in value["true_data"].items()},
        "comparisons": [{**one, "key": Key.from_json(one)} for one in value["comparisons"]],
    }


def _by_key(rows: list[dict[str, Any]]) -> dict[Key, Any]:
    return {Key.from_json(row): row["values"] for row in rows}


def _from_schema_1(value: Mapping[str, Any]) -> dict[str, Any]:
    names = {"figures": "metrics", "trivial": "baselines", "yardsticks": "true_data"}
    against = {"ign": "ign", "trivial": "baselines"}
    result: dict[str, Any] = {names.get(name, name): entry for name, entry in value.items()}
    result["metrics"] = {
        dataset: {method: _renamed(of_method, key_of) for method, of_method in methods.items()}
        for dataset, methods in value["figures"].items()
    }
    for old in ("trivial", "yardsticks"):
        result[names[old]] = {dataset: _renamed(of_keys, key_of) for dataset, of_keys in value[old].items()}
    result["comparisons"] = [
        {**one, "key": key_of(one["figure"]), "against": against[one["against"]]}
        for one in value["comparisons"]
    ]
    result["verdicts"] = _renamed(value["verdicts"], against.__getitem__)
    return result


def _renamed(entries: Mapping[str, Any], rename: Callable[[str], Any]) -> dict[Any, Any]:
    return {rename(name): entry for name, entry in entries.items()}


def _mean(value: float | Values | None) -> float | None:
    """Of one value a seed the mean; None where a seed has none."""
    if not isinstance(value, list):
        return value
    present = [v for v in value if v is not None]
    return statistics.fmean(present) if present and len(present) == len(value) else None


def search_from_json(search: Mapping[str, Any]) -> dict[str, Any]:
    """A search for IGN's settings, as :func:`naign_ext.reproduce.tuning.choose` gives it, or with flat keys."""
    if isinstance(search["decided_by"][0], Mapping):
        return dict(search)
    candidates = [
        {
            **{name: entry for name, entry in candidate.items() if name != "figures"},
            "metrics": results_of({name: _mean(v) for name, v in candidate["figures"].items()}).to_json(),
        }
        for candidate in search["candidates"]
    ]
    found = {**search, "decided_by": [key_of(name).to_json() for name in search["decided_by"]]}
    found["candidates"] = candidates
    if "heat" in search:
        found["heat"] = search_from_json(search["heat"])
    return found
