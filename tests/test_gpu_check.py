"""The order, limits and verdict of `make gpu-check`, with other commands in place of its own."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", ROOT / ".ci" / "gpu_check.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    for name in ("LOGS", "RESULTS", "PACKAGES"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.setattr(module, name, folder)
    return module


def says(text: str, status: int = 0) -> list[str]:
    return [sys.executable, "-c", f"print({text!r}); raise SystemExit({status})"]


def test_a_failure_hides_nothing_after_it(check: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = [
        check.Step("first", {"first": says("one")}, 20),
        check.Step("second", {"good": says("two"), "bad": says("three", 3)}, 20),
        check.Step("third", {"third": says("four")}, 20, needs="first"),
        check.Step("fourth", {"fourth": says("five")}, 20, needs="second"),
    ]
    outcomes = check.run_all(chosen, 60)
    assert [o.ok for o in outcomes] == [True, False, True, False]
    assert outcomes[1].reason == "bad: exit status 3"
    assert outcomes[3].reason == "not run: second failed"
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("one", "two", "three", "four")) and "five" not in printed


def test_a_step_has_its_own_limit_and_all_have_one(check: ModuleType) -> None:
    sleeps = [sys.executable, "-c", "import time; time.sleep(60)"]
    chosen = [check.Step("long", {"long": sleeps}, 0.3), check.Step("late", {"late": says("x")}, 9)]
    outcomes = check.run_all(chosen, 6.0)
    assert outcomes[0].reason == "long: stopped after 0 s" and outcomes[0].seconds < 5
    assert check.run_all(chosen[1:], 1.0)[0].reason == "not run: no time left"


def test_results_and_logs_are_brought_back(
    check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setenv("OUT", str(out))
    (check.RESULTS / "knn-cuda.json").write_text("{}")
    (check.RESULTS / "knn-cpu.json").write_text("{}")
    check.run_all([check.Step("only", {"only": says("hello")}, 20)], 60)
    assert sorted(p.name for p in out.iterdir()) == ["gpu-check.log", "knn-cuda.json"]
    assert "hello" in (out / "gpu-check.log").read_text()


def test_a_sanitizer_that_knows_no_filter_runs_without(check: ModuleType, tmp_path: Path) -> None:
    program = tmp_path / "sanitizer"
    program.write_text(
        '#!/bin/sh\ncase "$*" in *--kernel-name*) echo unknown option; exit 1;; esac\n'
        'echo "ERROR SUMMARY: 0 errors"\n'
    )
    program.chmod(0o755)
    step = check.Step("sanitize", {"racecheck": [str(program), "--kernel-name", "kns=naign", "x"]}, 20)
    assert check.run_step(step, 20).ok
    runs = tmp_path / "runs"
    for tool in ("ERROR", "RACECHECK"):
        program.write_text(f'#!/bin/sh\necho x >> {runs}\necho "{tool} SUMMARY: 3 found"\nexit 9\n')
        assert check.run_step(step, 20).reason == "racecheck: exit status 9"
    assert len(runs.read_text().split()) == 2


def test_every_step_is_there(check: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = {step.name: step for step in check.steps()}
    assert list(steps)[:3] == ["build", "gpu-tests", "sanitize"]
    assert set(steps["sanitize"].commands) == {"memcheck", "racecheck", "initcheck", "synccheck"}
    assert steps["gpu-tests"].environment["NAIGN_REQUIRE_GPU"] == "1"
    assert steps["build"].environment["NAIGN_CUDA"] == "1"
    for step in steps.values():
        for command in step.commands.values():
            named = [part for part in command if part.endswith(".py") and "/" in part]
            assert all((ROOT / part).is_file() for part in named)
    files = " ".join(steps["gpu-tests"].commands["gpu-tests"])
    assert "test_fused_loss_cuda.py" in files and "test_gpu.py" in files


def test_the_benchmarks_are_python(check: ModuleType) -> None:
    for program in (check.BENCH_LOSS, check.BENCH_KNN):
        compile(program, "program", "exec")
