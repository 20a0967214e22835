"""Runs of 2 and 4 processes beside runs of one: equal assignments, equal weights, one voice, restarts."""

import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from naign_ext import ImleSearch
from naign_ext.checkpoint import checkpoint_paths, load_checkpoint
from naign_ext.config import ConfigError, resolve_config
from naign_ext.distributed.batch_norm import SharedBatchNorm, sync_batch_norm
from naign_ext.distributed.processes import JoinError, MainProcessFailedError, join
from naign_ext.distributed.sharding import WHOLE, Shard
from naign_ext.features import FEATURES
from naign_ext.metrics_log import read_metrics
from naign_ext.objectives import OBJECTIVES, NaignOptions, StepContext
from naign_ext.objectives.matchers import CHEAP_POOL, build_matcher
from naign_ext.objectives.restoration import Restoration
from naign_ext.training import trainer
from naign_ext.training.progress import Progress
from naign_ext.training.trainer import NonFiniteLossError, resume, train
from naign_ext.transforms.batch import Batch

pytestmark = pytest.mark.slow
ROOT = Path(trainer.__file__).parents[2]
STEPS = 20
SMALL = (
    f"steps={STEPS}",
    "batch_size=32",
    "device=cpu",
    "model.widths=[24, 24]",
    "optimiser.warmup=0",
    "log.every=5",
    "log.samples_every=0",
    "log.checkpoint_every=10",
    "log.tensorboard=false",
)
IMAGES = (
    "model.architecture=mlp",
    "model.normalisation=layer",
    "objective.pool_size=200",
    "objective.resample_every=5",
)
HYBRID = (*IMAGES, "model.architecture=hybrid", "model.channels=4", "model.layers=3", "precision=fp32")
RUNS = {
    "plane": ("8gaussians", "objective.pool_size=96", "objective.projection_samples=50"),
    "again": ("8gaussians", "objective.pool_size=64", "objective.idempotence_weight=0.2"),
    "faces": ("lfw100", *IMAGES, "objective.foreign_weight=0.3", "objective.foreign_samples=41"),
    "hybrid": ("lfw100", *HYBRID),
    "warm": ("lfw100", *IMAGES, "objective.warm_start=true", "objective.denoise_weight=0"),
    "ign": ("8gaussians", "objective.name=ign"),
    "adaptive": ("8gaussians", "objective.name=adaptive-imle", "objective.resample_every=2"),
    "rejecting": ("8gaussians", "objective.name=rs-imle", "objective.pool_size=96"),
    "matching": ("8gaussians", "objective.name=matching", "objective.pool_size=64"),
    "features": ("lfw100", *IMAGES, "objective.features=rotated", "objective.match=batch"),
}
MATCHES = {
    "batch": {"pool_size": 1000},
    "shared": {"pool_size": 80_000},
    "few": {"pool_size": 3},
    "dataset": {"match": "dataset", "pool_size": 700},
    "warm": {"match": "dataset", "pool_size": 200, "warm_start": True},
    "adaptive": {"match": "adaptive", "pool_size": 200, "adaptive_patience": 1},
    "one-to-one": {"match": "one-to-one", "pool_size": 300},
    "pair": {"pool_size": 12, "reject_below": 9.0},
    "sample": {"pool_size": 60, "reject_below": 1.5, "reject": "sample"},
    "features": {"features": "rotated", "pool_size": 100},
    "features of all": {"features": "rotated", "match": "dataset", "pool_size": 200},
    "features adapting": {
        "features": "rotated",
        "match": "adaptive",
        "pool_size": 90,
        "adaptive_patience": 1,
    },
    "features one-to-one": {"features": "rotated", "match": "one-to-one", "pool_size": 300},
}


# Spawned processes import this file, so they know it too.
@FEATURES.register("rotated")
def rotated(sample_shape, weights):
    del weights
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(sample_shape), 20), nn.Tanh())


BATCH = torch.arange(0, 36).repeat(2)[:64:2]


def configuration(name):
    dataset, *settings = RUNS[name]
    return resolve_config(dataset, settings=[*SMALL, *settings])


def normal(rows, columns, seed):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 6))


def context(seed, shard):
    return StepContext(seed, shard.rank, shard.world_size)


def matched(name, shard):
    """Latents matched to this process's part of the batch, after several matches with a changing network."""
    f, data = network(), normal(40, 6, 1)
    matcher = build_matcher(NaignOptions(**MATCHES[name]), data, context(5, shard))
    found = []
    for step in range(3):
        matcher.prepare(f, step)
        found.append(matcher.latents(f, Batch.of(data, BATCH, shard)))
        with torch.no_grad():
            f[0].weight += 0.05
    return [(latents.clone(), admissible.clone()) for latents, admissible in found]


def searched(shard):
    """A search with ties, rows that are not finite, and rows that no sample may match."""
    data, pool = normal(70, 3, 2).round(), normal(500, 3, 3).round()
    data[3, 1], pool[::7, 0] = torch.nan, torch.inf
    start, stop = shard.span(len(pool))
    search = ImleSearch(data, reject_below=1.5)
    for first in range(start, stop, 50):
        last = min(first + 50, stop)
        search.update(pool[first:last], offset=first)
    if shard.is_distributed:
        search.merge()
    return search.count, *search.neighbours()


def searched_around(shard):
    """Each process's part of the data against a pool of chunks of uneven length, in all and in a group of some."""
    data, pool = normal(70, 3, 2).round(), normal(500, 3, 3).round()
    data[3, 1], pool[::7, 0] = torch.nan, torch.inf
    if not shard.is_distributed:
        search = ImleSearch(data, k=3, reject_below=1.5).update(pool)
        return search.count, *search.neighbours()
    found = []
    groups = [None, dist.new_group([0, shard.world_size - 1])]
    for group in groups[: 2 if shard.rank in (0, shard.world_size - 1) else 1]:
        ranks, rank = dist.get_world_size(group), dist.get_rank(group)
        search = ImleSearch(data[rank::ranks], k=3, reject_below=1.5)
        step = 37
        for first in range(0, len(pool), step * ranks):
            mine = pool[first + rank * step : min(first + (rank + 1) * step, len(pool))]
            search.update_around(mine, offset=first + rank * step, group=group)
        found.append((search.count, *search.neighbours()))
    return found


def normalised(shard):
    """Output, input's gradient, parameters' gradients and buffers of batch normalisation of a part of a batch."""
    layer = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(48))
    if shard.is_distributed:
        layer = sync_batch_norm(layer, torch.device("cpu"))
        assert isinstance(layer[0], SharedBatchNorm)
        assert isinstance(layer[3], SharedBatchNorm)
    whole = normal(32, 48, 4).view(32, 3, 4, 4) * 3 + 5
    for _ in range(2):
        x = shard.take(whole).clone().requires_grad_()
        y = layer(x)
        y.pow(3).sum().backward()
    gradients = [shard.sum(p.grad) for p in layer.parameters()]
    return y.detach(), x.grad, gradients, [b.clone() for b in layer.buffers()]


def ign_gradient(shard):
    """Mean gradient and terms of IGN's loss with batch normalisation."""
    f = network()
    options = OBJECTIVES["ign"].Options(
        denoise_weight=0.5, restore_weight=0.5, restore_kinds=("mask", "noise")
    )
    data = normal(40, 6, 1)
    objective = OBJECTIVES["ign"](options, data, context(5, shard))
    wrapped = (
        f if not shard.is_distributed else DistributedDataParallel(sync_batch_norm(f, torch.device("cpu")))
    )
    loss = objective.loss(wrapped, Batch.of(data, BATCH, shard), 3)
    loss.total.backward()
    terms = {name: shard.sum(term.clone()) / shard.world_size for name, term in loss.terms.items()}
    return [p.grad.clone() for p in f.parameters()], terms


class SignalAt(Progress):
    def __init__(self, step):
        self.step = step

    def stepped(self, step):
        if step.step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


class Count(Progress):
    def __init__(self):
        self.heard = 0

    def stepped(self, step):
        self.heard += 1


def refused(act):
    try:
        act()
    except (ValueError, RuntimeError) as error:
        return type(error).__name__, str(error)
    return None


def everything(shard, folder):
    """What the tests compare, for one process or for one of several."""
    results = {"matches": {name: matched(name, shard) for name in MATCHES}}
    results["search"] = searched(shard)
    results["around"] = searched_around(shard)
    results["normalised"] = normalised(shard)
    results["ign"] = ign_gradient(shard)
    listener = Count()
    for name in RUNS:
        train(configuration(name), folder / name, progress=listener)
    results["heard"] = listener.heard
    return results


def process(index, count, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=index, world_size=count)
    folder = Path(folder)
    results = everything(Shard(index, count), folder)
    stopped = train(configuration("plane"), folder / "stopped", progress=SignalAt(7))
    results["stopped"] = (stopped.status, stopped.step, stopped.signal)
    results["resumed"] = [resume(folder / name).step for name in ("stopped", "half")]
    uneven = configuration("plane").model_copy(update={"batch_size": 30 if count == 4 else 31})
    batch = configuration("plane").model_copy(
        update={"objective": NaignOptions(projection_weight=1.0, projection_to="batch")}
    )
    broken = configuration("plane").model_copy(
        update={"optimiser": configuration("plane").optimiser.model_copy(update={"lr": 1e30})}
    )
    results["refused"] = [
        refused(lambda: train(configuration("plane"), folder / "plane")),
        refused(lambda: resume(folder / "nothing")),
        refused(lambda: train(uneven, folder / "uneven")),
        refused(lambda: train(batch, folder / "batch")),
        refused(lambda: train(broken, folder / "broken")),
    ]
    torch.save(results, folder / f"{index}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("alone")
    results = everything(WHOLE, folder)
    train(configuration("plane").model_copy(update={"steps": 10}), folder / "short")
    torch.set_num_threads(before)
    return folder, results


@pytest.fixture(scope="module", params=[2, 4])
def together(request, alone, tmp_path_factory):
    """The same in 2 and in 4 processes; one run has been begun by a single process."""
    folder = tmp_path_factory.mktemp(f"together{request.param}")
    half = folder / "half"
    train(configuration("plane"), half, progress=SignalAt(10))
    mp.spawn(process, args=(request.param, str(folder)), nprocs=request.param)
    parts = [torch.load(folder / f"{i}.pt", weights_only=False) for i in range(request.param)]
    return folder, parts


def weights(folder, name):
    return load_checkpoint(folder / name, "last")


def largest_difference(a, b):
    pairs = [(a.tensors[k], b.tensors[k]) for k in ("model", "ema")]
    return max((x[k].double() - y[k].double()).abs().max().item() for x, y in pairs for k in x)


@pytest.mark.parametrize("name", MATCHES)
def test_assignments_are_those_of_one_process_bit_for_bit(alone, together, name):
    parameters = sum(p.numel() for p in network().parameters())
    assert 1000 * parameters < CHEAP_POOL < 80_000 * parameters
    expected = alone[1]["matches"][name]
    parts = [part["matches"][name] for part in together[1]]
    for step, (latents, admissible) in enumerate(expected):
        assert torch.equal(torch.cat([part[step][0] for part in parts]), latents)
        assert torch.equal(torch.cat([part[step][1] for part in parts]), admissible)
    assert name != "pair" or any(a.any() and not a.all() for _, a in expected)


def test_merged_searches_equal_one(alone, together):
    count, distances, indices = alone[1]["search"]
    assert count == 500
    assert (indices == -1).any()
    for part in together[1]:
        assert part["search"][0] == 500
        torch.testing.assert_close(part["search"][1], distances, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(part["search"][2], indices)


def test_a_ring_of_searches_of_different_data_equals_one(alone, together):
    count, distances, indices = alone[1]["around"]
    parts = [part["around"] for part in together[1]]
    for i, ends in enumerate([parts, [parts[0], parts[-1]]]):
        for rank, part in enumerate(ends):
            assert part[i][0] == count == 500
            expected = distances[rank :: len(ends)]
            torch.testing.assert_close(part[i][1], expected, rtol=0, atol=0, equal_nan=True)
            assert torch.equal(part[i][2], indices[rank :: len(ends)])


def test_batch_normalisation_sees_all_processes(alone, together):
    y, gradient, parameters, buffers = alone[1]["normalised"]
    parts = [part["normalised"] for part in together[1]]
    torch.testing.assert_close(torch.cat([p[0] for p in parts]), y, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.cat([p[1] for p in parts]), gradient, rtol=1e-3, atol=1e-4)
    for part in parts:
        torch.testing.assert_close(part[2], parameters, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(part[3], buffers, rtol=1e-5, atol=1e-6)


def test_the_mean_gradient_of_ign_is_that_of_one_process(alone, together):
    gradients, terms = alone[1]["ign"]
    for part in together[1]:
        torch.testing.assert_close(part["ign"][0], gradients, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(part["ign"][1], terms, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", RUNS)
def test_weights_after_twenty_steps_are_those_of_one_process(alone, together, name):
    one, many = weights(alone[0], name), weights(together[0], name)
    assert one.step == many.step == STEPS
    # AdamW divides by the gradient's own size, so that a small gradient's last bits reach the weights.
    assert largest_difference(one, many) < 1e-4
    assert {k: v.shape for k, v in one.tensors["optimizer"].items()} == {
        k: v.shape for k, v in many.tensors["optimizer"].items()
    }
    steps = [
        [r for r in read_metrics(folder / name) if r["kind"] == "train"] for folder in (alone[0], together[0])
    ]
    for a, b in zip(*steps, strict=True):
        assert (a["step"], a["samples"]) == (b["step"], b["samples"])
        assert b["terms"] == pytest.approx(a["terms"], rel=1e-3, abs=1e-5)
        assert b["cost"]["merge"] > 0


def test_only_the_first_process_is_heard(together):
    heard = [part["heard"] for part in together[1]]
    assert heard == [STEPS * len(RUNS)] + [0] * (len(heard) - 1)


def test_a_signal_to_one_process_stops_all_at_the_same_update(together):
    # The first process is signalled after update 7; all hear of it in update 8.
    assert {part["stopped"] for part in together[1]} == {("interrupted", 8, "SIGTERM")}


def test_a_run_goes_on_in_another_number_of_processes(alone, together):
    folder, parts = together
    assert all(part["resumed"] == [STEPS, STEPS] for part in parts)
    for name in ("stopped", "half"):
        assert largest_difference(weights(folder, name), weights(alone[0], "plane")) < 1e-4
        steps = [r["step"] for r in read_metrics(folder / name) if r["kind"] == "train"]
        assert steps == [5, 10, 15, 20]


def test_one_process_goes_on_with_a_run_of_several(alone, together, tmp_path):
    run = tmp_path / "run"
    subprocess.run(["cp", "-r", str(together[0] / "stopped"), str(run)], check=True)
    early = checkpoint_paths(run)[0]
    assert load_checkpoint(early).step < STEPS
    assert resume(early).status == "completed"
    assert largest_difference(weights(tmp_path, "run"), weights(alone[0], "plane")) < 1e-4


def test_what_is_refused_is_said_once(together):
    folder, parts = together
    first, others = parts[0]["refused"], [part["refused"] for part in parts[1:]]
    assert [name for name, _ in first] == [
        ConfigError.__name__,
        ConfigError.__name__,
        "ValueError",
        "ValueError",
        NonFiniteLossError.__name__,
    ]
    assert "already holds a run" in first[0][1]
    assert "expected a run folder" in first[1][1]
    assert re.search(r"batch_size: expected a multiple of the \d processes, got 3\d", first[2][1])
    assert "projection_to: expected dataset where" in first[3][1]
    for part in others:
        kinds = [name for name, _ in part]
        silent = MainProcessFailedError.__name__
        assert kinds == [silent, silent, "ValueError", "ValueError", silent]
        assert part[0][1] == first[0][1]
    assert checkpoint_paths(folder / "broken") == []


def test_a_batch_is_corrupted_by_blocks_whatever_part_of_it_is_asked_for():
    options = NaignOptions(denoise_weight=1.0, restore_weight=1.0, restore_kinds=("mask", "noise"))
    restoration = Restoration(options, 7)
    x, rows = normal(900, 5, 8), torch.arange(900)
    whole = restoration.inputs(Batch.of(x, rows), 3)
    for count in (2, 3, 9):
        parts = [restoration.inputs(Batch.of(x, rows, Shard(i, count)), 3) for i in range(count)]
        for term, expected in whole.items():
            assert torch.equal(torch.cat([part[term] for part in parts]), expected)
    first, later = whole["denoise"][:256] - x[:256], whole["denoise"][256:512] - x[256:512]
    assert not torch.isclose(first, later).all(1).any()


def test_spans_cover_a_pool_once():
    for total in (0, 1, 7, 15, 16, 64, 200, 1000, 100_000):
        for count in (1, 2, 3, 4, 7):
            spans = [Shard(i, count).span(total) for i in range(count)]
            assert [s for span in spans for s in range(*span)] == list(range(total))
            lengths = [stop - start for start, stop in spans]
            unit = 8 if total >= 8 * count else 1
            assert max(lengths) - min(lengths) <= unit
            assert all(start % unit == 0 for start, _ in spans)


def test_without_torchrun_a_process_is_alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with join() as processes:
        assert not processes.is_distributed
        assert processes.is_main
        assert processes.on_main(lambda: 3) == processes.in_turn(lambda: 3) == 3
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with join() as processes:
        assert not processes.is_distributed
    assert not dist.is_initialized()


def policies(index, folder):
    """Scheduling policies of the threads of a process that torchrun started: of gloo's, and of the one that trains."""
    variables = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost"}
    os.environ.update({name: str(value) for name, value in variables.items()})
    with join():
        dist.barrier()
        threads = {path.name: (path / "comm").read_text() for path in Path("/proc/self/task").iterdir()}
        found = {name.strip(): os.sched_getscheduler(int(thread)) for thread, name in threads.items()}
        torch.save((found, os.sched_getscheduler(0)), f"{folder}/{index}.pt")


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="policies of threads are Linux's")
def test_threads_of_gloo_do_not_interrupt_each_other(tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        monkeypatch.setenv("MASTER_PORT", str(free.getsockname()[1]))
    mp.spawn(policies, args=(str(tmp_path),), nprocs=2)
    for index in range(2):
        found, own = torch.load(tmp_path / f"{index}.pt")
        assert own == os.SCHED_OTHER
        of_gloo = {name: policy for name, policy in found.items() if "gloo" in name}
        assert len(of_gloo) >= 2
        assert set(of_gloo.values()) == {os.SCHED_BATCH}


def torchrun(*arguments, restarts=0):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command += ["--max-restarts", str(restarts), "-m", "naign_cli", "train", *map(str, arguments)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        cwd=ROOT,
    )


def worker(agent, rank):
    """The process of this rank among the agent's children."""
    for child in Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split():
        try:
            if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
                return int(child)
        except OSError:
            continue
    return None


def wait_for(condition, agent, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        if agent.poll() is not None or time.monotonic() > end:
            pytest.fail(f"it did not come to pass:\n{agent.communicate(timeout=10)[0]}")
        time.sleep(0.05)


KILLED = (
    "--dataset", "8gaussians", "--steps", "3000", "--no-report", "--set", "log.tensorboard=false",
    "--set", "log.checkpoint_every=20", "--set", "log.samples_every=0", "--set", "model.widths=[16]",
    "--set", "batch_size=16", "--set", "objective.pool_size=16",
)  # fmt: skip


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux to find the processes")
def test_a_killed_process_ends_the_job_with_a_message(tmp_path):
    run = tmp_path / "run"
    agent = torchrun(*KILLED, "--out", run)
    wait_for(lambda: checkpoint_paths(run), agent)
    os.kill(worker(agent, 1), signal.SIGKILL)
    output = agent.communicate(timeout=120)[0]
    assert agent.returncode != 0
    assert "process 0 of 2: another process of the run is gone or does not answer" in output
    assert f"--resume {run}" in output.replace("\n", "")
    assert "Traceback" not in output.split("ChildFailedError")[0].split("exitcode")[0]
    assert 0 < load_checkpoint(run, "last").step < 3000


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux to find the processes")
def test_torchrun_restarts_a_killed_job_from_its_last_checkpoint(tmp_path):
    run = tmp_path / "run"
    agent = torchrun(*KILLED[:2], "--steps", "400", *KILLED[4:], "--out", run, restarts=2)
    wait_for(lambda: checkpoint_paths(run), agent)
    os.kill(worker(agent, 1), signal.SIGKILL)
    output = agent.communicate(timeout=240)[0]
    assert agent.returncode == 0, output
    assert re.search(r"from update \d+, into", output)
    assert load_checkpoint(run, "last").step == 400
    steps = [r["step"] for r in read_metrics(run) if r["kind"] == "train"]
    assert steps == sorted(set(steps))
    assert steps[-1] == 400


def test_a_job_that_may_be_restarted_has_to_name_its_run():
    agent = torchrun("--dataset", "8gaussians", restarts=1)
    output = agent.communicate(timeout=120)[0]
    assert agent.returncode != 0
    assert "--out: expected a run folder" in output


def started_by_hand(folder, *options):
    """Two processes of a job, each with options of its own, as several machines start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "naign_cli", "train", *KILLED, "--out", str(folder)]
    job = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for rank, own in enumerate(options):
        places = {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1", "NAIGN_TIMEOUT": "10"}
        yield subprocess.Popen(
            [*command, *own],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **job, **places},
            cwd=ROOT,
        )


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        (
            ["--set", "optimiser.lr=0.1", "--steps", "20"],
            ["--set", "optimiser.lr=0.2", "--steps", "30"],
            "steps: 20 in process 0, 30 in process 1; optimiser.lr: 0.1 in process 0, 0.2 in process 1",
        ),
        (["--dataset", "moons"], ["--dataset", "trimodal1d"], "dataset: 'moons' in process 0, 'trimodal1d'"),
    ],
    ids=["values", "data"],
)
def test_processes_that_are_configured_differently_are_refused(tmp_path, one, other, told):
    for process in list(started_by_hand(tmp_path / "run", one, other)):
        errors = process.communicate(timeout=120)[1]
        assert process.returncode == 2, errors
        assert [line for line in errors.splitlines() if told in line], errors
        assert "Traceback" not in errors
    assert not (tmp_path / "run").exists()


def test_a_process_that_only_stands_still_leaves_no_other_waiting(tmp_path):
    jobs = list(started_by_hand(tmp_path / "run", [], []))
    wait_for(lambda: checkpoint_paths(tmp_path / "run"), jobs[0])
    jobs[1].send_signal(signal.SIGSTOP)
    errors = jobs[0].communicate(timeout=120)[1]
    assert jobs[0].returncode == 1
    assert "process 0 of 2: another process of the run is gone or does not answer" in errors
    assert "Traceback" not in errors
    jobs[1].send_signal(signal.SIGCONT)
    assert "Traceback" not in jobs[1].communicate(timeout=120)[1] and jobs[1].returncode == 1


def test_a_port_that_is_taken_is_said(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        job = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        for name, value in job.items():
            monkeypatch.setenv(name, value)
        with (
            pytest.raises(JoinError, match=rf"cannot meet at 127\.0\.0\.1:{port} .* give another one"),
            join(),
        ):
            pass


@pytest.mark.parametrize("seconds", ["soon", "0", "nan", "1e99"])
def test_how_long_to_wait_is_a_number_of_seconds(monkeypatch, seconds):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("NAIGN_TIMEOUT", seconds)
    with pytest.raises(ValueError, match=r"^NAIGN_TIMEOUT: expected seconds, 1 to 604800, got"), join():
        pass


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORLD_SIZE", "x"),
        ("WORLD_SIZE", "0"),
        ("RANK", "-1"),
        ("RANK", "2"),
        ("LOCAL_RANK", ""),
        ("LOCAL_WORLD_SIZE", "1.5"),
        ("MASTER_PORT", "port"),
    ],
)
def test_what_no_launcher_sets_is_named_by_its_variable(monkeypatch, name, value):
    for variable, given in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", name: value}.items():
        monkeypatch.setenv(variable, given)
    with pytest.raises(ValueError, match=rf"^{name}: expected .*, got '?{value}'?$"), join():
        pass


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
@pytest.mark.parametrize("count", [1, 2, 1000])
def test_processes_of_a_machine_keep_to_their_own_processors(count):
    code = (
        "import os; from naign_ext.distributed.processes import _keep_to_own_processors as keep; keep(); "
        "print(*sorted(os.sched_getaffinity(0)))"
    )
    given = sorted(os.sched_getaffinity(0))
    parts = []
    for local in range(min(count, 2)):
        environment = {**os.environ, "LOCAL_RANK": str(local), "LOCAL_WORLD_SIZE": str(count)}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        parts.append([int(number) for number in done.stdout.split()])
    if count > len(given):
        assert parts == [given, given]
    else:
        size = len(given) // count
        assert parts == [given[i * size : (i + 1) * size] for i in range(count)]
