"""naign reproduce: the rule of the verdicts, fair configurations, reuse of runs, the files that are left."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from naign_cli.main import app
from PIL import Image
from typer.testing import CliRunner

from naign_ext.config import differing_fields, resolve_config
from naign_ext.evaluation import Condition, Key, Results, Row
from naign_ext.evaluation.flat_keys import results_of
from naign_ext.evaluation.registry import chosen_metrics
from naign_ext.pictures import MOST_BYTES
from naign_ext.reproduce import costs as costs_module
from naign_ext.reproduce import drawing
from naign_ext.reproduce import effort as effort_module
from naign_ext.reproduce import runs as runs_module
from naign_ext.reproduce.claims import CLAIMS
from naign_ext.reproduce.claims.fld_over_training import late
from naign_ext.reproduce.claims.ood import roc
from naign_ext.reproduce.costs import costs_in_turns, seconds_of
from naign_ext.reproduce.effort import FULL, QUICK, Effort
from naign_ext.reproduce.methods import BEST, IGN, IGN_SECONDS, METHODS, PLAIN, ign_candidates, method_config
from naign_ext.reproduce.record import from_json, search_from_json, to_json
from naign_ext.reproduce.results import table_rows, write_page
from naign_ext.reproduce.runs import (
    InterruptedRunError,
    Job,
    Run,
    carry_out,
    carry_out_all,
    is_finished,
    run_name,
)
from naign_ext.reproduce.study import Evidence, Study, steps_in_equal_time, summarise
from naign_ext.reproduce.tuning import choose, leaders
from naign_ext.reproduce.verdict import better_rival, compare_seeds, spread, worst
from naign_ext.reproduce.vocabulary import about, competitors, true_data
from naign_ext.training.progress import TrainResult
from naign_ext.untrusted import DamagedFileError

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")

TINY = Effort("tiny", seeds=2, tuning_seeds=1, steps_share=0.004, candidates=2, sizes=2, rates=2)
ROOT = Path(__file__).parents[2]
runner = CliRunner()


@pytest.mark.parametrize(
    ("ours", "theirs", "better", "expected"),
    [
        ([3.0, 4.0], [1.0, 2.9], "higher", "holds"),
        ([3.0, 4.0], [1.0, 3.1], "higher", "weak"),
        ([3.0, 4.0], [3.0, 4.0], "higher", "not shown"),
        ([3.0, 3.5], [3.2, 4.0], "higher", "not shown"),
        ([3.0, 3.5], [3.6, 4.0], "higher", "fails"),
        ([3.0, 3.5], [3.6, 4.0], "lower", "holds"),
        ([-20.0, -19.0], [-18.0, 5.0], "lower", "holds"),
        ([0.9, 1.1], [0.5, 1.6], "closer", "holds"),
        ([0.5, 0.6], [0.9, 1.0], "closer", "fails"),
        ([3.0], [1.0], "higher", "not shown"),
        ([], [1.0, 2.0], "higher", "not shown"),
        ([3.0, 3.0], [3.0, 3.0], "higher", "not shown"),
    ],
)
def test_the_rule(ours, theirs, better, expected):
    assert compare_seeds(ours, theirs, better) == expected


def test_a_claim_is_worth_its_worst_comparison():
    assert worst(["holds", "weak", "holds"]) == "weak"
    assert worst(["holds", "not shown", "fails"]) == "fails"
    assert worst([]) == "not shown"
    with pytest.raises(ValueError, match="better"):
        compare_seeds([1.0, 2.0], [1.0, 2.0], "-")


def test_the_stronger_rival_counts():
    equal_steps, equal_time = [5.0, 7.0], [4.0, 9.0]
    assert better_rival([equal_steps, equal_time], "lower") is equal_steps
    assert better_rival([equal_steps, equal_time], "higher") is equal_time
    assert better_rival([[], equal_time], "lower") is equal_time
    assert better_rival([[], []], "lower") == []


def test_spread_in_words():
    assert spread([1.0, 2.0, 6.0]) == "3 [1, 6]"
    assert spread([2.5]) == "2.5" and spread([3.0, 3.0]) == "3" and spread([]) == "-"


def test_methods_differ_only_where_they_should():
    plain = method_config(PLAIN, "lfw100", seed=7, effort=FULL)
    best = method_config(BEST, "lfw100", seed=7, effort=FULL)
    assert (
        (plain.seed, plain.data_seed, plain.steps) == (best.seed, best.data_seed, best.steps) == (7, 7, 2200)
    )
    assert plain.model == best.model and plain.optimiser == best.optimiser
    assert plain.objective.denoise_weight == 0 and not plain.augment.flip
    ign = method_config(IGN, "lfw100", seed=7, effort=FULL, ign=ign_candidates("lfw100", "image")[0])
    differing = {key for key in differing_fields(best, ign) if not key.startswith("objective.")}
    assert differing <= {"optimiser.lr"}
    assert ign.objective.denoise_weight == best.objective.denoise_weight
    assert ign.objective.restore_weight == best.objective.restore_weight
    with pytest.raises(ValueError, match="ign"):
        method_config(IGN, "lfw100", seed=0, effort=FULL)


def test_steps_are_shortened_but_not_those_of_equal_time():
    assert method_config(BEST, "digits", seed=0, effort=QUICK).steps == 400
    ign = ign_candidates("lfw100", "image")[0]
    assert method_config(IGN, "digits", seed=0, effort=QUICK, ign=ign).steps == 400
    assert method_config(IGN_SECONDS, "digits", seed=0, effort=QUICK, ign=ign, steps=777).steps == 777


@pytest.mark.parametrize(("kind", "dataset"), [("vector", "rings"), ("vector", "moons"), ("image", "digits")])
def test_ign_is_searched_as_the_rules_ask(kind, dataset):
    candidates = ign_candidates(dataset, kind)
    assert len({c.get("objective.tightness_weight") for c in candidates} - {None}) >= 3
    assert len({c["optimiser.lr"] for c in candidates}) >= 2
    configs = [method_config(IGN, dataset, seed=0, effort=FULL, ign=c) for c in candidates]
    assert len({run_name(c) for c in configs}) == len(candidates)
    published = configs[-1].objective
    weights = (published.reconstruction_weight, published.idempotence_weight, published.tightness_weight)
    assert weights == (20, 20, 2.5) and published.tightness_clamp == 1.5 and published.norm == "l1"
    if dataset != "rings":
        with_repair = [c for c in configs if c.objective.denoise_weight > 0]
        assert 6 <= len(with_repair) < len(configs)
    else:
        assert {c.objective.latent_scale for c in configs} == {
            1.0,
            resolve_config("rings").objective.latent_scale,
        }


def test_no_seed_serves_twice():
    assert not set(FULL.final_seeds) & set(FULL.search_seeds)
    assert len(FULL.final_seeds) == 5
    assert "not evidence" in QUICK.in_words and "full training" in FULL.in_words


def test_a_run_is_named_by_what_determines_its_weights():
    config = method_config(BEST, "moons", seed=0, effort=FULL)
    assert run_name(config) == run_name(config.model_copy(update={"device": "cuda", "preset": "quick"}))
    assert run_name(config) != run_name(config.model_copy(update={"seed": 1}))
    assert run_name(config) != run_name(config.model_copy(update={"train_rows": 100}))


ENERGY, QUALITY = Key("energy_distance", "f(z)"), Key("high_quality", "f(z)")
FIELD, FLD = Key("residual_spearman", "f"), Key("fld", "f(z)")
GAINS = {kind: Key("gain", "f", Condition(kind)) for kind in ("mask", "blur")}


def rows(values):
    """Results of values by key."""
    return Results(tuple(Row(k.metric, k.subject, value, k.condition) for k, value in values.items()))


def fake_run(seed, values, status="completed", method=BEST):
    ign = ign_candidates("rings", "vector")[0]
    config = method_config(method, "trimodal1d", seed=seed, effort=TINY, ign=ign)
    return Run(Path(f"/nowhere/{seed}"), config, status, rows(values))


def test_the_best_of_a_heat_go_on():
    ranks = [5.0, 1.0, 4.0, 1.0, 0.0, 6.0]
    rows = [{"settings": {"number": i}, "mean_rank": rank} for i, rank in enumerate(ranks)]
    assert [s["number"] for s in leaders({"candidates": rows})] == [1, 2, 3, 4]


def test_many_candidates_are_searched_in_a_heat_and_in_full(tmp_path, monkeypatch):
    tried = []

    def carry_out(study, jobs):
        tried.append([(job.config.steps, job.config.seed) for job in jobs])
        return [
            Run(tmp_path, job.config, "completed", rows({Key("fld_pixels", "f(z)"): float(i)}))
            for i, job in enumerate(jobs)
        ]

    monkeypatch.setattr(Study, "carry_out", carry_out)
    study = Study(tmp_path, FULL)
    chosen = study.ign_settings("lfw100")
    assert chosen == ign_candidates("lfw100", "image")[0]
    steps, seeds = resolve_config("lfw100").steps, FULL.search_seeds
    assert tried == [[(round(steps / 4), seeds[0])] * 16, [(steps, seed) for _ in range(4) for seed in seeds]]
    assert len(study.searches["lfw100"]["heat"]["candidates"]) == 16
    tried.clear()
    study.ign_settings("rings")
    study.ign_settings("moons")
    assert [len(jobs) for jobs in tried] == [25, 4 * len(seeds)] * 2


def test_the_search_ranks_over_all_metrics():
    def of(energy, quality, field):
        values = {ENERGY: energy, QUALITY: quality, FIELD: field}
        return [fake_run(s, values) for s in (0, 1)]

    best_once, best_twice, diverged = of(0.1, 0.5, 0.5), of(0.2, 0.9, 0.9), of(0.01, 0.99, 0.99)
    diverged[1] = fake_run(1, {}, "diverged")
    search = choose([{"a": 1}, {"a": 2}, {"a": 3}], [best_once, best_twice, diverged])
    assert search["chosen"] == 1
    assert [Key.from_json(key) for key in search["decided_by"]] == [ENERGY, QUALITY, FIELD]
    assert [c["diverged"] for c in search["candidates"]] == [0, 0, 1]
    assert search["candidates"][2]["mean_rank"] == 2.0
    assert Results.from_json(search["candidates"][0]["metrics"])[ENERGY] == 0.1
    assert search["candidates"][2]["metrics"][0]["value"] is None


def test_equal_time_follows_the_measured_costs():
    cost = {BEST: {"search": 0.01, "backward": 0.01}, IGN: {"backward": 0.05}}
    assert steps_in_equal_time(6000, cost) == 2400
    assert steps_in_equal_time(6000, {BEST: cost[BEST]}) == 6000
    assert steps_in_equal_time(20, cost) == 10


def test_costs_are_measured_once_in_turns(tmp_path, monkeypatch):
    turns = []
    real = costs_module.train

    def train(config, out):
        turns.append((config.objective.name, config.optimiser.lr, torch.get_num_threads()))
        return real(config, out)

    monkeypatch.setattr(costs_module, "train", train)
    configs = {
        BEST: method_config(BEST, "trimodal1d", seed=0, effort=TINY),
        IGN: method_config(IGN, "trimodal1d", seed=0, effort=TINY, ign=ign_candidates("rings", "vector")[0]),
    }
    threads = torch.get_num_threads()
    cost = costs_in_turns(configs, tmp_path, rounds=2, threads=1)
    assert [name for name, *_ in turns] == ["naign", "ign"] * 2 and {count for *_, count in turns} == {1}
    assert torch.get_num_threads() == threads
    assert cost[BEST]["search"] > 0 and cost[IGN]["search"] == 0
    assert all(seconds_of(stages) > 0 for stages in cost.values())
    assert costs_in_turns(configs, tmp_path, rounds=2, threads=1) == cost and len(turns) == 4
    wild = {"optimiser.lr": 1e30, "optimiser.grad_clip": 0.0, "optimiser.warmup": 0.0}
    configs = {BEST: method_config(BEST, "trimodal1d", seed=0, effort=TINY, changes=wild)}
    assert costs_in_turns(configs, tmp_path, rounds=1, threads=1) == {}


def test_timing_ends_when_it_is_interrupted(tmp_path, monkeypatch):
    stopped = TrainResult("interrupted", tmp_path, 1, 2, 0.1, tmp_path, tmp_path, "SIGINT")
    monkeypatch.setattr(costs_module, "train", lambda *args: stopped)
    config = method_config(BEST, "trimodal1d", seed=0, effort=TINY)
    with pytest.raises(InterruptedRunError):
        costs_in_turns({BEST: config}, tmp_path, rounds=2, threads=1)
    assert not list(tmp_path.iterdir())


def test_a_search_of_the_same_runs_is_used_again(tmp_path, monkeypatch):
    def carry_out(study, jobs):
        return [Run(tmp_path, job.config, "completed", rows({ENERGY: 1.0})) for job in jobs]

    monkeypatch.setattr(Study, "carry_out", carry_out)
    first = Study(tmp_path, TINY)
    settings = first.ign_settings("rings")
    monkeypatch.setattr(Study, "carry_out", None)
    again = Study(tmp_path, replace(TINY, seeds=5), searches=first.searches)
    assert again.ign_settings("rings") == settings
    with pytest.raises(TypeError):
        Study(tmp_path, replace(TINY, steps_share=0.008), searches=first.searches).ign_settings("rings")


def test_runs_are_trained_once_and_reused(tmp_path, monkeypatch):
    lines = []
    job = Job(method_config(BEST, "trimodal1d", seed=3, effort=TINY), metrics=("modes", "energy_distance"))
    first = carry_out_all([job, job], tmp_path, workers=1, say=lines.append)
    assert first[0] == first[1] and first[0].status == "completed"
    assert first[0].results.value("modes_total") == 3
    assert first[0].projector().sample_shape == (1,)
    assert len(list((first[0].folder / "checkpoints").iterdir())) == 1
    monkeypatch.setattr(runs_module, "train", None)
    monkeypatch.setattr(runs_module, "evaluate", None)
    assert (
        carry_out_all([replace(job, metrics=("modes",))], tmp_path, workers=1, say=lines.append) == first[:1]
    )
    assert is_finished(job, tmp_path)
    assert not is_finished(replace(job, metrics=("w2",)), tmp_path)
    assert not is_finished(replace(job, baselines=True), tmp_path)
    assert not is_finished(Job(method_config(BEST, "trimodal1d", seed=4, effort=TINY)), tmp_path)


def test_runs_judged_by_naign_0_1_are_reused(tmp_path, monkeypatch):
    job = Job(method_config(BEST, "trimodal1d", seed=3, effort=TINY), metrics=("modes", "projection"))
    (run,) = carry_out_all([job], tmp_path, workers=1, say=print)
    flat = {"modes": 2.0, "modes_twice": 3.0, "idempotence": 0.5, "anchor_modes_prior": 1.0}
    old = {"parts": ["modes", "projection", "anchors"], "figures": flat}
    (run.folder / "figures.json").write_text(json.dumps(old))
    (run.folder / "curve.jsonl").write_text(
        json.dumps({"step": job.config.steps, "fld_features": 9.0}) + "\n"
    )
    monkeypatch.setattr(runs_module, "evaluate", None)
    (again,) = carry_out_all([replace(job, baselines=True)], tmp_path, workers=1, say=print)
    assert again.results == results_of(flat)
    assert again.results.value("modes", "prior") == 1.0
    assert again.curve == [runs_module.CurvePoint(job.config.steps, rows({FLD: 9.0}))]
    assert not is_finished(replace(job, metrics=("modes", "w2")), tmp_path)


def test_baselines_are_added_to_a_run_judged_without(tmp_path):
    job = Job(method_config(PLAIN, "trimodal1d", seed=3, effort=TINY), metrics=("modes", "energy_distance"))
    (without,) = carry_out_all([job], tmp_path, workers=1, say=print)
    assert not competitors(ENERGY, without.results)
    (beside,) = carry_out_all([replace(job, baselines=True)], tmp_path, workers=1, say=print)
    assert {"prior", "gaussian"} <= set(competitors(ENERGY, beside.results))
    assert beside.results.value("modes") == without.results.value("modes")


def test_a_diverged_run_is_an_outcome(tmp_path):
    changes = {"optimiser.lr": 1e30, "optimiser.grad_clip": 0.0, "optimiser.warmup": 0.0}
    job = Job(method_config(BEST, "trimodal1d", seed=0, effort=TINY, changes=changes))
    (run,) = carry_out_all([job], tmp_path, workers=1, say=print)
    assert (run.status, run.results) == ("diverged", Results())
    assert json.loads((run.folder / "outcome.json").read_text())["term"]
    again = carry_out_all([job], tmp_path, workers=1, say=print)[0]
    assert again.status == "diverged"


def test_an_interrupted_run_is_not_taken_for_finished(tmp_path, monkeypatch):
    job = Job(method_config(BEST, "trimodal1d", seed=0, effort=TINY))
    stopped = TrainResult("interrupted", tmp_path, 1, 2, 0.1, tmp_path, tmp_path, "SIGINT")
    monkeypatch.setattr(runs_module, "train", lambda *args, **kwargs: stopped)
    with pytest.raises(InterruptedRunError):
        carry_out_all([job], tmp_path, workers=1, say=print)
    assert not is_finished(job, tmp_path)


def test_an_image_run_keeps_its_curve(tmp_path):
    effort = replace(TINY, curve_points=3)
    job = Job(method_config(BEST, "digits", seed=0, effort=effort), metrics=("projection",), curve=True)
    (run,) = carry_out_all([job], tmp_path, workers=1, say=print)
    steps = [point.step for point in run.curve]
    assert steps == sorted(set(steps)) and steps[-1] == run.config.steps and len(steps) >= 3
    assert all(math.isfinite(point.results[FLD]) for point in run.curve)
    with (run.folder / "curve.jsonl").open("a") as file:
        file.write('{"step": 1, "metrics": []}\n')
    assert run.config.log.checkpoint_every > 1
    (again,) = carry_out_all([job], tmp_path, workers=1, say=print)
    assert again.curve == run.curve


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tmp_path):
    metrics = ("energy_distance",)
    jobs = [Job(method_config(m, "trimodal1d", seed=5, effort=TINY), metrics=metrics) for m in (PLAIN, BEST)]
    alone = carry_out_all(jobs, tmp_path / "one", workers=1, say=print)
    together = carry_out_all(jobs, tmp_path / "two", workers=2, say=print)
    assert [r.config for r in alone] == [r.config for r in together]
    for a, b in zip(alone, together, strict=True):
        assert [row.key for row in a.results.rows] == [row.key for row in b.results.rows]
        assert a.results[ENERGY] == pytest.approx(b.results[ENERGY], rel=0.05)


WORKERS = """
import os, sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from naign_ext.reproduce.runs import _begin_worker
if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_begin_worker)
    print(pool.submit(os.getpid).result(), flush=True)
    pool.submit(time.sleep, 600).result()
"""


def test_a_worker_ends_with_a_killed_reproduction(tmp_path):
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())
        os.kill(worker, 0)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while _runs(worker):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(process):
    """Whether a process is there and not only waiting for its parent to be told of its end."""
    try:
        status = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return status != "Z"


def test_summary_compares_with_the_better_ign_and_the_best_baseline(tmp_path):
    def runs(method, energies, baselines=None):
        more = baselines or {}
        return [fake_run(i, {ENERGY: e, **more}, method=method) for i, e in enumerate(energies)]

    baselines = {ENERGY.of("gaussian"): 0.15, ENERGY.of("prior"): 0.9, ENERGY.of("truth"): 0.001}
    evidence = Evidence(
        {
            "trimodal1d": {
                PLAIN: runs(PLAIN, [0.2, 0.3]),
                BEST: runs(BEST, [0.05, 0.06], baselines),
                IGN: runs(IGN, [0.9, 1.1]),
                IGN_SECONDS: runs(IGN_SECONDS, [0.25, 0.35]),
            }
        }
    )
    result = summarise(CLAIMS["trimodal"], Study(tmp_path, TINY), evidence, compared=(ENERGY,), shown=())
    found = {(c["method"], c["against"]): (c["rival"], c["verdict"]) for c in result["comparisons"]}
    assert found == {
        (PLAIN, "ign"): (IGN_SECONDS, "weak"),
        (BEST, "ign"): (IGN_SECONDS, "holds"),
        (PLAIN, "baselines"): ("gaussian", "fails"),
        (BEST, "baselines"): ("gaussian", "holds"),
    }
    assert result["verdicts"]["ign"][BEST]["verdict"] == "holds"
    assert result["metrics"]["trimodal1d"][IGN][ENERGY] == [0.9, 1.1]
    (row,) = table_rows(result)
    assert row[0] == "trimodal1d" and "0.15" in row[-3] and "0.001" in row[-2] and row[-1] == "weak / holds"
    assert from_json(json.loads(json.dumps(to_json(result), allow_nan=False))) == result | {
        "comparisons": [one | one["key"].to_json() for one in result["comparisons"]]
    }


def test_a_missing_seed_of_ours_shows_nothing(tmp_path):
    runs = {
        BEST: [fake_run(0, {ENERGY: 0.01}), fake_run(1, {}, "diverged")],
        IGN: [fake_run(i, {ENERGY: 1.0 + i}, method=IGN) for i in (0, 1)],
    }
    result = summarise(
        CLAIMS["trimodal"],
        Study(tmp_path, TINY),
        Evidence({"trimodal1d": runs}),
        compared=(ENERGY,),
        shown=(),
    )
    assert [c["verdict"] for c in result["comparisons"]] == ["not shown"]
    assert result["runs"]["trimodal1d"][BEST]["diverged"] == 1


def test_true_data_do_not_compete():
    results = results_of(
        {
            "anchor_fld_features_copies": 1e8,
            "anchor_fld_features_half": 0.1,
            "anchor_residual_spearman_nearest": 0.8,
            "anchor_residual_spearman_far_nearest": 0.9,
            "restore_mask_gain": 3.0,
            "restore_mask_filter_gain": -1.0,
            "restore_mask_tv_gain": -2.0,
        }
    )
    copies = results_of({"anchor_energy_distance_copies": 0.1})
    assert competitors(FLD, results) == {"copies": 1e8}
    assert competitors(FLD.of("f(f(z))"), results) == {}
    assert competitors(ENERGY, copies) == {}
    assert true_data(ENERGY, copies) == {"copies": 0.1}
    assert true_data(FLD, results) == {"half": 0.1}
    assert competitors(FIELD, results) == {"nearest": 0.8}
    assert competitors(Key("residual_spearman_far", "f"), results) == {"nearest": 0.9}
    assert competitors(GAINS["mask"], results) == {"filter": -1.0, "tv": -2.0, "nothing": 0.0}
    assert competitors(GAINS["blur"], results) == {}
    noisy = results_of({"restore_noise_1.0_accuracy_before": 0.5, "anchor_accuracy_classifier": 0.9})
    assert competitors(Key("accuracy", "f", Condition("noise", 1.0)), noisy) == {}


def test_results_of_schema_1_are_read_as_those_of_today():
    verdicts = {"naign-best": {"verdict": "holds", "comparisons": {"holds": 1}}}
    comparison = {"dataset": "digits", "method": "naign-best", "rival": "ign", "verdict": "holds"}
    found = from_json(
        {
            "schema": 1,
            "claim": "ood",
            "figures": {"digits": {"ign": {"fld_features": [1.0, None]}}},
            "trivial": {"digits": {"restore_mask_gain": {"tv": [0.5]}}},
            "yardsticks": {"digits": {"fld_features": {"half": [0.1]}}},
            "comparisons": [comparison | {"figure": "fld_features", "against": "trivial"}],
            "verdicts": {"trivial": verdicts},
        }
    )
    assert found["metrics"]["digits"]["ign"] == {FLD: [1.0, None]}
    assert found["baselines"]["digits"] == {GAINS["mask"]: {"tv": [0.5]}}
    assert found["true_data"]["digits"] == {FLD: {"half": [0.1]}}
    assert (found["comparisons"][0]["key"], found["comparisons"][0]["against"]) == (FLD, "baselines")
    assert found["verdicts"] == {"baselines": verdicts}


def test_searches_with_flat_keys_are_read_as_those_of_today():
    old = {
        "decided_by": ["energy_distance"],
        "chosen": 0,
        "candidates": [{"settings": {}, "figures": {"energy_distance": [0.25, 0.75]}}],
    }
    found = search_from_json(old | {"heat": old})
    for search in (found, found["heat"]):
        assert [Key.from_json(key) for key in search["decided_by"]] == [ENERGY]
        assert Results.from_json(search["candidates"][0]["metrics"]) == rows({ENERGY: 0.5})
    assert search_from_json(found) == found


def test_every_compared_metric_has_a_direction():
    for claim in CLAIMS.values():
        for key in claim.compared:
            assert about(key).better in ("lower", "higher", "closer"), (claim.name, key)
        for key in claim.shown:
            assert about(key).text, (claim.name, key)


def test_roc_of_known_scores():
    apart = roc(torch.arange(10.0), torch.arange(10.0) + 20)
    assert apart[0] == 1.0 and apart[-1] == 1.0
    same = roc(torch.arange(1000.0), torch.arange(1000.0))
    assert same == pytest.approx([i / 200 for i in range(201)], abs=5e-3)


def test_late_fld_is_the_highest_of_the_second_half():
    assert late([[1, 90.0], [2, 8.0], [3, 9.0], [4, 7.0]]) == 9.0
    assert late([]) is None


class Unchanged:
    """A projector that changes nothing."""

    def project(self, x):
        return x


@pytest.mark.parametrize("ending", [".png", ".pdf"])
def test_restoration_is_one_picture_with_images_below(ending, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "projector", lambda run: Unchanged())
    keys = CLAIMS["restoration"].compared
    evidence, series = Evidence(), {}
    for dataset in ("lfw100", "digits"):
        evidence.runs[dataset] = {
            method: [
                Run(
                    tmp_path,
                    method_config(method, dataset, seed=0, effort=TINY, ign={}),
                    "completed",
                    Results(),
                )
            ]
            for method in METHODS
        }
        series[dataset] = {method: {key: [1.0, 2.0] for key in keys} for method in METHODS}
    baselines = {dataset: {key: {"tv": [0.5], "nothing": [0.0]} for key in keys} for dataset in series}
    path = tmp_path / f"restoration{ending}"
    CLAIMS["restoration"].draw(
        Study(tmp_path, TINY), evidence, {"metrics": series, "baselines": baselines}, path
    )
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    if ending == ".png":
        with Image.open(path) as picture:
            assert picture.height == round(drawing.DPI * (3.6 + 0.52 * 6 + 0.5))
            colours = np.asarray(picture.convert("RGB"))[picture.height // 2 :]
        assert len(np.unique(colours.reshape(-1, 3), axis=0)) > 30
        assert path.stat().st_size <= MOST_BYTES


@pytest.mark.slow
def test_command_leaves_json_pictures_and_a_page(tmp_path, monkeypatch):
    monkeypatch.setattr(effort_module, "QUICK", TINY)
    command = ["reproduce", "trimodal", "--quick", "--pdf", "--out", str(tmp_path), "--jobs", "1"]
    answer = runner.invoke(app, command, env={"COLUMNS": "200", "TERM": "dumb"})
    assert answer.exit_code == 0, answer.output
    folder = tmp_path / "results"
    result = json.loads((folder / "trimodal.json").read_text())
    assert {"trimodal.png", "trimodal.pdf", "ign-search.json"} <= {p.name for p in folder.iterdir()}
    assert (folder / "trimodal.png").read_bytes().startswith(b"\x89PNG")
    series = from_json(result)["metrics"]["trimodal1d"]
    modes = Key("modes", "f(z)")
    assert set(series) == set(METHODS)
    assert all(len(series[m][modes]) == 2 for m in METHODS)
    page = (tmp_path / "results.md").read_text()
    assert result["verdicts"]["ign"][PLAIN]["verdict"] in page
    assert spread(series[BEST][ENERGY]) in page
    assert "Three modes on a line" in answer.stdout and "against IGN" in answer.stdout
    assert spread(series[BEST][ENERGY]).split()[0] in answer.stdout
    trained = sorted((tmp_path / "runs").iterdir())
    again = runner.invoke(app, [*command, "--json"])
    assert json.loads(again.stdout)["metrics"] == result["metrics"]
    assert sorted((tmp_path / "runs").iterdir()) == trained
    rows = [line.count("|") for line in page.splitlines() if line.startswith("| ")]
    heads = [line.count("|") for line in page.splitlines() if line.startswith("|---")]
    assert set(rows) <= set(heads), "a table's rows and head have different numbers of columns"
    before = (tmp_path / "results.md").read_bytes()
    (tmp_path / "results.md").unlink()
    assert write_page(folder).read_bytes()[:200] == before[:200]


@pytest.mark.slow
def test_a_claim_on_some_of_its_data_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(effort_module, "QUICK", TINY)
    command = [
        "reproduce",
        "distance-field",
        "--quick",
        "--dataset",
        "rings",
        "--out",
        str(tmp_path),
        "--json",
    ]
    result = json.loads(runner.invoke(app, command).stdout)
    assert list(result["metrics"]) == ["rings"]
    assert result["left_out"] == ["moons", "grid25"]
    page = (tmp_path / "results.md").read_text()
    assert "Not part of this run, though of the claim: moons, grid25." in page
    assert (tmp_path / "results" / "distance-field.png").is_file()
    assert not list((tmp_path / "results").glob("*.pdf"))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("trimodal.json", lambda r: r.pop("schema")),
        ("trimodal.json", lambda r: r.pop("verdicts")),
        ("trimodal.json", lambda r: r.update(environment=None)),
        ("trimodal.json", lambda r: r.update(comparisons=[1])),
        ("trimodal.json", lambda r: r.update(comparisons=None)),
        ("ign-search.json", lambda r: next(iter(r.values())).pop("candidates")),
    ],
)
def test_a_result_that_is_damaged_is_named(tmp_path, name, change):
    results = tmp_path / "results"
    results.mkdir()
    for file in ("trimodal.json", "ign-search.json"):
        value = json.loads((ROOT / "docs" / "results" / file).read_text())
        if file == name:
            change(value)
        (results / file).write_text(json.dumps(value))
    answer = runner.invoke(app, ["reproduce", "report", "--results", str(results)])
    assert answer.exit_code == 2 and f"damaged: {results / name}: is not what" in answer.stderr


@pytest.mark.parametrize("name", ["outcome.json", "figures.json", "curve.jsonl"])
def test_a_run_of_a_reproduction_that_is_damaged_is_named(tmp_path, name):
    job = Job(method_config(BEST, "trimodal1d", seed=3, effort=TINY), metrics=("modes",))
    folder = tmp_path / run_name(job.config)
    folder.mkdir()
    judged = {"asked": sorted(chosen_metrics(["modes"])), "baselines": False, "metrics": []}
    for file, value in (
        ("outcome.json", {"status": "completed"}),
        ("figures.json", judged),
        ("curve.jsonl", {}),
    ):
        (folder / file).write_text(json.dumps({} if file == name else value) + "\n")
    with pytest.raises(DamagedFileError, match=f"^damaged: {folder / name}: "):
        carry_out(job, tmp_path)


def test_mistakes_are_named(tmp_path):
    answer = runner.invoke(app, ["reproduce", "faces", "--dataset", "moons", "--out", str(tmp_path)])
    assert answer.exit_code == 2 and "--dataset: faces is about lfw100; got moons" in answer.stderr
    answer = runner.invoke(app, ["reproduce", "fig7", "--out", str(tmp_path)])
    assert answer.exit_code == 2 and "expected one of trimodal" in answer.stderr
    answer = runner.invoke(app, ["reproduce", "report", "--out", str(tmp_path)])
    assert answer.exit_code == 2 and "no results" in answer.stderr
