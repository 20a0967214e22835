"""A reproduction under way: which runs a claim needs, and what comes of them as plain data."""

import hashlib
import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from naign_ext import __version__
from naign_ext.config import TrainConfig
from naign_ext.data.registry import describe_datasets
from naign_ext.evaluation import Key, Results
from naign_ext.reproduce import methods, tuning, verdict
from naign_ext.reproduce.costs import Stages, costs_in_turns, seconds_of
from naign_ext.reproduce.effort import Effort
from naign_ext.reproduce.methods import BEST, IGN, IGN_SECONDS, METHODS, NAIGN, RIVALS, Settings
from naign_ext.reproduce.record import SCHEMA, OfBaselines, Values
from naign_ext.reproduce.runs import Job, Run, carry_out_all, run_name
from naign_ext.reproduce.vocabulary import about, competitors, true_data

CURVED = ("digits", "mnist5k")
"""Data sets whose runs are judged at every checkpoint."""

Runs = dict[str, list[Run]]
"""By method, one run a seed."""

Series = dict[Key, Values]
"""By metric, one value a seed."""


@dataclass(frozen=True)
class Statement:
    """A claim in words. name: on the command line; source: where the paper makes it."""

    name: str
    source: str
    title: str
    sentence: str


@dataclass
class Evidence:
    """All runs of a claim: by data set (or variant of one, such as a number of images), by method.

    own: what the claim computed itself from several runs, by data set and method. baselines: what competing baselines
    score beyond those in the runs. extra: data that its picture needs and that is not a run's.
    """

    runs: dict[str, Runs] = field(default_factory=dict)
    own: dict[str, dict[str, Series]] = field(default_factory=dict)
    baselines: OfBaselines = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class Study:
    """Where runs are kept, how much is trained, by how many processes; say receives a line at each stage.

    searches: those for IGN's settings by data set; one that is there is used again where it is of the same runs.
    costs: seconds of an update by stage, by data set and method, of the data sets whose runs were asked for.
    """

    root: Path
    effort: Effort
    workers: int = 1
    device: str = "cpu"
    say: Callable[[str], None] = lambda line: None
    searches: dict[str, dict[str, Any]] = field(default_factory=dict)
    costs: dict[str, dict[str, Stages]] = field(default_factory=dict)
    _settled: set[str] = field(default_factory=set, init=False)

    def runs(self, dataset: str, names: Iterable[str] = tuple(METHODS), **options: Any) -> Runs:
        """The runs of the methods on a data set, trained, judged, one for each final seed.

        options: of :func:`naign_ext.reproduce.methods.method_config`: steps, changes.
        """
        wanted = list(names)
        found: Runs = {}
        prompt = [name for name in wanted if name != IGN_SECONDS]
        jobs = {name: self._jobs(name, dataset, **options) for name in prompt}
        done = self.carry_out([job for name in prompt for job in jobs[name]])
        for name in prompt:
            found[name], done = done[: len(jobs[name])], done[len(jobs[name]) :]
        self.costs[dataset] = self._cost({name: jobs[name][0].config for name in prompt})
        if IGN_SECONDS in wanted:
            steps = steps_in_equal_time(found[BEST][0].config.steps, self.costs[dataset])
            found[IGN_SECONDS] = self.carry_out(
                self._jobs(IGN_SECONDS, dataset, **{**options, "steps": steps})
            )
        return {name: found[name] for name in wanted}

    def carry_out(self, jobs: Sequence[Job]) -> list[Run]:
        """The runs of any jobs."""
        return carry_out_all(jobs, self.root / "runs", workers=self.workers, say=self.say)

    def ign_settings(self, dataset: str) -> Settings:
        """The settings of IGN that the search on the tuning seeds chose for a data set; searched once."""
        if dataset not in self._settled:
            made_of = self.search_made_of(dataset)
            if self.searches.get(dataset, {}).get("made_of") != made_of:
                search = self._search(dataset)
                self.searches[dataset] = {"effort": self.effort.in_words, "made_of": made_of, **search}
            self._settled.add(dataset)
        search = self.searches[dataset]
        settings: Settings = search["candidates"][search["chosen"]]["settings"]
        return settings

    def search_made_of(self, dataset: str) -> str:
        """A hash of the runs of all candidates on all seeds: what the outcome of a search depends on."""
        jobs = self._attempts(self._candidates(dataset), dataset, self.effort.search_seeds)
        names = " ".join(run_name(job.config) for job in jobs)
        return hashlib.sha256(names.encode()).hexdigest()[:12]

    def _search(self, dataset: str) -> dict[str, Any]:
        """All candidates ranked; where there are many, after a heat that only the best leave."""
        candidates = self._candidates(dataset)
        self.say(f"searching IGN's settings on {dataset}: {len(candidates)} candidates")
        if len(candidates) <= tuning.MOST_IN_FULL:
            return self._try(candidates, dataset, self.effort.search_seeds)
        heat = self._try(candidates, dataset, self.effort.search_seeds[:1], tuning.HEAT_SHARE)
        return {**self._try(tuning.leaders(heat), dataset, self.effort.search_seeds), "heat": heat}

    def _candidates(self, dataset: str) -> list[Settings]:
        kind = "image" if dataset in _image_names() else "vector"
        return methods.ign_candidates(dataset, kind)[: self.effort.candidates]

    def _try(
        self, candidates: Sequence[Settings], dataset: str, seeds: Sequence[int], share: float = 1.0
    ) -> dict[str, Any]:
        """Every candidate of IGN trained for a share of its updates on every seed, and their ranks."""
        runs = self.carry_out(self._attempts(candidates, dataset, seeds, share))
        grouped = [runs[i : i + len(seeds)] for i in range(0, len(runs), len(seeds))]
        return tuning.choose(candidates, grouped)

    def _attempts(
        self, candidates: Sequence[Settings], dataset: str, seeds: Sequence[int], share: float = 1.0
    ) -> list[Job]:
        metrics = tuning.OF_IMAGES if dataset in _image_names() else tuning.OF_VECTORS
        options: dict[str, Any] = {"effort": self.effort, "device": self.device, "share": share}
        return [
            Job(methods.method_config(IGN, dataset, seed=seed, ign=candidate, **options), metrics)
            for candidate in candidates
            for seed in seeds
        ]

    def job(self, method: str, dataset: str, seed: int, **options: Any) -> Job:
        """The job of a method on a data set with a seed; fields of Job among the options are taken out."""
        fields = {
            k: options.pop(k) for k in ("metrics", "baselines", "judged_on_all", "curve") if k in options
        }
        ign = self.ign_settings(dataset) if method in RIVALS else None
        config = methods.method_config(
            method, dataset, seed=seed, effort=self.effort, ign=ign, device=self.device, **options
        )
        return Job(config, **{"baselines": method == BEST, "curve": dataset in CURVED, **fields})

    @property
    def note(self) -> str:
        """For pictures: how many seeds, and that it is a trial where it is one."""
        seeds = f"{self.effort.seeds} seeds"
        share = self.effort.steps_share
        return seeds if share == 1 else f"A TRIAL WITH {100 * share:.3g} % OF THE TRAINING; {seeds}"

    def _jobs(self, method: str, dataset: str, **options: Any) -> list[Job]:
        return [self.job(method, dataset, seed, **options) for seed in self.effort.final_seeds]

    def _cost(self, configs: Mapping[str, TrainConfig]) -> dict[str, Stages]:
        """Seconds of an update by stage for each method, with the threads that its runs have."""
        self.say(f"timing {', '.join(configs)} in turns")
        threads = 1 if self.workers > 1 else None
        rounds = self.effort.timing_rounds
        return costs_in_turns(configs, self.root / "costs", rounds=rounds, threads=threads)


def steps_in_equal_time(steps: int, cost: Mapping[str, Stages]) -> int:
    """Updates that IGN makes in the time of so many of NAIGN, best, in two digits; as many where a cost is unknown."""
    if not {BEST, IGN} <= set(cost):
        return steps
    wanted = steps * seconds_of(cost[BEST]) / seconds_of(cost[IGN])
    return max(10, int(float(f"{wanted:.2g}")))


def _image_names() -> set[str]:
    return {info.name for info in describe_datasets() if info.kind == "image"}


def summarise(
    claim: Statement, study: Study, evidence: Evidence, *, compared: Sequence[Key], shown: Sequence[Key]
) -> dict[str, Any]:
    """A claim's outcome: every metric of every seed, baselines, comparisons, verdicts; see :mod:`.record` for its JSON.

    compared: the metrics that are compared between methods, in order; shown: those only reported.
    """
    series: dict[str, dict[str, Series]] = {}
    competing: OfBaselines = {}
    true: OfBaselines = {}
    for dataset, runs in evidence.runs.items():
        keys = [
            key for key in (*compared, *shown) if any(key in r.results for rs in runs.values() for r in rs)
        ]
        series[dataset] = {
            name: {key: [run.results.get(key) for run in of_method] for key in keys}
            for name, of_method in runs.items()
        }
        competing[dataset] = _baselines(competitors, runs, keys)
        true[dataset] = _baselines(true_data, runs, keys)
        for key, baselines in evidence.baselines.get(dataset, {}).items():
            competing[dataset].setdefault(key, {}).update(baselines)
    for dataset, own in evidence.own.items():
        for name, values in own.items():
            series.setdefault(dataset, {}).setdefault(name, {}).update(values)
    comparisons = [
        comparison
        for dataset, of_methods in series.items()
        for key in compared
        for comparison in _compare(dataset, key, of_methods, competing.get(dataset, {}).get(key, {}))
    ]
    return {
        "schema": SCHEMA,
        "claim": claim.name,
        "source": claim.source,
        "title": claim.title,
        "sentence": claim.sentence,
        "effort": asdict(study.effort) | {"in_words": study.effort.in_words},
        "seeds": study.effort.final_seeds,
        "environment": environment(),
        "rule": verdict.RULE,
        "metrics": series,
        "baselines": competing,
        "true_data": true,
        "runs": {d: {n: _facts(rs) for n, rs in runs.items()} for d, runs in evidence.runs.items()},
        "costs": {d: study.costs[d] for d in evidence.runs if d in study.costs},
        "comparisons": comparisons,
        "verdicts": {
            against: {name: _overall(comparisons, name, against) for name in NAIGN}
            for against in ("ign", "baselines")
        },
    }


def _baselines(
    pick: Callable[[Key, Results], Mapping[str, float]],
    runs: Mapping[str, Sequence[Run]],
    keys: Sequence[Key],
) -> dict[Key, dict[str, list[float]]]:
    """By metric and baseline, one value a seed, from the runs that were judged with baselines."""
    found: dict[Key, dict[str, list[float]]] = {}
    for run in runs.get(BEST, []):
        for key in keys:
            for name, value in pick(key, run.results).items():
                found.setdefault(key, {}).setdefault(name, []).append(value)
    return found


def _compare(
    dataset: str,
    key: Key,
    series: Mapping[str, Series],
    baselines: Mapping[str, Sequence[float]],
) -> list[dict[str, Any]]:
    better = about(key).better
    if not any(key in of_method for of_method in series.values()) or better == "-":
        return []
    rivals = [_present(series.get(name, {}).get(key, [])) for name in RIVALS]
    against = {
        "ign": verdict.better_rival(rivals, better),
        "baselines": verdict.better_rival(list(baselines.values()), better),
    }
    names = {
        "ign": next((n for n, r in zip(RIVALS, rivals, strict=True) if r is against["ign"]), None),
        "baselines": next((n for n, r in baselines.items() if r is against["baselines"]), None),
    }
    rows = []
    for method in NAIGN:
        ours = series.get(method, {}).get(key, [])
        for kind, theirs in against.items():
            if theirs and ours:
                # A seed of ours without the metric counts against us; one of the rival's is left out.
                usable = _present(ours) if None not in ours else []
                rows.append(
                    {
                        "dataset": dataset,
                        "key": key,
                        "method": method,
                        "against": kind,
                        "rival": names[kind],
                        "verdict": verdict.compare_seeds(usable, theirs, better),
                    }
                )
    return rows


def _present(values: Sequence[float | None]) -> list[float]:
    return [v for v in values if v is not None]


def _overall(comparisons: Sequence[Mapping[str, Any]], method: str, against: str) -> dict[str, Any]:
    found = [c["verdict"] for c in comparisons if c["method"] == method and c["against"] == against]
    counts = {v: found.count(v) for v in verdict.VERDICTS if v in found}
    return {"verdict": verdict.worst(found), "comparisons": counts}


def _facts(runs: Sequence[Run]) -> dict[str, Any]:
    return {
        "updates": runs[0].config.steps,
        "diverged": sum(run.status == "diverged" for run in runs),
    }


def environment() -> dict[str, Any]:
    """Machine, versions, commit and date."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "naign": __version__,
        "torch": str(torch.__version__),
        "versions": {name: metadata.version(name) for name in ("numpy", "scipy", "scikit-image")},
        "commit": _commit(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _commit() -> str | None:
    """The git commit of the source tree, '+' appended where it has changes; None outside a checkout."""
    where = Path(__file__).parent
    try:
        head, changes = (
            subprocess.run(
                ["git", *command], cwd=where, capture_output=True, text=True, check=True, timeout=20
            ).stdout.strip()
            for command in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--", "."])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+" if changes else "")
