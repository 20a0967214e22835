"""naign bench train on a tiny preset, and the model of cost beside it."""

import math
from dataclasses import replace

import pytest
from naign_bench import cost, harness
from naign_bench.cost import ACCELERATOR, CASES, Machine, Problem
from naign_bench.plot import draw
from naign_bench.tables import show
from naign_bench.train import COLUMNS, describe, run_train
from rich.console import Console

from naign_ext.config import resolve_config
from naign_ext.training.callbacks import STAGES

TINY = ("model.widths=[16]", "batch_size=16", "objective.pool_size=32")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path = tmp_path_factory.mktemp("train") / "rows.json"
    found = run_train(["8gaussians"], settings=TINY, updates=3, threads=1, json_path=path)
    assert harness.load(path).rows == found.rows
    return found


def check(row):
    assert set(row) == set(COLUMNS)
    assert row["status"] == "ok", row["reason"]
    assert row["repeats"] == 5
    assert set(row["stages"]) == set(STAGES)
    assert set(row["shares"]) == {*STAGES, "other"}
    assert sum(row["shares"].values()) >= 0.999
    assert row["search_and_loss"] == row["shares"]["search"] + row["shares"]["loss"]
    assert min(row["stages"][name] for name in STAGES if name != "merge") > 0
    assert row["images_per_s"] == pytest.approx(row["batch"] / row["median_s"])


def test_a_row_tells_where_an_update_goes(results, tmp_path):
    (row,) = results.rows
    check(row)
    assert (row["batch"], row["pool"], row["d"], row["processes"], row["speedup"]) == (16, 32, 2, 1, 1.0)
    assert row["stages"]["merge"] == 0
    console = Console(record=True, width=250, file=(tmp_path / "out").open("w"))
    show(results, console)
    assert "s + l" in console.export_text()
    narrow = Console(record=True, width=80, file=(tmp_path / "narrow").open("w"))
    show(results, narrow)
    text = narrow.export_text()
    assert (
        all(name in text for name in ("data", "backw.", "s + l", "images/s", "x 1")) and "\u2026" not in text
    )
    assert draw(results, tmp_path / "train.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_objectives_take_turns_on_one_network():
    names = ["imle", "ign", "matching"]
    rows = run_train(["8gaussians"], objectives=names, settings=TINY[:2], updates=3, threads=1).rows
    assert [row["objective"] for row in rows] == names
    assert [row["peer"] for row in rows] == [f"{name}, 1 process" for name in names]
    assert len({row["parameters"] for row in rows}) == 1
    assert [row["speedup"] for row in rows] == [1.0] * 3
    searches = {row["objective"]: row["stages"]["search"] for row in rows}
    assert searches["ign"] == 0 < searches["imle"] < searches["matching"]


@pytest.mark.slow
def test_two_processes_beside_one():
    results = run_train(["8gaussians"], settings=TINY, updates=3, processes=(2,), threads=1)
    one, shared, grown = results.rows
    for row in results.rows:
        check(row)
    assert [row["batch"] for row in results.rows] == [16, 16, 32]
    assert shared["stages"]["merge"] > 0
    assert grown["speedup"] == pytest.approx(grown["images_per_s"] / one["images_per_s"])
    assert min(results.header["links"]["2"].values()) > 0
    rows = cost.compared(results.header, results.rows)
    assert [row[1] for row in rows] == ["2 processes", "2 processes, batch x 2"]
    assert all(float(cell) > 0 for row in rows for cell in row[2:])
    with pytest.raises(TypeError, match="workload, peer: expected texts, got"):
        cost.compared(results.header, [{**row, "workload": 1.5} for row in results.rows])


@pytest.mark.slow
def test_a_run_that_fails_is_told():
    (row,) = run_train(["8gaussians"], settings=["optimiser.lr=1e30", *TINY], updates=3, threads=1).rows
    assert row["status"] == "failed" or row["status"] == "absent"
    assert "is " in row["reason"]
    assert "at step" in row["reason"]


def test_what_a_preset_costs_is_read_from_its_configuration():
    toy = describe(resolve_config("8gaussians"))
    assert (toy["pool"], toy["resample"], toy["matched"], toy["d"]) == (256, 1, "batch", 2)
    assert toy["passes"] == 3 + 256 / 256
    faces = describe(resolve_config("lfw100"))
    assert (faces["rows"], faces["resample"], faces["matched"], faces["d"]) == (160, 10, "rows", 625)
    assert (faces["passes"], faces["batch_norms"]) == (4 + 64 / 96, 7)
    assert faces["parameters"] == 1_235_001


PROBLEM = Problem(parameters=1000, batch=64, matched=500, pool=4096, d=30, resample=4, passes=3, noisy=True)
MACHINE = Machine(1e9, 1e9, 1e9, 1e7, 1e8, 1e-4, 1e-9, 1e-3)


def test_operations_and_bytes_by_hand():
    assert cost.operations(PROBLEM, 2) == {
        "generation": 2 * 1000 * 4096 / 8,
        "latents": 4096 / 8 * 30,
        "search": 2 * 500 * 4096 / 8 * 30,
        "training": 6 * 1000 * 3 * 32,
        "noise": 32 * 30,
    }
    assert cost.sent_bytes(PROBLEM, 4) == {"gradients": 6000, "merge": 16 * 500 * 3 / 4}
    assert cost.sent_bytes(PROBLEM, 200) == pytest.approx({"gradients": 7960, "merge": 32 * 500 * 0.995 / 4})
    assert cost.sent_bytes(PROBLEM, 1) == {"gradients": 0, "merge": 0}
    cheap = Problem(parameters=100, batch=64, matched=64, pool=512, d=2)
    assert cost.operations(cheap, 4)["generation"] == 2 * 100 * 512
    assert cost.operations(cheap, 4)["search"] == 2 * 16 * 512 * 2
    assert cost.sent_bytes(cheap, 4)["merge"] == 0
    assert cost.memory_bytes(PROBLEM, 600, 0) == 4 * 600 * 30 + 16 * 500 + 20 * 1000


def test_shares_shrink_and_sums_do_not():
    one, many = (cost.seconds(PROBLEM, MACHINE, ranks) for ranks in (1, 16))
    for part in ("generation", "latents", "search", "training", "noise"):
        assert many[part] == pytest.approx(one[part] / 16)
    for part in ("update", "overhead"):
        assert many[part] == one[part]
    assert one["latency"] == one["gradients"] == one["merge"] == 0
    assert many["latency"] == pytest.approx(1.25 * 2 * 4 * 1e-4)
    normalised = cost.seconds(replace(PROBLEM, batch_norms=3), MACHINE, 16)
    assert normalised["latency"] == pytest.approx(7.25 * 2 * 4 * 1e-4)
    crowded = cost.seconds(PROBLEM, MACHINE, 16, crowd=8.0)
    assert crowded["training"] == pytest.approx(8 * many["training"])
    assert crowded["latency"] == many["latency"]
    assert PROBLEM.with_batch(128).matched == 500
    assert Problem(10, 64, 64, 100, 2).with_batch(128).matched == 128


def test_a_calibrated_machine_gives_back_what_it_was_made_of(results):
    row = results.rows[0]
    machine = cost.calibrated(row, link=1e9, latency=1e-5)
    expected = cost.seconds(cost.problem_of(row), machine, 1)
    stages = row["stages"]
    assert expected["training"] == pytest.approx(stages["forward"] + stages["backward"])
    assert expected["search"] == pytest.approx(stages["search"])
    assert sum(expected.values()) >= row["median_s"] * (1 - 1e-9)
    with pytest.raises(ValueError, match="--processes 2"):
        cost.compared({}, [])


def test_extrapolation_names_what_limits_first():
    rows = cost.extrapolated()
    assert len(rows) == len(CASES) * len(cost.RANKS)
    slow = Machine(1e15, 1e15, 1e15, math.inf, 1e3, 0)
    assert cost.first_limit(PROBLEM, slow, 1024) == "gradients"
    assert cost.first_limit(PROBLEM, MACHINE, 1) == max(
        cost.seconds(PROBLEM, MACHINE, 1), key=cost.seconds(PROBLEM, MACHINE, 1).get
    )
    for problem in CASES.values():
        assert all(v >= 0 and math.isfinite(v) for v in cost.seconds(problem, ACCELERATOR, 1024).values())
