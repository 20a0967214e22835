"""The benchmark harness: statistics, order, exactness and memory columns, files, tables and figures."""

import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from naign_bench import fused_loss, harness, imle_knn, knn_peers, knn_workloads, memory, oracle, plot, tables
from naign_bench.harness import Absent, Effort, Measurement, Peer, Results
from naign_bench.knn_workloads import Workload
from naign_bench.plot import draw
from naign_cli.main import app
from rich.console import Console
from typer.testing import CliRunner

from naign_ext.untrusted import DamagedFileError

ROOT = Path(__file__).parents[2]
FAST = Effort(repeats=4, shortest_s=0.0, settle_s=0.0)
MB = 10**6


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def brute_force(data: torch.Tensor, pool: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    distances = (data.double()[:, None] - pool.double()[None]).square().sum(-1)
    return distances.sort(dim=1, stable=True).values[:, :k], distances.argsort(dim=1, stable=True)[:, :k]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workloads small enough for an end-to-end run in a test."""
    small = (
        Workload("small", 40, 300, 24, "clusters"),
        Workload("small_k", 20, 200, 3, k=3),
        Workload("small_batch", 3, 30, 8, batch=4),
    )
    monkeypatch.setattr(knn_workloads, "SETS", {"tiny": small})
    monkeypatch.setattr(imle_knn, "measure_peaks", lambda device: {"fp32_gflops": 10.0, "copy_gbs": 5.0})


def run_tiny(*names: str, **options) -> Results:
    defaults = {"repeats": 2, "memory": False, "threads": 1}
    return imle_knn.run_knn(names or ("tiny",), **{**defaults, **options})


# Statistics and order ------------------------------------------------------------------------------------------


def test_spread_is_median_quartiles_and_extremes():
    found = harness.spread([5.0, 1.0, 4.0, 2.0, 3.0])
    assert found == {"median_s": 3.0, "q1_s": 2.0, "q3_s": 4.0, "min_s": 1.0, "max_s": 5.0}
    assert set(harness.spread([0.25]).values()) == {0.25}
    with pytest.raises(ValueError, match="seconds"):
        harness.spread([])


def test_spread_agrees_with_numpy_quantiles():
    values = np.random.default_rng(0).lognormal(size=17).tolist()
    found = harness.spread(values)
    assert [found["q1_s"], found["median_s"], found["q3_s"]] == pytest.approx(
        np.quantile(values, [0.25, 0.5, 0.75])
    )


def test_effort_spends_fewer_rounds_on_slow_peers_and_more_calls_on_fast_ones():
    effort = Effort(repeats=10, min_repeats=3, budget_s=20.0, shortest_s=2e-3)
    assert [effort.rounds(s) for s in (1e-3, 4.0, 19.0, 30.0)] == [10, 5, 3, 1]
    assert [effort.calls(s) for s in (1.0, 1e-3, 1e-5)] == [1, 2, 200]


def test_peers_are_interleaved_in_shuffled_rounds():
    log: list[str] = []
    names = ["a", "b", "c", "d"]
    peers = [Peer(name, lambda name=name: log.append(name) or name) for name in names]
    effort = Effort(repeats=6, shortest_s=0.0, settle_s=0.0)
    measured = harness.measure(peers, effort, seed=3)
    timed = log[-6 * 4 :]
    rounds = [timed[i : i + 4] for i in range(0, 24, 4)]
    assert all(sorted(round_) == names for round_ in rounds)
    assert len({tuple(round_) for round_ in rounds}) > 1
    assert all(len(measured[name].seconds) == 6 for name in names)
    first = list(log)
    log.clear()
    harness.measure(peers, effort, seed=3)
    assert log == first


def test_a_raising_peer_is_reported_and_the_others_go_on():
    def broken() -> None:
        raise RuntimeError("out of luck\nand more")

    measured = harness.measure([Peer("good", lambda: 1), Peer("bad", broken)], FAST)
    assert measured["bad"].error == "RuntimeError: out of luck"
    assert len(measured["good"].seconds) == 4
    with pytest.raises(ValueError, match="distinct"):
        harness.measure([Peer("same", lambda: 1), Peer("same", lambda: 2)], FAST)


def test_the_worse_of_first_and_last_answer_counts():
    answers = iter(range(100))
    measured = harness.measure([Peer("drifts", lambda: next(answers), lambda n: {"mismatches": n})], FAST)
    assert measured["drifts"].checked == {"mismatches": next(answers) - 1}


# Exactness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("k", [1, 4])
def test_oracle_agrees_with_brute_force(offset: float, k: int):
    data, pool = gaussian(17, 9) + offset, gaussian(500, 9, seed=1) + offset
    assert torch.allclose(oracle.nearest(data, pool, k), brute_force(data, pool, k)[0], rtol=1e-13, atol=0)


def test_oracle_settles_pools_full_of_ties():
    data, pool = gaussian(3, 5), gaussian(1, 5, seed=1).expand(4000, 5)
    expected = brute_force(data, pool[:1], 1)[0].expand(3, 2)
    assert torch.allclose(oracle.nearest(data, pool, 2), expected, rtol=1e-13, atol=0)


def test_oracle_sees_one_ulp_at_a_large_offset():
    data = torch.full((1, 4), 1000.0)
    pool = data.repeat(200, 1)
    pool[:, 0] += torch.arange(200, 0, -1) * 2.0**-14
    assert oracle.nearest(data, pool, 1).item() == 2.0**-28


def test_mismatches_count_wrong_answers_and_nothing_else():
    data, pool = gaussian(30, 6), gaussian(100, 6, seed=1)
    pool[99] = pool[7]
    known = oracle.truth(data, pool, 2, queries=30, seed=0)
    distances, right = brute_force(data, pool, 2)

    def mismatches(indices: torch.Tensor) -> int:
        return oracle.compare(known, data, pool, indices, None)["mismatches"]

    assert mismatches(right) == 0
    assert mismatches(torch.where(right == 7, 99, right)) == 0
    assert mismatches(right.flip(1)) == 30
    assert mismatches(right[:, :1].expand(30, 2)) == 30
    missing = right.clone()
    missing[4, 1] = -1
    missing[9, 0] = 100
    assert mismatches(missing) == 2
    found = oracle.compare(known, data, pool, right, distances * (1 + 1e-4))
    assert found["checked"] == 30
    assert found["max_relative_error"] == pytest.approx(1e-4, rel=1e-6)
    assert oracle.compare(known, data, pool, right, distances * torch.nan)["max_relative_error"] == torch.inf


def test_a_wrong_peer_shows_in_the_rows(tiny: None, monkeypatch: pytest.MonkeyPatch):
    def second_nearest(problem: knn_peers.Problem):
        return lambda: knn_peers.search_chunked(problem.data, problem.pool, 2, torch.Tensor.float)

    wrong = knn_peers.Entry(
        lambda problem: lambda: tuple(part[:, 1:] for part in second_nearest(problem)()),
        read=lambda answer: (answer[1], answer[0]),
    )
    monkeypatch.setitem(knn_peers.PEERS, "wrong", wrong)
    rows = {row["peer"]: row for row in run_tiny("small", peers=["naign", "wrong"]).rows}
    assert rows["naign"]["mismatches"] == 0
    assert rows["wrong"]["mismatches"] == rows["wrong"]["checked"] == 40


@pytest.mark.parametrize("shape", [(7, 50, 5), (2, 7, 50, 5)])
@pytest.mark.parametrize("k", [1, 4])
def test_torch_peer_searches_across_blocks(shape: tuple[int, ...], k: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(knn_peers._ROWS, "cpu", 3)
    monkeypatch.setitem(knn_peers._BLOCK, "cpu", 3 * 16 * (2 if len(shape) == 4 else 1))
    *batch, n, m, d = shape
    data, pool = gaussian(*batch, n, d), gaussian(*batch, m, d, seed=1)
    distances, indices = knn_peers.search_chunked(data, pool, k, torch.Tensor.float)
    for b in range(batch[0] if batch else 1):
        expected = brute_force(data[b] if batch else data, pool[b] if batch else pool, k)
        assert torch.equal(indices[b] if batch else indices, expected[1])
        assert torch.allclose((distances[b] if batch else distances).double(), expected[0], rtol=1e-4)


# Memory --------------------------------------------------------------------------------------------------------


def allocate_job(size: int, kept: bool) -> memory.Job:
    """Touches `size` bytes, and returns them or frees them before it ends."""

    def call() -> np.ndarray | None:
        block = np.ones(size, dtype=np.uint8)
        return block if kept else None

    return (lambda: None), call


def failing_job() -> memory.Job:
    raise ValueError("no such job")


@pytest.mark.skipif(memory.supported() is not None, reason="the kernel keeps no high-water mark here")
def test_memory_column_sees_allocations_and_little_else():
    with memory.MemoryProbe() as probe:

        def peak(size: int, kept: bool) -> int:
            return probe.measure("test_bench", "allocate_job", {"size": size, "kept": kept})

        for kept in (True, False):
            assert 200 * MB <= peak(200 * MB, kept) < 210 * MB
        assert peak(1, True) < 5 * MB
        with pytest.raises(RuntimeError, match="no such job"):
            probe.measure("test_bench", "failing_job", {})
        assert peak(1, True) < 5 * MB


@pytest.mark.skipif(memory.supported() is not None, reason="the kernel keeps no high-water mark here")
def test_memory_of_cdist_contains_its_matrix(tmp_path: Path):
    np.save(tmp_path / "data.npy", gaussian(2000, 4).numpy())
    np.save(tmp_path / "pool.npy", gaussian(10_000, 4, seed=1).numpy())
    with memory.MemoryProbe() as probe:
        arguments = {"folder": str(tmp_path), "k": 1, "dtype": "float32", "threads": 1}
        peaks = {
            peer: probe.measure("naign_bench.imle_knn", "memory_job", {**arguments, "peer": peer})
            for peer in ("torch cdist", "faiss")
        }
    assert 80 * MB <= peaks["torch cdist"] < 100 * MB
    assert peaks["faiss"] < 20 * MB


def test_memory_is_null_with_a_reason_where_it_cannot_be_measured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "_CLEAR", Path("/nonexistent"))
    with memory.MemoryProbe() as probe:
        assert probe.measure("test_bench", "allocate_job", {"size": 1, "kept": True}) is None
        assert "clear_refs" in probe.method


# Workloads -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(knn_workloads._KINDS))
def test_data_depend_on_the_seed_alone(kind: str):
    d = {"images": 3 * 16 * 16, "mnist": 784}.get(kind, 10)
    workload = Workload("some", 5, 12, d, kind)
    data, pool = knn_workloads.make(workload, 4)
    assert data.shape == (5, d) and pool.shape == (12, d)
    assert data.dtype == pool.dtype == torch.float32
    again = knn_workloads.make(workload, 4)
    assert torch.equal(data, again[0]) and torch.equal(pool, again[1])
    assert not torch.equal(data, knn_workloads.make(workload, 5)[0])


def test_image_pools_are_smooth():
    data, _ = knn_workloads.make(Workload("some", 20, 1, 3 * 32 * 32, "images"), 0)
    images = data.view(20, 3, 32, 32)
    assert (images[..., 1:] - images[..., :-1]).var() < 0.1 * images.var()


def test_grid_is_reproducible_and_within_its_limits():
    shapes = knn_workloads.grid(40, 7, max_bytes=2**24, max_operations=1e9)
    assert shapes == knn_workloads.grid(40, 7, max_bytes=2**24, max_operations=1e9)
    assert all(4 * w.d * max(w.n, w.m) <= 2**24 and w.operations <= 1e9 for w in shapes)
    assert min(w.d for w in shapes) < 10 and max(w.d for w in shapes) > 500
    assert len({w.name for w in shapes}) == 40


def test_workload_names_are_unique_and_resolve():
    names = knn_workloads.workload_names()
    assert len(set(names)) == len(names)
    names = [workload.name for workload in knn_workloads.resolve(["plane", "quick", "plane"])]
    assert names == ["plane", *(workload.name for workload in knn_workloads.QUICK)]
    assert knn_workloads.resolve(["full"]) == list(knn_workloads.FULL)
    with pytest.raises(ValueError, match="nonsense"):
        knn_workloads.resolve(["nonsense"])


# Whole runs ----------------------------------------------------------------------------------------------------


def test_run_knn_end_to_end(tiny: None, tmp_path: Path):
    before = torch.get_num_threads()
    lines: list[str] = []
    results = run_tiny(json_path=tmp_path / "out.json", memory=True, progress=lines.append)
    assert torch.get_num_threads() == before
    assert results.header["threads"] == 1 and results.header["versions"]["torch"] == torch.__version__
    assert len(lines) == 4
    assert len(results.rows) == 3 * len(knn_peers.peer_names("cpu"))
    assert all(set(row) == set(imle_knn.COLUMNS) for row in results.rows)
    assert not [row for row in results.rows if row["status"] == "failed"]
    for row in results.rows:
        if row["peer"] in ("naign", "naign prepared") and row["status"] == "ok":
            assert row["mismatches"] == 0 and row["max_relative_error"] < 1e-6
        if row["status"] == "ok":
            operations = 2 * np.prod(row["shape"])
            assert row["gflops"] == pytest.approx(operations / row["median_s"] / 1e9)
            assert row["min_s"] <= row["q1_s"] <= row["median_s"] <= row["q3_s"] <= row["max_s"]
            assert row["repeats"] == 2
            assert (row["peak_memory_bytes"] is None) == (memory.supported() is not None)
        else:
            assert row["status"] == "absent" and row["reason"]
    loaded = harness.load(tmp_path / "out.json")
    assert loaded.as_dict() == json.loads(json.dumps(results.as_dict()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["header"].pop("kind"), "KeyError: 'kind'"),
        (lambda c: c.update(rows={}), "results.rows: expected a list, got dict"),
        (lambda c: c["rows"].insert(0, None), r"results.rows\[0\]: expected an object, got NoneType"),
        (lambda c: c["rows"][0].pop("workload"), "the columns"),
        (lambda c: [row.update(ratio_naign="x", peer="a") for row in c["rows"]], "is not what naign writes"),
    ],
)
def test_a_results_file_that_is_damaged_is_named(tiny: None, tmp_path: Path, change: Any, message: str):
    content = json.loads((ROOT / "bench" / "results" / "knn-cpu.json").read_text())
    change(content)
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DamagedFileError, match=f"^damaged: {path}: .*{message}"):
        draw(harness.load(path), tmp_path / "picture.png")


def test_pictures_are_named_by_what_can_be_written(tmp_path: Path):
    found = harness.load(ROOT / "bench" / "results" / "knn-cpu.json")
    with pytest.raises(
        ValueError, match=r"picture: expected a name that ends in .png, .svg, .pdf, got 'a.x'"
    ):
        draw(found, tmp_path / "a.x")


def test_ratios_are_taken_within_a_workload(tiny: None):
    rows = run_tiny("small", "small_k", peers=["naign", "torch fp32"]).rows
    for ours, other in (rows[:2], rows[2:]):
        assert ours["ratio_naign"] == 1.0
        assert other["ratio_naign"] == pytest.approx(other["median_s"] / ours["median_s"])
        assert other["ratio_prepared"] is None
    name, (value, row) = next(iter(tables.worst_ratios(rows).items()))
    assert name == "torch fp32"
    assert value == row["ratio_naign"] == min(rows[1]["ratio_naign"], rows[3]["ratio_naign"])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_run_knn_with_half_precision_inputs(tiny: None, dtype: str):
    rows = run_tiny("small", dtype=dtype, peers=["naign", "faiss", "sklearn", "gemm bf16"]).rows
    assert [row["status"] for row in rows] == ["ok"] * 4
    assert rows[0]["mismatches"] == 0 and rows[0]["dtype"] == dtype


def test_grid_run_measures_every_shape(monkeypatch: pytest.MonkeyPatch):
    shapes = [Workload(f"grid_{i:03d}", 5, 50, 4) for i in range(2)]
    monkeypatch.setattr(imle_knn, "grid", lambda count, seed: shapes[:count])
    results = imle_knn.run_knn(grid_shapes=2, peers=["naign", "cKDTree"], memory=False, peaks=False)
    assert [row["workload"] for row in results.rows] == ["grid_000"] * 2 + ["grid_001"] * 2


def test_a_peer_that_cannot_be_imported_is_absent_with_the_reason(
    tiny: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "faiss", None)
    rows = run_tiny("small", peers=["naign", "faiss"]).rows
    assert rows[1]["status"] == "absent" and "faiss" in rows[1]["reason"]
    assert rows[1]["median_s"] is None and rows[1]["ratio_naign"] is None


def test_data_that_cannot_be_made_leave_absent_rows(tiny: None, monkeypatch: pytest.MonkeyPatch):
    def missing(*_) -> None:
        raise ImportError("No module named 'mlxtend'")

    monkeypatch.setitem(knn_workloads._KINDS, "clusters", missing)
    rows = run_tiny("small", peers=["naign"]).rows
    assert [row["status"] for row in rows] == ["absent"] and "mlxtend" in rows[0]["reason"]


@pytest.mark.parametrize(
    "options",
    [
        {"workloads": ["no_such"]},
        {"peers": ["no_such"]},
        {"dtype": "int8"},
        {"device": "tpu"},
        {"repeats": 0},
        {"threads": 0},
        {"k": 0},
        {"k": 10**9},
    ],
)
def test_wrong_arguments_are_named(options: dict):
    with pytest.raises(ValueError, match=next(iter(options))):
        imle_knn.run_knn(**options)


def test_run_loss_end_to_end(tmp_path: Path):
    peers = ["naign", "torch", "copy"]
    path = tmp_path / "loss.json"
    results = fused_loss.run_loss(["loss_mnist"], peers=peers, repeats=2, threads=1, json_path=path)
    rows = {row["peer"]: row for row in results.rows}
    assert all(set(row) == set(fused_loss.COLUMNS) for row in results.rows)
    assert [row["status"] for row in results.rows] == ["ok"] * 3
    for name in ("naign", "torch"):
        assert rows[name]["loss_error"] < 1e-5 and rows[name]["gradient_error"] < 1e-5
    assert rows["copy"]["share_of_copy"] == 1.0
    assert rows["naign"]["traffic_bytes"] == 5 * 256 * 784 * 4
    gradients = 2 * 256 * 784 * 4
    if memory.supported() is None:
        assert 0.9 * gradients < rows["torch"]["peak_memory_bytes"] < 10 * gradients
    assert harness.load(path).header["kind"] == "fused_loss"


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("terms", [2, 3])
def test_loss_peers_agree(norm: str, terms: int):
    workload = fused_loss.Workload("some", (6, 5), terms, norm)
    problem = fused_loss.make(workload, 0, "cpu", torch.float32)
    for name in ("naign", "torch"):
        peer = fused_loss.build_peer(name, problem)
        columns = peer.check(peer.call())
        assert columns["loss_error"] < 1e-6 and columns["gradient_error"] < 1e-6
    assert workload.traffic_bytes(torch.float32) == (2 * terms + 1) * 30 * 4


def test_a_wrong_gradient_shows():
    problem = fused_loss.make(fused_loss.Workload("some", (6, 5)), 0, "cpu", torch.float32)
    peer = fused_loss.build_peer("torch", problem)
    total, first, second = peer.call()
    assert peer.check((total, first, 1.01 * second))["gradient_error"] == pytest.approx(0.01, rel=1e-3)
    assert peer.check((1.01 * total, first, second))["loss_error"] == pytest.approx(0.01, rel=1e-3)


def test_torch_compile_is_absent_without_a_compiler(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fused_loss.shutil, "which", lambda name: None)
    problem = fused_loss.make(fused_loss.Workload("some", (2, 3)), 0, "cpu", torch.float32)
    found = fused_loss.build_peer("torch compile", problem)
    assert isinstance(found, Absent) and "compiler" in found.reason


# Files, tables, figures ----------------------------------------------------------------------------------------


def results_of(kind: str) -> Results:
    """Made-up results of every status, for the parts that only show them."""
    header = {**harness.environment("cpu", 2, kind), "load": 9.0, "cores": 2}
    header["peaks"] = {"fp32_gflops": 100.0, "bf16_gflops": 200.0, "int8_gops": 390.0, "copy_gbs": 20.0}
    columns = imle_knn.COLUMNS if kind == "imle_knn" else fused_loss.COLUMNS
    sizes = {"n": 10, "m": 1000, "d": 8, "k": 1, "data": "gaussian", "terms": 2, "norm": "l2"}
    base = {**dict.fromkeys(columns), **{key: value for key, value in sizes.items() if key in columns}}
    built = [Peer("naign", lambda: None), Peer("torch fp32", lambda: None), Absent("faiss", "not here")]
    rows = []
    for number in range(2):
        shared = {**base, "workload": f"work{number}", "shape": [10, 1000, 8], "dtype": "float32"}
        measured = {
            "naign": Measurement([1e-4, 2e-4, 3e-4], checked={"mismatches": 0, "checked": 4}),
            "torch fp32": Measurement([4e-4, 5e-4, 9e-3], checked={"mismatches": 3, "checked": 4}),
        }
        rows += harness.rows(shared, built, measured, {"naign": 5 * MB})
    rates = ("gflops", "max_relative_error") if kind == "imle_knn" else ("gbs", "share_of_copy", "loss_error")
    for row in rows:
        row["ratio_naign"] = None if row["median_s"] is None else row["median_s"] / 2e-4
        row.update(dict.fromkeys(rates, None if row["median_s"] is None else 0.123))
    return Results(header, rows)


def test_files_of_other_kinds_are_refused(tmp_path: Path):
    results = results_of("imle_knn")
    path = harness.save(results, tmp_path / "deep" / "out.json")
    assert harness.load(path).rows[1]["mismatches"] == 3
    good = json.loads(path.read_text())
    for damage, complaint in (
        ({"rows": []}, "header and rows"),
        ({**good, "header": {**good["header"], "schema": 99}}, "schema"),
        ({**good, "rows": [{**good["rows"][0], "status": "fine"}]}, "status"),
        ({**good, "rows": [{**good["rows"][0], "median_s": None}]}, "median"),
        ({**good, "rows": [{"peer": "naign"}]}, "columns"),
    ):
        path.write_text(json.dumps(damage))
        with pytest.raises(ValueError, match=complaint):
            harness.load(path)
    path.write_text("not JSON")
    with pytest.raises(ValueError, match="not JSON"):
        harness.load(path)


def test_saved_files_hold_no_infinities(tmp_path: Path):
    results = results_of("imle_knn")
    results.rows[0]["max_relative_error"] = torch.inf
    text = harness.save(results, tmp_path / "out.json").read_text()
    assert "Infinity" not in text and json.loads(text)["rows"][0]["max_relative_error"] is None
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.json"]


@pytest.mark.parametrize("kind", ["imle_knn", "fused_loss"])
def test_tables_fit_eighty_columns_and_hide_nothing(kind: str):
    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    tables.show(results_of(kind), console)
    text = console.export_text()
    assert "work0" in text and "work1" in text
    assert "faiss absent: not here" in text
    assert "200 us" in text and "2.50" in text
    assert "busy" in text
    assert "\u2026" not in text


def test_durations_have_units():
    found = [tables.seconds(value) for value in (None, 2.5e-5, 0.0123, 12.34)]
    assert found == ["", "25 us", "12.3 ms", "12.3 s"]


@pytest.mark.parametrize("kind", ["imle_knn", "fused_loss"])
def test_figures_are_drawn(kind: str, tmp_path: Path):
    from PIL import Image

    path = plot.draw(results_of(kind), tmp_path / "figure.png")
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L"))
    assert min(pixels.shape) > 400 and pixels.min() < 50 and (pixels == 255).mean() > 0.3
    with pytest.raises(ValueError, match="measured row"):
        plot.draw(Results(results_of(kind).header, []), tmp_path / "empty.png")


def test_command_line_measures_and_plots(tiny: None, tmp_path: Path):
    out, picture = tmp_path / "out.json", tmp_path / "figure.png"
    arguments = [
        "bench",
        "knn",
        "small",
        "--json",
        str(out),
        "--no-memory",
        "--repeats",
        "2",
        "--peer",
        "naign",
    ]
    measured = CliRunner().invoke(app, arguments)
    assert measured.exit_code == 0 and "small: 40 x 300 x 24" in measured.output
    assert CliRunner().invoke(app, ["bench", "plot", str(out), str(picture)]).exit_code == 0
    assert picture.stat().st_size > 10_000


def test_peers_of_a_gpu():
    wanted = {"naign", "naign prepared", "faiss", "torch fp32", "torch tf32", "torch compile", "torch cdist"}
    wanted |= {"flash-kmeans", "flash-kmeans bf16", "gemm bf16", "gemm tf32"}
    assert wanted <= set(knn_peers.peer_names("cuda"))
    assert set(knn_peers.peer_names("cpu")).isdisjoint({"flash-kmeans", "torch tf32"})
    shapes = [workload.shape for workload in knn_workloads.CUDA]
    for shape in ([4096, 262144, 1024], [60000, 100000, 784], [100, 10000, 12288], [1000000, 1000000, 64]):
        assert shape in shapes
    for workload in knn_workloads.CUDA:
        assert set(workload.peers or ()) <= set(knn_peers.peer_names("cuda"))


@pytest.mark.parametrize("batch", [(), (3,)])
def test_flash_kmeans_is_asked_for_the_nearest(monkeypatch: pytest.MonkeyPatch, batch: tuple[int, ...]):
    """With its kernel replaced by torch: points, centroids and squared norms in, int32 numbers out."""

    def assign(points: torch.Tensor, centroids: torch.Tensor, squares: torch.Tensor) -> torch.Tensor:
        assert points.dtype == centroids.dtype and points.dim() == centroids.dim() == 3
        torch.testing.assert_close(squares, points.float().square().sum(-1))
        return torch.cdist(points.float(), centroids.float()).argmin(-1).int()

    module = types.ModuleType("flash_kmeans.assign_euclid_triton")
    module.euclid_assign_triton = assign
    monkeypatch.setitem(sys.modules, "flash_kmeans", types.ModuleType("flash_kmeans"))
    monkeypatch.setitem(sys.modules, "flash_kmeans.assign_euclid_triton", module)
    g = torch.Generator().manual_seed(0)
    data, pool = torch.randn(*batch, 20, 8, generator=g), torch.randn(*batch, 90, 8, generator=g)
    known = oracle.truth(data, pool, 1, queries=20, seed=0)
    entry = knn_peers.PEERS["flash-kmeans"]
    distances, indices = entry.build(knn_peers.Problem(data, pool, 1, 1))()
    assert distances is None and indices.shape == (*batch, 20, 1)
    assert oracle.compare(known, data, pool, indices, None)["mismatches"] == 0
    with pytest.raises(knn_peers.Unavailable, match="one neighbour"):
        entry.build(knn_peers.Problem(data, pool, 2, 1))


def test_a_workload_may_name_its_peers(tiny: None, monkeypatch: pytest.MonkeyPatch):
    few = Workload("few", 4, 30, 5, peers=("naign", "gemm fp32"))
    monkeypatch.setitem(knn_workloads.SETS, "quick", (few,))
    assert {row["peer"] for row in run_tiny("few", peers=None).rows} == {"naign", "gemm fp32"}
    assert {row["peer"] for row in run_tiny("few", peers=["torch fp32"]).rows} == {"torch fp32"}


def test_rates_beside_the_measured_ceilings(tiny: None):
    workload = knn_workloads.resolve(["small"])[0]
    row = {**dict.fromkeys(imle_knn.COLUMNS), "peer": "naign", "median_s": workload.operations * 1e-9 / 50}
    imle_knn._with_rates([row], workload, {"fp32_gflops": 100.0, "bf16_gflops": 200.0, "int8_gops": None})
    assert row["gflops"] == pytest.approx(50)
    assert row["share_of_fp32"] == pytest.approx(0.5) and row["share_of_bf16"] == pytest.approx(0.25)
    assert row["share_of_int8"] is None


def test_what_nvidia_smi_says_is_kept():
    line = "580.159.03, 1980 MHz, 3201 MHz, 1980 MHz, 700.00 W, 41\n"
    found = harness.parse_accelerator(line)
    assert found["clocks.sm"] == "1980 MHz" and found["driver_version"] == "580.159.03"
    assert harness.parse_accelerator("No devices were found") == {}
    assert harness.accelerator("cpu") is None


@pytest.mark.gpu
def test_run_knn_on_a_gpu(tiny: None):
    if not torch.cuda.is_available():
        (pytest.fail if os.environ.get("NAIGN_REQUIRE_GPU") == "1" else pytest.skip)("needs a CUDA device")
    results = run_tiny("small", device="cuda", memory=True, peers=["naign", "torch fp32", "gemm fp32"])
    assert [row["status"] for row in results.rows] == ["ok"] * 3
    assert results.rows[0]["mismatches"] == 0
    assert all(row["peak_memory_bytes"] is not None for row in results.rows)
