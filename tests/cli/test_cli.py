"""The command naign itself: help, version, doctor, data, and what a user's mistakes look like."""

import json
import os
import subprocess
import sys

import pytest
from naign_cli.main import app
from typer.testing import CliRunner

from naign_ext.config import describe_fields
from naign_ext.data import dataset_names, describe_datasets

runner = CliRunner()


def naign(*arguments):
    return runner.invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200", "TERM": "dumb"})


def naign_process(*arguments, **environment):
    command = [sys.executable, "-m", "naign_cli", *map(str, arguments)]
    settings = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, capture_output=True, text=True, env=settings, check=False)


def test_version():
    result = naign("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("naign ")


def test_help_lists_the_commands():
    result = naign("--help")
    assert result.exit_code == 0
    for command in ("train", "sample", "restore", "score", "evaluate", "bench", "data", "doctor"):
        assert command in result.stdout
    assert "--install-completion" in result.stdout


def test_no_command_shows_the_help():
    assert "Usage" in naign().output


@pytest.mark.parametrize(
    "command",
    ["sample", "restore", "score", "evaluate", "doctor", "data list", "data get", "bench knn", "bench loss"],
)
def test_every_command_has_help_and_json(command):
    result = naign(*command.split(), "--help")
    assert result.exit_code == 0
    assert "--json" in result.stdout


def test_train_help_names_every_field_with_its_description():
    result = naign("train", "--help")
    assert result.exit_code == 0
    text = " ".join(result.stdout.replace("\u2502", " ").split())
    fields = describe_fields()
    for field in fields:
        assert field.key in text
        assert " ".join(field.description.split()) in text
    for group in {field.group for field in fields}:
        assert group in text
    flags = "dataset preset objective seed out data-root resume device steps config set json"
    for flag in flags.split():
        assert f"--{flag}" in text
    described = {field.key: field for field in fields}
    options = text[: text.index("Fields for --set")]
    for key in ("dataset", "preset", "objective.name", "seed", "data_root", "device", "steps"):
        assert described[key].description.removesuffix(".") in options
        assert ", ".join(described[key].choices) in options


def test_help_is_quick_because_it_imports_no_torch():
    code = "import sys, naign_cli.app; print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["False", "False"]


def test_python_dash_m_is_the_command():
    shown = naign_process("--version")
    assert shown.returncode == 0
    assert shown.stdout.startswith("naign ")


def test_doctor_as_json_and_as_text():
    result = naign("doctor", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["packages"]["torch"]
    extension = found["extension"]
    assert set(extension) >= {
        "extension",
        "reason",
        "isa",
        "cpu_features",
        "cuda_built",
        "cuda_reason",
        "threads",
    }
    text = naign("doctor").stdout
    assert extension["isa"] in text
    assert "CUDA kernels" in text
    assert str(extension["threads"]) in text


def test_doctor_without_the_extension_says_why():
    shown = naign_process("doctor", NAIGN_DISABLE_EXTENSION="1", COLUMNS="200")
    assert shown.returncode == 0
    assert "missing: disabled by NAIGN_DISABLE_EXTENSION=1" in shown.stdout
    assert "works without the extension" in shown.stdout


def test_data_list():
    result = naign("data", "list")
    assert result.exit_code == 0
    for name in dataset_names():
        assert name in result.stdout
    assert "CC BY-NC-SA 4.0" in result.stdout
    listed = json.loads(naign("data", "list", "--json").stdout)
    assert listed == [info.as_dict() for info in describe_datasets()]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("naign train --dataset l", ["lfw100"]),
        ("naign train --dataset fol", ["folder:"]),
        ("naign train --preset q", ["quick"]),
        ("naign train --objective n", ["naign"]),
        ("naign train --data-r", ["--data-root"]),
    ],
)
def test_completion_offers_names_and_flags(words, offered):
    count = str(len(words.split()) - 1)
    environment = {"_NAIGN_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": count}
    code = "from naign_cli.main import run; run()"
    settings = {**os.environ, **environment}
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=settings, check=False
    )
    assert shown.stdout.split() == offered


MISTAKES = [
    (["train", "--dataset", "nope"], "dataset: expected one of"),
    (["train", "--preset", "slow"], "preset: expected one of"),
    (["train", "--objective", "gan"], "objective.name: expected one of"),
    (["train", "--set", "optimiser.lrr=1"], "did you mean optimiser.lr?"),
    (["train", "--set", "steps"], "--set: expected key=value"),
    (["train", "--steps", "0"], "steps: "),
    (["train", "--config", "no-such-file.yaml"], "no-such-file.yaml: cannot be read"),
    (["train", "--resume", "no-such-run"], "run: expected a run folder with config.yaml, or one of its"),
    (["train", "--resume", "no-such-run", "--seed", "3"], "--seed: cannot be given with --resume"),
    (["train", "--dataset", "ffhq100", "--data-root", "no-such-folder"], "--dataset lfw100"),
    (["sample", "no-such-run"], "no-such-run: no checkpoint there"),
    (["score", "no-such-run", "--checkpoint", "soon"], "--checkpoint: expected best, last or a step"),
    (["restore", "no-such-run"], "images: give image files or a folder, or --corrupt"),
    (["restore", "no-such-run", "--keep-known", "--corrupt", "noise"], "--keep-known: needs --corrupt mask"),
    (
        ["restore", "no-such-run", "--corrupted-by", "mask"],
        "--corrupted-by: expected noise, blur or downsample",
    ),
    (["evaluate", "no-such-run"], "or one of its checkpoints, got no-such-run"),
    (["data", "get", "digits"], "needs no download"),
    (["data", "get", "nope"], "name: expected ffhq100 or mnist"),
    (["bench", "knn", "nope"], "workloads: expected names among"),
    (["bench", "loss", "--peer", "nope"], "peers: expected names among"),
]


@pytest.mark.parametrize(
    ("arguments", "text"), MISTAKES, ids=lambda v: " ".join(v) if isinstance(v, list) else ""
)
def test_mistakes_exit_2_with_a_text_and_no_traceback(arguments, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NAIGN_DEBUG", raising=False)
    result = naign(*arguments)
    assert result.exit_code == 2
    assert text in result.stderr
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["--bogus"], ["bogus"], ["sample"], ["sample", "run", "-n", "0"]])
def test_wrong_usage_exits_2(arguments):
    assert naign(*arguments).exit_code == 2


def test_debug_shows_the_traceback(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAIGN_DEBUG", "1")
    result = naign("train", "--dataset", "ffhq100", "--data-root", "no-such-folder")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert "load_dataset" in result.stderr


def test_what_is_not_foreseen_keeps_its_traceback(monkeypatch):
    import naign_ext.data

    def broken():
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(naign_ext.data, "describe_datasets", broken)
    result = naign("data", "list")
    assert result.exit_code == 1
    assert isinstance(result.exception, ZeroDivisionError)


def test_a_failing_disk_is_no_mistake(monkeypatch):
    import naign_ext.data

    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(naign_ext.data, "describe_datasets", full)
    result = naign("data", "list")
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_closed_pipe_is_quiet():
    command = f"{sys.executable} -m naign_cli data list --json | head -c 1"
    shown = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize("option", ["--processes", "--updates", "--repeats", "--threads"])
def test_counts_of_benchmarks_have_a_bound(option):
    result = runner.invoke(app, ["bench", "train", "8gaussians", option, "9" * 40])
    assert result.exit_code == 2
    assert f"{option}': Input should be less than or equal to" in result.stderr
