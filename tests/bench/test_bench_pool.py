"""naign bench pool on tiny pools."""

import pytest
import torch
from naign_bench import harness
from naign_bench.memory import supported
from naign_bench.plot import draw
from naign_bench.pool import COLUMNS, QUICK, Workload, _problem, flatness, growth, match_job, run_pool
from naign_bench.tables import show
from rich.console import Console

from naign_ext import imle_knn
from naign_ext.objectives.generation import sample_in_evaluation
from naign_ext.transforms.batch import Batch

TINY = Workload("tiny", 50, 3, (8, 8), (100, 4000))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path = tmp_path_factory.mktemp("pool") / "rows.json"
    found = run_pool(workloads=[TINY], chunk=64, threads=1, json_path=path)
    assert harness.load(path).rows == found.rows
    return found


def test_rows_tell_time_and_memory_of_each_size(results):
    assert [row["m"] for row in results.rows] == [100, 4000]
    for row in results.rows:
        assert set(row) == set(COLUMNS)
        assert row["chunk"] == 64
        assert 0 < row["generation_s"] + row["search_s"] <= row["median_s"]
        assert row["latents_per_s"] == pytest.approx(row["m"] / row["median_s"])
        assert (row["peak_memory_bytes"] is None) == (supported() is not None)
    assert set(growth(results.rows)) == {"tiny"}
    assert supported() is not None or flatness(results.rows)["tiny"] >= 1


def test_growth_and_flatness_of_known_rows():
    rows = [
        {"workload": "a", "m": m, "median_s": 2e-3 * m, "peak_memory_bytes": peak}
        for m, peak in ((10, 50), (1000, 60), (100, 55))
    ]
    assert growth(rows)["a"] == pytest.approx(1)
    assert flatness(rows)["a"] == pytest.approx(1.2)


def test_what_is_timed_is_the_match_of_the_whole_pool():
    problem = {"n": 30, "d": 3, "widths": (8,), "chunk": 50, "seed": 1, "device": "cpu"}
    f, matcher = _problem(m=500, **problem)
    matcher.prepare(f, 0)
    samples = sample_in_evaluation(f, matcher.pool.chunk(0, 500))
    nearest = imle_knn(matcher.data, samples).indices[:, 0]
    latents, _ = matcher.latents(f, Batch.of(matcher.data, torch.arange(30)))
    assert torch.equal(latents, matcher.pool.rows(nearest))
    warm, call = match_job(m=500, threads=torch.get_num_threads(), **problem)
    warm()
    assert call()["chunk"] == 50


@pytest.mark.skipif(supported() is not None, reason="needs Linux")
def test_memory_does_not_grow_with_the_pool():
    large = Workload("flat", 50, 256, (64,), (4_000, 40_000))
    rows = run_pool(workloads=[large], chunk=256, threads=1).rows
    whole = 40_000 * 256 * 4
    assert max(row["peak_memory_bytes"] for row in rows) < whole / 4


@pytest.mark.gpu
def test_memory_of_a_gpu_is_measured_and_does_not_grow():
    rows = run_pool(
        workloads=[Workload("flat", 50, 256, (64,), (4_000, 40_000))], chunk=256, device="cuda"
    ).rows
    assert 0 < max(row["peak_memory_bytes"] for row in rows) < 40_000 * 256 * 4 / 4


def test_the_table_and_the_plot(results, tmp_path):
    console = Console(record=True, width=200, file=(tmp_path / "out").open("w"))
    show(results, console)
    text = console.export_text()
    assert "latents/s" in text
    assert "4,000" in text
    assert draw(results, tmp_path / "pool.png").read_bytes()[:4] == b"\x89PNG"


def test_sizes_grow_and_mistakes_are_named():
    assert all(list(w.sizes) == sorted(w.sizes) for w in QUICK)
    with pytest.raises(ValueError, match="which: expected one of"):
        run_pool("huge")
    with pytest.raises(ValueError, match="chunk: expected at least 1"):
        run_pool(chunk=0)
