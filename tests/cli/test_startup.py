"""Ends before a command runs, or outside it: Ctrl-C, packages that are missing, readers that are gone."""

import os
import subprocess
import sys

import pytest

from naign_ext.checkpoint import load_checkpoint
from naign_ext.metrics_log import read_metrics

TRAIN = ("train", "--dataset", "trimodal1d", "--preset", "quick", "--no-report")
TINY = ("--set", "objective.pool_size=32", "--set", "log.tensorboard=false", "--set", "batch_size=16")

AT_IMPORT = """
import os, signal, sys
# A job in the background is begun with interrupts ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            {act}
sys.meta_path.insert(0, Finder())
from naign_cli.main import run
run()
"""
BLOCK = "raise ModuleNotFoundError(f'No module named {name!r}', name=name)"
INTERRUPT = "os.kill(os.getpid(), signal.SIGINT)"


def run_with(module, act, folder, *arguments, debug="0"):
    code = AT_IMPORT.format(module=module, act=act)
    return subprocess.run(
        [sys.executable, "-c", code, *arguments, "--out", str(folder / "run")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NAIGN_DEBUG": debug, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize(
    "module", ["typer", "rich.console", "torch", "pydantic", "naign_ext.training.trainer"]
)
def test_ctrl_c_during_imports_is_a_word(module, tmp_path):
    done = run_with(module, INTERRUPT, tmp_path, *TRAIN)
    assert (done.returncode, done.stderr) == (1, "error: interrupted\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("module", ["typer", "rich", "pydantic", "yaml", "safetensors"])
def test_an_installation_without_a_package_says_what_to_install(module, tmp_path):
    done = run_with(module, BLOCK, tmp_path, *TRAIN)
    expected = f"error: No module named '{module}'; install it with: pip install 'naign[train]'\n"
    assert (done.returncode, done.stderr) == (1, expected)
    assert not (tmp_path / "run").exists()
    assert "Traceback" in run_with(module, BLOCK, tmp_path, *TRAIN, debug="1").stderr


def test_a_module_of_ours_that_is_missing_is_a_bug(tmp_path):
    assert "Traceback" in run_with("naign_cli.train", BLOCK, tmp_path, *TRAIN).stderr


def piped(folder, *arguments):
    """What the command's exit status is where head reads its first line alone."""
    words = " ".join([sys.executable, "-m", "naign_cli", *arguments])
    shown = subprocess.run(
        ["bash", "-c", f"({words} 2>&1; echo $? > {folder}/status) | head -n 1"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return shown.stdout, int((folder / "status").read_text())


def test_a_run_whose_reader_is_gone_saves_and_ends(tmp_path):
    run = tmp_path / "run"
    shown, status = piped(tmp_path, *TRAIN, *TINY, "--steps", "100000", "--out", str(run))
    assert status == 1 and shown.startswith("trimodal1d: ")
    assert 0 < load_checkpoint(run, "last").step < 100000
    assert all(record["step"] <= load_checkpoint(run, "last").step for record in read_metrics(run))


@pytest.mark.parametrize("arguments", [["doctor"], ["train", "--help"]], ids=" ".join)
def test_answers_whose_reader_is_gone_end_without_a_traceback(tmp_path, arguments):
    shown, status = piped(tmp_path, *arguments)
    assert "Traceback" not in shown and status in (0, 1)
