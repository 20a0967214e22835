"""naign train: runs, resumes, stops, fails, and says so."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from naign_cli.main import app
from naign_cli.progress import clock
from typer.testing import CliRunner

from naign_ext.checkpoint import load_checkpoint
from naign_ext.data import save_images
from naign_ext.evaluation import Results
from naign_ext.metrics_log import read_metrics

runner = CliRunner()
TINY = ["--set", "objective.pool_size=32", "--set", "log.tensorboard=false", "--set", "log.every=5"]


def naign(*arguments):
    return runner.invoke(app, [str(a) for a in arguments], env={"COLUMNS": "160", "TERM": "dumb"})


def test_train_measures_draws_and_names_the_files(tmp_path):
    run = tmp_path / "run"
    flags = ["--dataset", "trimodal1d", "--preset", "quick", "--steps", "20", "--seed", "3", "--out", run]
    result = naign("train", *flags, *TINY)
    assert result.exit_code == 0, result.output
    for name in ("report.html", "samples.png", "landscape.png", "training.png"):
        assert f"{run}/report/{name}" in result.stdout
        assert (run / "report" / name).is_file()
    assert "modes covered" in result.stdout
    assert "step 20/20: loss" in result.stderr
    assert "images/s" in result.stderr
    assert "reconstruction" in result.stderr
    record = read_metrics(run)[-1]
    assert record["kind"] == "evaluation"
    energy = Results.from_json(record["metrics"]).value("energy_distance")
    assert f"{energy:.3g}" in result.stdout
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["steps"], config["seed"], config["preset"]) == (20, 3, "quick")


def test_train_as_json(tmp_path):
    run = tmp_path / "run"
    result = naign("train", "--dataset", "trimodal1d", "--steps", "10", "--out", run, "--json", *TINY)
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert answer["status"] == "completed"
    assert (answer["step"], answer["steps"]) == (10, 10)
    assert answer["run"] == str(run)
    assert answer["metrics"] == read_metrics(run)[-1]["metrics"]
    assert all(os.path.exists(path) for path in [*answer["files"], answer["checkpoint"]])  # noqa: PTH110


def test_flags_win_over_file_and_set_over_flags(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("dataset: moons\nsteps: 3\nseed: 5\nobjective: {name: imle, pool_size: 16}\n")
    run = tmp_path / "run"
    flags = ["--config", file, "--steps", "4", "--set", "seed=6", "--set", "objective.pool_size=24"]
    result = naign("train", *flags, "--out", run, "--no-report", "--set", "log.tensorboard=false")
    assert result.exit_code == 0, result.output
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["dataset"], config["steps"], config["seed"]) == ("moons", 4, 6)
    assert (config["objective"]["name"], config["objective"]["pool_size"]) == ("imle", 24)
    assert not (run / "report").exists()


def test_default_folders_do_not_collide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        flags = ["--dataset", "trimodal1d", "--preset", "quick", "--steps", "2", "--no-report"]
        assert naign("train", *flags, *TINY).exit_code == 0
    assert {p.name for p in (tmp_path / "runs").iterdir()} == {"trimodal1d-quick", "trimodal1d-quick-2"}


def test_resume_continues_to_new_steps(tmp_path):
    run, whole = tmp_path / "run", tmp_path / "whole"
    constant = ["--set", "optimiser.schedule=constant", "--set", "optimiser.warmup=0"]
    base = ["--dataset", "trimodal1d", "--no-report", *TINY, *constant]
    assert naign("train", *base, "--steps", "10", "--out", run).exit_code == 0
    assert naign("train", *base, "--steps", "20", "--out", whole).exit_code == 0
    result = naign("train", "--resume", run, "--steps", "20", "--set", "log.every=10", "--no-report")
    assert result.exit_code == 0, result.output
    assert "from update 10" in result.stderr
    resumed, uninterrupted = (load_checkpoint(r, "last") for r in (run, whole))
    assert resumed.step == 20
    for name, value in uninterrupted.model.items():
        assert torch.equal(resumed.model[name], value)


def test_resume_refuses_what_would_change_the_run(tmp_path):
    run = tmp_path / "run"
    assert (
        naign("train", "--dataset", "trimodal1d", "--steps", "2", "--out", run, "--no-report").exit_code == 0
    )
    result = naign("train", "--resume", run, "--set", "batch_size=3")
    assert result.exit_code == 2
    assert "batch_size: cannot change when a run is resumed" in result.stderr
    result = naign("train", "--resume", run, "--out", tmp_path / "other")
    assert result.exit_code == 2


@pytest.fixture(scope="module")
def short_run(tmp_path_factory):
    run = tmp_path_factory.mktemp("short") / "run"
    flags = ["--dataset", "trimodal1d", "--steps", "2", "--no-report", "--out", run]
    assert naign("train", *flags, *TINY).exit_code == 0
    return run


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--set", "log.every=[1"], "--set log.every: not YAML"),
        (["--set", "steps.x=3"], "steps: expected a valid integer, got {'x': 3}"),
        (["--set", "steps=two"], "steps: expected a valid integer"),
        (["--set", "log=3"], "log: expected a section of fields, got 3"),
        (["--set", "log.evry=3"], "log.evry: no such field; did you mean log.every?"),
        (
            ["--set", "log.every=1", "--set", "log.every.x=3"],
            "--set log.every.x: log.every was set to 1 before",
        ),
        (["--set", "a..b=3"], "--set a..b: expected names joined by single dots"),
        (["--set", "steps"], "--set: expected key=value, got 'steps'"),
        (["--set", "model.widths=[3]"], "model: cannot change when a run is resumed"),
        (["--set", "objective=ign"], "objective: cannot change when a run is resumed"),
        (["--objective", "ign"], "--objective: cannot be given with --resume"),
        (["--dataset", "moons"], "--dataset: cannot be given with --resume"),
        (["--config", "a.yaml"], "--config: cannot be given with --resume"),
        (["--set", "dataset=folder:."], "dataset: cannot change when a run is resumed"),
        (["--steps", "0"], "steps: expected greater than or equal to 1, got 0"),
        (["--steps", "1"], "steps: expected at least the 2 that "),
        (["--device", "cuda:99"], "device: expected one that torch sees, got 'cuda:99'"),
        (["--device", "tpu"], "device: expected auto, cpu, cuda or cuda:N, got 'tpu'"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_mistakes_in_a_resume_exit_2_in_one_line_and_leave_the_run_alone(short_run, arguments, text):
    before = {path: path.read_bytes() for path in short_run.rglob("*") if path.is_file()}
    result = naign("train", "--resume", short_run, *arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith(f"error: {text}")
    assert len(result.stderr.splitlines()) == 1
    assert before == {path: path.read_bytes() for path in short_run.rglob("*") if path.is_file()}


def test_an_option_that_is_not_there_leaves_the_run_alone(short_run):
    before = {path: path.read_bytes() for path in short_run.rglob("*") if path.is_file()}
    assert naign("train", "--resume", short_run, "--steps", "9", "--nope").exit_code == 2
    assert before == {path: path.read_bytes() for path in short_run.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def photo_run(tmp_path_factory):
    """A run whose data were moved from photos to pictures beside it."""
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder / "photos")
    flags = ["--dataset", f"folder:{folder / 'photos'}", "--set", "image_size=8", "--set", "model.widths=[8]"]
    flags += ["--set", "model.architecture=mlp"]
    assert (
        naign("train", *flags, "--steps", "2", "--no-report", "--out", folder / "run", *TINY).exit_code == 0
    )
    (folder / "photos").rename(folder / "pictures")
    write_photos(folder / "others", seed=9)
    return folder / "run"


def write_photos(folder, seed=0):
    folder.mkdir()
    for index in range(10):
        values = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(100 * seed + index))
        save_images(values[None] * 2 - 1, folder, stems=[str(index)])


USES = [
    ["score"],
    ["restore", "--corrupt", "noise"],
    ["evaluate", "--metrics", "projection", "--no-report"],
    ["train", "--no-report", "--steps", "2", "--resume"],
]


@pytest.mark.parametrize("use", USES, ids=lambda use: use[0])
def test_every_command_takes_the_place_of_data_that_were_moved(photo_run, use):
    command, *options = use
    where = photo_run.parent
    before = {path: path.read_bytes() for path in photo_run.rglob("*") if path.is_file()}
    for more, text in (
        ([], "give their new place by --data-root"),
        (["--data-root", where / "others"], f"data: folder:{where / 'others'} is not what"),
    ):
        result = naign(command, *options, photo_run, *more)
        assert result.exit_code == 2 and text in result.stderr, result.output
        assert len(result.stderr.splitlines()) == 1
    assert before == {path: path.read_bytes() for path in photo_run.rglob("*") if path.is_file()}
    result = naign(command, *options, photo_run, "--data-root", where / "pictures")
    assert result.exit_code == 0, result.output


def test_a_data_set_without_a_preset_says_whose_it_takes(tmp_path, monkeypatch):
    from naign_ext.data import DATASETS, Dataset, dataset

    def load(*, seed=0):
        rows = torch.randn(60, 5, generator=torch.Generator().manual_seed(seed))
        return Dataset(name="own", kind="vector", train=rows[:40], heldout=rows[40:])

    monkeypatch.setattr(DATASETS, "_entries", dict(DATASETS._entries))
    dataset("own", kind="vector", sample_shape=(5,), rows=(40, 20), source="a test")(load)
    flags = [
        "--dataset",
        "own",
        "--preset",
        "quick",
        "--steps",
        "3",
        "--no-report",
        "--out",
        tmp_path / "run",
    ]
    result = naign("train", *flags, *TINY)
    assert result.exit_code == 0, result.output
    assert "preset: own has none of its own; that for vectors stands in" in result.stderr
    assert "own: no preset of its own; that for vectors stands in" in naign("data", "list").stdout
    others = naign(
        "train", "--dataset", "trimodal1d", "--steps", "2", "--no-report", "--out", tmp_path / "b", *TINY
    )
    assert "stands in" not in others.output


def test_damaged_checkpoints_offer_the_previous_one(tmp_path):
    run = tmp_path / "run"
    flags = ["--dataset", "trimodal1d", "--steps", "20", "--set", "log.checkpoint_every=10", "--no-report"]
    assert naign("train", *flags, *TINY, "--out", run).exit_code == 0
    weights = run / "checkpoints" / "step_00000020" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    result = naign("train", "--resume", run)
    assert result.exit_code == 2
    assert "damaged" in result.stderr
    offered = f"--resume {run}/checkpoints/step_00000010"
    assert offered in result.stderr
    assert naign("train", *offered.split(), "--no-report").exit_code == 0
    assert naign("train", "--out", run, "--dataset", "trimodal1d").exit_code == 2


def test_a_loss_that_is_not_finite_exits_1(tmp_path):
    run = tmp_path / "run"
    flags = ["--set", "optimiser.lr=1e30", "--set", "optimiser.grad_clip=0", "--set", "optimiser.warmup=0"]
    result = naign("train", "--dataset", "trimodal1d", "--out", run, *flags, *TINY)
    assert result.exit_code == 1
    assert " at step " in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_save_and_say_how_to_continue(tmp_path, number):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "naign_cli", "train", "--dataset", "trimodal1d", "--steps", "1000000"]
    command += ["--out", str(run), *TINY]
    settings = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=settings
    )
    deadline = time.monotonic() + 120
    while not read_metrics(run) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"stopped by {number.name}" in errors
    assert f"continue with: naign train --resume {run}" in errors
    assert "Traceback" not in errors
    step = load_checkpoint(run, "last").step
    assert step > 0
    result = naign("train", "--resume", run, "--steps", step + 5, "--no-report")
    assert result.exit_code == 0, result.output


def test_the_bar_shows_terms_speed_and_time_left(tmp_path):
    from io import StringIO

    from naign_cli.progress import watch
    from rich.console import Console

    from naign_ext.config import resolve_config
    from naign_ext.training.trainer import train

    screen = StringIO()
    console = Console(file=screen, force_terminal=True, width=80)
    config = resolve_config("trimodal1d", "quick", settings=["steps=15", *(TINY[1::2])])
    with watch(console) as progress:
        train(config, tmp_path / "run", progress=progress)
    shown = screen.getvalue()
    for text in ("training", "15/15", "images/s", "left", "reconstruction", "imle", "completed 15 of 15"):
        assert text in shown


def test_clock():
    assert [clock(s) for s in (0.2, 59.6, 61, 3661)] == ["0:00", "1:00", "1:01", "1:01:01"]
