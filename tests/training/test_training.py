"""The trainer: a run's folder, determinism, stopping, resuming bit for bit."""

import errno
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from naign_ext import metrics_log
from naign_ext import run as runs
from naign_ext.checkpoint import CheckpointError, checkpoint_paths, load_checkpoint
from naign_ext.config import ConfigError, load_config, resolve_config, save_config
from naign_ext.metrics_log import read_metrics
from naign_ext.run import Run
from naign_ext.training import state as training_state
from naign_ext.training import trainer
from naign_ext.training.callbacks import Callback, default_callbacks
from naign_ext.training.progress import Progress
from naign_ext.training.trainer import NonFiniteLossError, RunNotWrittenError, Trainer, resume, train
from naign_ext.untrusted import DamagedFileError

# TensorBoard's import of torch.jit warns of its own future.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")

ROOT = Path(trainer.__file__).parents[2]
STEPS = 24
SMALL = (
    f"steps={STEPS}",
    "batch_size=16",
    "model.widths=[24, 24]",
    "objective.pool_size=100",
    "log.every=3",
    "log.samples_every=10",
    "log.checkpoint_every=6",
    "log.tensorboard=false",
)
FACES = (
    "model.widths=[16, 8, 16]",
    "objective.pool_size=130",
    "objective.resample_every=5",
    "objective.restore_weight=0.5",
)


def configuration(*settings, dataset="8gaussians"):
    return resolve_config(dataset, settings=[*SMALL, *settings])


def same_weights(a, b):
    pairs = [(a.tensors[name], b.tensors[name]) for name in ("model", "ema", "optimizer")]
    return all(x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x) for x, y in pairs)


class StopAt(Progress):
    """Sends a signal to this process, or raises, after a given update."""

    def __init__(self, step, number=None):
        self.step, self.number = step, number

    def stepped(self, step):
        if step.step == self.step:
            if self.number is None:
                raise RuntimeError("killed")
            os.kill(os.getpid(), self.number)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    run = tmp_path_factory.mktemp("whole") / "run"
    return train(configuration(), run)


@pytest.fixture(scope="module")
def whole_faces(tmp_path_factory):
    """The same with batch normalisation, images and a match that is kept over checkpoints."""
    run = tmp_path_factory.mktemp("faces") / "run"
    return train(configuration(*FACES, dataset="lfw100"), run)


def test_run_folder_is_complete(whole):
    run = whole.run
    assert (whole.status, whole.step, whole.steps, whole.signal) == ("completed", STEPS, STEPS, None)
    config = load_config(run / "config.yaml")
    assert config.dataset == "8gaussians" and config.data_parameters
    assert config.model_copy(update={"data_parameters": {}}) == configuration()
    pictures = sorted(p.name for p in (run / "samples").iterdir())
    assert pictures == [f"step_{s:08d}.png" for s in (0, 10, 20, 24)]
    assert all(p.read_bytes()[:4] == b"\x89PNG" for p in (run / "samples").iterdir())
    assert checkpoint_paths(run)[-1] == whole.checkpoint and whole.best in checkpoint_paths(run)


def test_metrics_hold_every_term(whole):
    records = read_metrics(whole.run)
    steps = [r for r in records if r["kind"] == "train"]
    assert [r["step"] for r in steps] == list(range(3, STEPS + 1, 3))
    for r in steps:
        assert set(r["terms"]) == {"reconstruction", "imle", "projection", "denoise"}
        weights = {"reconstruction": 1, "imle": 1, "projection": 1, "denoise": 0.5}
        assert r["loss"] == pytest.approx(sum(weights[k] * v for k, v in r["terms"].items()), rel=1e-5)
        assert r["samples"] == 16 * r["step"]
        assert min(r["lr"], r["grad_norm"], r["images_per_s"], r["seconds"], r["non_identity"]) > 0
    validations = [r for r in records if r["kind"] == "validation"]
    assert [r["step"] for r in validations] == [6, 12, 18, 24]
    for r in validations:
        assert r["score"] == pytest.approx((r["fixed_point"] + r["imle"] + r["projection"]) / r["coverage"])
    best = min(validations, key=lambda r: r["score"])
    assert load_checkpoint(whole.run).step == best["step"]


def test_training_lowers_the_loss(tmp_path):
    result = train(configuration("steps=300", "log.every=10", "log.checkpoint_every=0"), tmp_path / "run")
    losses = [r["loss"] for r in read_metrics(result.run) if r["kind"] == "train"]
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])


def test_equal_configurations_give_equal_weights_and_seeds_matter(whole, tmp_path):
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again = train(configuration(), tmp_path / "again")
    assert torch.equal(torch.get_rng_state(), before)
    other = train(configuration("seed=1"), tmp_path / "other")
    first = load_checkpoint(whole.run, "last")
    assert same_weights(first, load_checkpoint(again.run, "last"))
    assert not same_weights(first, load_checkpoint(other.run, "last"))


def test_logging_and_pool_chunks_do_not_change_the_weights(whole, tmp_path):
    settings = ("log.every=7", "log.samples_every=0", "log.checkpoint_every=0", "objective.pool_chunk=30")
    other = train(configuration(*settings), tmp_path / "run")
    assert same_weights(load_checkpoint(whole.run, "last"), load_checkpoint(other.run, "last"))
    assert [p.name for p in checkpoint_paths(other.run)] == [f"step_{STEPS:08d}"]


@pytest.mark.parametrize("crash_at", [4, 6, 13, 23])
def test_resuming_after_a_crash_continues_bit_for_bit(whole, tmp_path, crash_at):
    run = tmp_path / "run"
    with pytest.raises(RuntimeError, match="killed"):
        train(configuration(), run, progress=StopAt(crash_at))
    result = resume(run)
    assert result.status == "completed"
    assert same_weights(load_checkpoint(whole.run, "last"), load_checkpoint(run, "last"))
    assert untimed(run) == untimed(whole.run)


@pytest.mark.parametrize("crash_at", [8, 13])
def test_a_kept_match_and_running_statistics_are_resumed(whole_faces, tmp_path, crash_at):
    run = tmp_path / "run"
    with pytest.raises(RuntimeError, match="killed"):
        train(configuration(*FACES, dataset="lfw100"), run, progress=StopAt(crash_at))
    resume(run)
    assert same_weights(load_checkpoint(whole_faces.run, "last"), load_checkpoint(run, "last"))
    assert untimed(run) == untimed(whole_faces.run)


def test_weights_that_are_channels_last_are_resumed(tmp_path):
    """Fused updates want a weight and its moments in one layout."""
    layout = ("memory_format=channels_last", "steps=8", "log.checkpoint_every=4")
    network = ("model.architecture=conv", "model.base_channels=4", "model.latent_dim=8")
    config = configuration(*FACES, *layout, *network, dataset="lfw100")
    whole = train(config, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="killed"):
        train(config, tmp_path / "run", progress=StopAt(6))
    resumed = resume(tmp_path / "run")
    assert same_weights(load_checkpoint(whole.run, "last"), load_checkpoint(resumed.run, "last"))


def untimed(run):
    records = read_metrics(run)
    timings = ("seconds", "images_per_s", "cost")
    return [{k: v for k, v in r.items() if k not in timings} for r in records]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_save_and_return(whole, tmp_path, number):
    run = tmp_path / "run"
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    result = train(configuration(), run, progress=StopAt(10, number))
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert (result.status, result.step, result.signal) == ("interrupted", 10, signal.Signals(number).name)
    assert load_checkpoint(run, "last").step == 10
    assert load_checkpoint(run, "last").info["score"] is None
    assert load_checkpoint(run, "best").step == 6
    assert resume(run).status == "completed"
    assert same_weights(load_checkpoint(whole.run, "last"), load_checkpoint(run, "last"))
    assert untimed(run) == untimed(whole.run)


CHILD = """
import sys, time
from naign_ext.config import resolve_config
from naign_ext.training.progress import Progress
from naign_ext.training.trainer import train
class Tell(Progress):
    def stepped(self, step):
        print(step.step, flush=True)
        time.sleep(0.02)
result = train(resolve_config(sys.argv[1], settings=sys.argv[3:]), sys.argv[2], progress=Tell())
print(result.status, result.signal, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_resumes_bit_for_bit(whole_faces, tmp_path, number):
    run = tmp_path / "run"
    moment = random.Random(int(number)).randrange(7, STEPS - 2)
    config = [*SMALL, *FACES]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, "lfw100", str(run), *config],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    for line in child.stdout:
        if line.strip() == str(moment):
            child.send_signal(number)
            break
    rest = child.stdout.read().split()
    child.stdout.close()
    code = child.wait(timeout=60)
    if number == signal.SIGKILL:
        assert code == -signal.SIGKILL
    else:
        assert code == 0 and rest[-2:] == ["interrupted", "SIGTERM"]
        assert moment <= load_checkpoint(run, "last").step < STEPS
    assert resume(run).status == "completed"
    assert same_weights(load_checkpoint(whole_faces.run, "last"), load_checkpoint(run, "last"))
    assert untimed(run) == untimed(whole_faces.run)


def test_resuming_from_an_earlier_checkpoint_gives_up_what_came_after(whole, tmp_path):
    run = tmp_path / "run"
    train(configuration(), run)
    early = checkpoint_paths(run)[0]
    step = load_checkpoint(early).step
    assert step < STEPS
    seen = []

    class Watch(Progress):
        def started(self, started):
            seen.append((started.step, [r["step"] for r in read_metrics(run)][-1]))
            seen.append([p.name for p in checkpoint_paths(run)])

    resume(early, progress=Watch())
    assert seen == [(step, step), [early.name]]
    assert same_weights(load_checkpoint(whole.run, "last"), load_checkpoint(run, "last"))
    assert untimed(run) == untimed(whole.run)


def test_a_damaged_checkpoint_is_not_resumed_and_the_previous_one_is_named(whole, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(RuntimeError, match="killed"):
        train(configuration(), run, progress=StopAt(13))
    good, bad = checkpoint_paths(run)[-2:]
    (bad / "model.safetensors").write_bytes(b"")
    metrics = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match="damaged") as caught:
        resume(run)
    assert caught.value.previous == good
    assert (run / "metrics.jsonl").read_bytes() == metrics
    resume(good)
    assert same_weights(load_checkpoint(whole.run, "last"), load_checkpoint(run, "last"))


def test_a_run_begun_with_other_latents_is_not_continued_but_its_weights_serve(tmp_path):
    run = tmp_path / "run"
    train(configuration("steps=3"), run)
    (path,) = checkpoint_paths(run)
    state = json.loads((path / "state.json").read_text())
    del state["sha256"]
    (path / "state.json").write_text(json.dumps(state | {"version": 1}))
    metrics = (run / "metrics.jsonl").read_bytes()
    expected = r"version 1 cannot be resumed, expected one of \(2, 3\): .* other latents"
    with pytest.raises(CheckpointError, match=expected):
        resume(run, changes={"steps": 4})
    assert (run / "metrics.jsonl").read_bytes() == metrics
    assert load_checkpoint(run).build()(torch.zeros(1, *load_checkpoint(run).sample_shape)).isfinite().all()


def test_a_finished_run_has_nothing_to_resume(whole):
    before = read_metrics(whole.run)
    result = resume(whole.run)
    assert (result.status, result.step) == ("completed", STEPS)
    assert read_metrics(whole.run) == before


def test_a_finished_run_can_be_lengthened(tmp_path):
    run = tmp_path / "run"
    train(configuration("steps=6"), run)
    result = resume(run, changes={"steps": 9, "log": {"every": 1}})
    assert (result.step, load_config(run / "config.yaml").steps) == (9, 9)
    assert [r["step"] for r in read_metrics(run) if r["kind"] == "train"] == [3, 6, 7, 8, 9]


def test_what_may_not_change_is_named(whole, tmp_path):
    with pytest.raises(ConfigError, match=r"^seed: cannot change"):
        resume(whole.run, changes={"seed": 3})
    with pytest.raises(ConfigError, match="already holds a run"):
        train(configuration(), whole.run)
    with pytest.raises(ConfigError, match="expected a run folder"):
        resume(tmp_path)
    with pytest.raises(ConfigError, match=r"^steps: "):
        resume(whole.run, changes={"steps": 0})


def test_a_configuration_edited_by_hand_is_refused(tmp_path):
    run = tmp_path / "run"
    train(configuration("steps=3"), run)
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("lr: 0.003", "lr: 0.001"))
    with pytest.raises(ConfigError, match=r"^optimiser\.lr: config\.yaml is not what"):
        resume(run, changes={"steps": 4})


def test_a_run_may_lie_in_a_folder_called_checkpoints(tmp_path):
    run = tmp_path / "checkpoints" / "run"
    train(configuration("steps=3"), run)
    assert load_checkpoint(run).step == 3
    assert resume(run, changes={"steps": 4}).step == 4


def test_other_data_than_the_runs_are_refused(tmp_path):
    run = tmp_path / "run"
    train(configuration("steps=2"), run)
    config = load_config(run / "config.yaml")
    save_config(config.model_copy(update={"data_parameters": {"other": 1}}), run / "config.yaml")
    with pytest.raises(ConfigError, match="is not what"):
        resume(run)


class Explodes(nn.Module):
    """The identity, until ``after`` applications in training mode; then one of its outputs is NaN."""

    def __init__(self, after):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.after = after

    def forward(self, x):
        self.after -= self.training
        return x * self.weight * (float("nan") if self.after < 0 else 1.0)


def test_a_non_finite_loss_stops_with_step_and_term(tmp_path, monkeypatch):
    run = tmp_path / "run"
    monkeypatch.setattr(training_state, "build_model", lambda *_, **__: Explodes(8))
    with pytest.raises(NonFiniteLossError, match="reconstruction is nan at step 9") as caught:
        train(configuration(), run)
    assert (caught.value.step, caught.value.term) == (9, "reconstruction")
    assert caught.value.checkpoint == checkpoint_paths(run)[-1]
    checkpoint = load_checkpoint(run, "last")
    assert checkpoint.step == 6 and checkpoint.model["weight"].isfinite()
    assert all("null" not in line for line in (run / "metrics.jsonl").read_text().splitlines())


def test_a_non_finite_gradient_stops_too(tmp_path, monkeypatch):
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, x):
            return x + self.weight.sqrt()

    monkeypatch.setattr(training_state, "build_model", lambda *_, **__: Root())
    with pytest.raises(NonFiniteLossError, match="gradient is") as caught:
        train(configuration(), tmp_path / "run")
    assert caught.value.term == "gradient" and caught.value.checkpoint is None


@pytest.mark.parametrize("call", [2, 5, 6, 7])
def test_a_full_disk_names_the_file_and_what_is_kept(whole, tmp_path, monkeypatch, call):
    run = tmp_path / "run"
    flush, calls = os.fsync, []

    def full(descriptor):
        calls.append(len(checkpoint_paths(run)))
        if calls.count(2) == call:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunNotWrittenError, match="No space left on device; the run stops after 18") as caught:
        train(configuration(), run)
    assert str(run / "checkpoints") in str(caught.value)
    assert f"the last checkpoint is {run}/checkpoints/step_00000012, from which --resume" in str(caught.value)
    assert [path.name for path in (run / "checkpoints").iterdir() if path.name[0] == "."] == []
    monkeypatch.undo()
    resume(run)
    assert same_weights(load_checkpoint(whole.run, "last"), load_checkpoint(run, "last"))


def test_records_that_cannot_be_written_name_their_file(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    class Fill(Progress):
        def stepped(self, step):
            if step.step == 4:
                monkeypatch.setattr(metrics_log.json, "dumps", full)

    with pytest.raises(
        RunNotWrittenError, match=r"^.*/run/metrics\.jsonl: No space .* after 6 updates, there"
    ):
        train(configuration(), tmp_path / "run", progress=Fill())


def test_a_run_folder_that_is_removed_ends_the_run_and_stays_away(tmp_path):
    class Remove(Progress):
        def stepped(self, step):
            if step.step == 8:
                shutil.rmtree(tmp_path / "run")

    with pytest.raises(
        RunNotWrittenError, match=r"config\.yaml: was removed while the run was trained"
    ) as caught:
        train(configuration(), tmp_path / "run", progress=Remove())
    assert "the run stops after 10 updates, there is no checkpoint" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_progress_hears_of_everything(tmp_path):
    heard = []

    class Watch(Progress):
        def started(self, started):
            heard.append(("started", started.steps, started.rows, started.sample_shape, started.device))

        def stepped(self, step):
            heard.append(("stepped", step.step, sorted(step.terms)))
            assert step.seconds_left >= 0 and step.images_per_s > 0

        def validated(self, step, metrics):
            heard.append(("validated", step, sorted(metrics)))

        def wrote(self, kind, path):
            assert path.exists()
            heard.append((kind, path.name))

        def finished(self, result):
            heard.append(("finished", result.status))

    train(configuration("steps=2", "device=cpu"), tmp_path / "run", progress=Watch())
    terms = ["denoise", "imle", "projection", "reconstruction"]
    metrics = ["coverage", "fixed_point", "imle", "projection", "score"]
    assert [h for h in heard if h[0] not in ("started", "samples")] == [
        ("stepped", 1, terms),
        ("stepped", 2, terms),
        ("validated", 2, metrics),
        ("checkpoint", "step_00000002"),
        ("finished", "completed"),
    ]
    assert heard[0][:2] == ("started", 2) and heard[0][3:] == ((2,), "cpu")
    assert ("samples", "step_00000000.png") in heard and ("samples", "step_00000002.png") in heard


def test_tensorboard_events_hold_the_terms(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = train(configuration("steps=6", "log.tensorboard=true"), tmp_path / "run")
    events = EventAccumulator(str(result.run)).Reload()
    values = {s.step: s.value for s in events.Scalars("train/terms/imle")}
    expected = {r["step"]: r["terms"]["imle"] for r in read_metrics(result.run) if r["kind"] == "train"}
    assert values == pytest.approx(expected)
    assert events.Scalars("validation/score")


def test_augmentation_multiplies_the_rows(whole_faces, tmp_path):
    rows = []

    class Watch(Progress):
        def started(self, started):
            rows.append((started.rows, started.heldout_rows))

    for name, shift, factor in (("shifted", 1, 2 * 9), ("flipped", 0, 2)):
        settings = (*FACES, f"augment.shift={shift}", "augment.flip=true", "steps=1")
        train(configuration(*settings, dataset="lfw100"), tmp_path / name, progress=Watch())
        assert rows.pop() == (80 * factor, 20)
    with pytest.raises(ConfigError, match=r"^augment: 8gaussians has vectors"):
        train(configuration("augment.flip=true"), tmp_path / "other")


class Heard(Callback):
    """What a callback is called for, with the updates done by then."""

    def __init__(self, interrupt_at=0):
        self.calls = []
        self.interrupt_at = interrupt_at

    def on_start(self, trainer):
        self.calls.append(("start", trainer.state.step))

    def on_update(self, trainer, step):
        assert trainer.state.step == step.step and (step.metrics is None) == (step.step % 3 != 0)
        self.calls.append(("update", step.step))
        if step.step == self.interrupt_at:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_interrupt(self, trainer):
        self.calls.append(("interrupt", trainer.state.step))

    def on_end(self, trainer, result):
        assert trainer.run.checkpoint_path("last") == result.checkpoint
        self.calls.append(("end", result.step))

    def on_validated(self, trainer, metrics):
        assert trainer.state.score == metrics["score"]
        self.calls.append(("validated", trainer.state.step))

    def on_written(self, trainer, kind, path):
        assert path.is_relative_to(trainer.run.path)
        self.calls.append((kind, trainer.state.step))


def test_a_callback_hears_of_everything_in_order(whole, tmp_path):
    heard = Heard(interrupt_at=8)
    run = Run.create(configuration(), tmp_path / "run")
    result = Trainer(run, [*default_callbacks(), heard]).fit()
    assert (result.status, result.step) == ("interrupted", 8)
    updates = [("update", step) for step in range(1, 9)]
    saved = [("validated", 6), ("checkpoint", 6)]
    begun, ended = [("samples", 0), ("start", 0)], [("checkpoint", 8), ("interrupt", 8), ("end", 8)]
    assert heard.calls == [*begun, *updates[:5], *saved, *updates[5:], *ended]
    rest = Heard()
    assert Trainer(Run.open(run.path), [*default_callbacks(), rest]).fit().status == "completed"
    assert rest.calls[:2] == [("start", 8), ("update", 9)] and ("interrupt", 24) not in rest.calls
    assert same_weights(load_checkpoint(whole.run, "last"), load_checkpoint(run.path, "last"))


def test_an_interrupt_right_after_a_checkpoint_saves_no_other(tmp_path):
    heard = Heard(interrupt_at=6)
    run = Run.create(configuration(), tmp_path / "run")
    Trainer(run, [*default_callbacks(), heard]).fit()
    assert heard.calls.count(("checkpoint", 6)) == 1 and heard.calls[-1] == ("end", 6)
    assert load_checkpoint(run.path, 6).info["score"] is not None


def test_training_reads_data_and_configuration_once(tmp_path, monkeypatch):
    loads = []
    for name in ("load_configured", "load_config"):
        read = getattr(runs, name)
        monkeypatch.setattr(runs, name, lambda x, name=name, read=read: loads.append(name) or read(x))
    run = Run.create(configuration("steps=6"), tmp_path / "run")
    Trainer(run).fit()
    assert run.projector("cpu").about["step"] == 6 and run.dataset.for_test().sample_shape == (2,)
    assert loads == ["load_configured"]
    del loads[:]
    Trainer(Run.open(run.path, {"steps": 9})).fit()
    assert sorted(loads) == ["load_config", "load_configured"]


def test_plain_imle_trains(tmp_path):
    result = train(configuration("objective=imle", "steps=6"), tmp_path / "run")
    assert all(set(r["terms"]) == {"imle"} for r in read_metrics(result.run) if r["kind"] == "train")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_autocast_trains_and_resumes(tmp_path, precision):
    settings = (f"precision={precision}", "steps=12")
    first = train(configuration(*settings), tmp_path / "first")
    with pytest.raises(RuntimeError, match="killed"):
        train(configuration(*settings), tmp_path / "second", progress=StopAt(8))
    resume(tmp_path / "second")
    a, b = (load_checkpoint(tmp_path / name, "last") for name in ("first", "second"))
    assert first.status == "completed" and same_weights(a, b)
    assert a.info["scaler"] == b.info["scaler"]
    assert all(value.dtype == torch.float32 for value in a.model.values())


@pytest.mark.slow
def test_compiled_network_trains_to_nearly_the_same(whole, tmp_path):
    result = train(configuration("compile=true"), tmp_path / "run")
    a, b = load_checkpoint(whole.run, "last"), load_checkpoint(result.run, "last")
    assert a.model.keys() == b.model.keys()
    for name, value in a.model.items():
        torch.testing.assert_close(b.model[name], value, rtol=1e-3, atol=1e-4)


def test_metrics_cut_off_by_a_crash_are_mended(tmp_path):
    run = tmp_path / "run"
    with pytest.raises(RuntimeError, match="killed"):
        train(configuration(), run, progress=StopAt(13))
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "evaluation", "step": 6}) + '\n{"kind": "train", "st')
    resume(run)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines if '"train"' in line] == list(range(3, STEPS + 1, 3))
    assert not any("evaluation" in line for line in lines)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("ema", lambda t: t["body.0.weight"].fill_(math.nan), "ema.safetensors: body.0.weight has values"),
        ("model", lambda t: t["body.0.weight"].fill_(math.inf), "model.safetensors: body.0.weight has val"),
        (
            "optimizer",
            lambda t: t["body.0.weight/exp_avg"].fill_(math.nan),
            "exp_avg has values that are not",
        ),
        ("optimizer", lambda t: t.pop("body.0.weight/exp_avg"), "lacks moments of some weights"),
        ("optimizer", lambda t: t.update({"body.0.weight/exp_avg": torch.zeros(3)}), "exp_avg fits none of"),
        (
            "optimizer",
            lambda t: t.update({"a/exp_avg": torch.zeros(3)}),
            "a/exp_avg fits none of the weights",
        ),
    ],
)
def test_a_forged_state_is_named_before_anything_changes(whole, tmp_path, file, change, message, monkeypatch):
    shutil.copytree(whole.run, tmp_path / "run")
    found = load_checkpoint(tmp_path / "run", "last")
    name = next(iter(found.model))
    tensors = {key.replace(name, "body.0.weight"): value for key, value in found.tensors[file].items()}
    change(tensors)
    found.tensors[file].clear()
    found.tensors[file].update({key.replace("body.0.weight", name): value for key, value in tensors.items()})
    monkeypatch.setattr(runs, "load_checkpoint", lambda *_: found)
    metrics = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match=message.replace("body.0.weight", name)):
        resume(tmp_path / "run", changes={"steps": STEPS + 1})
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == metrics


def test_damaged_metrics_are_named_before_anything_changes(whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole.run, run)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": "x"}\n')
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(DamagedFileError, match=r"metrics\.jsonl: line \d+ .*step: expected a valid integer"):
        resume(run, changes={"steps": STEPS + 1})
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
