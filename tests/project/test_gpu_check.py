"""The order, limits and verdict of `make gpu-check`, with other commands in place of its own."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cuda_small_cases
import naign_bench.fused_loss
import naign_bench.imle_knn
import naign_bench.pool
import naign_bench.train
import pytest

ROOT = Path(__file__).resolve().parents[2]


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
        check.Step("first", {"first": says("one")}, 5, 20),
        check.Step("second", {"good": says("two"), "bad": says("three", 3)}, 5, 20),
        check.Step("third", {"third": says("four")}, 5, 20, needs="first"),
        check.Step("fourth", {"fourth": says("five")}, 5, 20, needs="second"),
    ]
    outcomes = check.run_all(chosen, 60)
    assert [o.ok for o in outcomes] == [True, False, True, False]
    assert outcomes[1].reason == "bad: exit status 3"
    assert outcomes[3].reason == "not run: second failed"
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("one", "two", "three", "four")) and "five" not in printed


def test_a_step_that_found_no_time_has_failed(check: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    sleeps = [sys.executable, "-c", "import time; time.sleep(60)"]
    chosen = [check.Step("long", {"long": sleeps}, 0, 5.5), check.Step("late", {"late": says("x")}, 0, 9)]
    outcomes = check.run_all(chosen, 6.0)
    assert outcomes[0].reason == "long: stopped after 6 s" and outcomes[0].seconds < 30
    assert not outcomes[1].ok and outcomes[1].reason == "not run: no time left"
    monkeypatch.setattr(check, "steps", lambda: chosen)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--limit", "1"])
    assert check.main() == 1


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_every_step_gets_its_least_whatever_those_before_it_take(check: ModuleType, share: float) -> None:
    left, given = check.LIMIT, {}
    steps = check.steps()
    for number, step in enumerate(steps):
        given[step.name] = check.limit_of(step, steps[number + 1 :], left)
        assert step.least <= given[step.name] <= min(left, step.most)
        left -= share * given[step.name]
    if share == 0.3:
        assert given["bench-knn"] == {step.name: step.most for step in steps}["bench-knn"]
        assert given["sanitize"] == pytest.approx(left / 0.7)


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that $OUT names."""
    folder = tmp_path / "out"
    folder.mkdir()
    monkeypatch.setenv("OUT", str(folder))
    return folder


def test_results_and_logs_are_brought_back(check: ModuleType, out: Path) -> None:
    (check.RESULTS / "knn-cuda.json").write_text("{}")
    (check.RESULTS / "knn-cpu.json").write_text("{}")
    check.run_all([check.Step("only", {"only": says("hello")}, 5, 20)], 60)
    assert sorted(p.name for p in out.iterdir()) == ["gpu-check.log", "knn-cuda.json"]
    assert "hello" in (out / "gpu-check.log").read_text()


def test_results_are_brought_back_while_a_step_runs(
    check: ModuleType, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step succeeds only if it sees its own result in $OUT."""
    monkeypatch.setattr(check, "EVERY", 0.05)
    program = (
        "import pathlib, sys, time\n"
        "pathlib.Path(sys.argv[1]).write_text('{}')\n"
        "print('measured', flush=True)\n"
        "until = time.monotonic() + 30\n"
        "while time.monotonic() < until:\n"
        "    log = pathlib.Path(sys.argv[2], 'gpu-check.log')\n"
        "    found = pathlib.Path(sys.argv[2], 'loss-cuda.json').exists() and log.exists()\n"
        "    if found and 'measured' in log.read_text(): sys.exit(0)\n"
        "    time.sleep(0.05)\n"
        "sys.exit(1)\n"
    )
    command = [sys.executable, "-c", program, str(check.RESULTS / "loss-cuda.json"), str(out)]
    assert check.run_all([check.Step("only", {"only": command}, 5, 60)], 90)[0].ok


def sanitizer(path: Path, text: str) -> Path:
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


def test_a_sanitizer_that_knows_no_filter_runs_without(check: ModuleType, tmp_path: Path) -> None:
    program = sanitizer(
        tmp_path / "sanitizer",
        'case "$*" in *--kernel-name*|*--launch-timeout*) echo unknown option; exit 1;; esac\n'
        'test "$NAIGN_CASES_SECONDS" -ge 5 && echo "ERROR SUMMARY: 0 errors"\n',
    )
    options = ["--kernel-name", "kns=naign", "--launch-timeout", "120", "x"]
    step = check.Step("sanitize", {"racecheck": [str(program), *options]}, 5, 60)
    assert check.run_step(step, 60).ok
    assert "unknown option" in (check.LOGS / "racecheck.log").read_text()
    runs = tmp_path / "runs"
    for tool in ("ERROR", "RACECHECK"):
        sanitizer(program, f'echo x >> {runs}\necho "{tool} SUMMARY: 3 found"\nexit 9\n')
        assert check.run_step(step, 60).reason == "racecheck: exit status 9"
    assert len(runs.read_text().split()) == 2


def test_a_sanitizer_that_watched_nothing_has_failed(check: ModuleType, tmp_path: Path) -> None:
    program = sanitizer(tmp_path / "sanitizer", "echo No attachable process found\n")
    step = check.Step("sanitize", {"memcheck": [str(program)]}, 5, 60)
    assert check.run_step(step, 60).reason == "memcheck: no summary"


def test_the_program_that_sanitizers_watch_keeps_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    every = [case for cases in cuda_small_cases.CASES.values() for case in cases("cuda")]
    cases, kinds = cuda_small_cases.ordered(every)
    assert len({case.kind for case in cases[:kinds]}) == kinds == len({case.kind for case in cases})
    ran: list[str] = []
    small = [cuda_small_cases.Case(kind, lambda kind=kind: ran.append(kind)) for kind in "aabbb"]
    monkeypatch.setattr(cuda_small_cases, "CASES", {"small": lambda _: small})
    assert cuda_small_cases.main([]) == 0 and sorted(ran) == list("aabbb")
    monkeypatch.setenv("NAIGN_CASES_SECONDS", "-1")
    assert cuda_small_cases.main([]) == 3 and len(ran) == 5


def test_small_cases_hold_on_the_cpu() -> None:
    chosen = {"loss": slice(1), "search": slice(None, None, 9), "randn": slice(None)}
    for name, cases in cuda_small_cases.CASES.items():
        for case in cases("cpu")[chosen[name]]:
            case.run()


def test_every_step_is_there(check: ModuleType) -> None:
    steps = {step.name: step for step in check.steps()}
    assert list(steps) == [
        "build",
        "tests",
        "bench-loss",
        "bench-knn",
        "bench-train",
        "bench-pool",
        "sanitize",
    ]
    assert set(steps["sanitize"].commands) == {"memcheck", "racecheck", "initcheck", "synccheck"}
    assert "NAIGN_REQUIRE_GPU=1" in steps["tests"].commands["gpu-tests"]
    assert "NAIGN_REQUIRE_GPU=1" not in steps["tests"].commands["operator-tests"]
    assert steps["build"].environment["NAIGN_CUDA"] == "1"
    for step in steps.values():
        for command in step.commands.values():
            named = [part for part in command if part.endswith(".py") and "/" in part]
            assert all((ROOT / part).is_file() for part in named)
    files = " ".join(steps["tests"].commands["gpu-tests"])
    assert "test_fused_loss_cuda.py" in files and "test_gpu.py" in files
    assert "test_training_cuda.py" not in files
    assert "test_training_cuda.py" in " ".join(steps["tests"].commands["trainer-tests"])


def test_without_its_packages_the_trainer_is_left_out_with_a_word(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check.missing_packages() == []
    monkeypatch.setattr(check, "TRAINER_NEEDS", ("torch", "no_such_package"))
    steps = {step.name: step for step in check.steps()}
    assert "trainer-tests" not in steps["tests"].commands and "bench-pool" not in steps
    assert check.run_step(steps["bench-train"], 60).ok
    assert "the trainer is left out: no_such_package missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("gpu-tests", "test_imle_knn"),
        ("operator-tests", "test_imle_knn"),
        ("trainer-tests", "test_training_cuda"),
    ],
)
def test_the_commands_find_their_tests(check: ModuleType, kind: str, found: str) -> None:
    command = {step.name: step for step in check.steps()}["tests"].commands[kind]
    done = subprocess.run(
        [*command, "--collect-only", "-q", "-q"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert found in done.stdout


def test_the_benchmarks_run(check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, small: what the programs call is there and takes what they give."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "build" / "gpu-check").mkdir(parents=True)
    (tmp_path / "bench" / "results").mkdir(parents=True)
    run_knn, run_loss = naign_bench.imle_knn.run_knn, naign_bench.fused_loss.run_loss

    def on_the_cpu(run: Callable[..., object], workload: str) -> Callable[..., object]:
        def instead(workloads: list[str], **options: object) -> object:
            assert workloads == ["cuda"] and options["device"] == "cuda"
            given = {**options, "device": "cpu", "repeats": 1, "memory": False}
            return run([workload], peers=["naign"], **given)

        return instead

    monkeypatch.setattr(naign_bench.imle_knn, "run_knn", on_the_cpu(run_knn, "quick_robotics"))
    monkeypatch.setattr(naign_bench.fused_loss, "run_loss", on_the_cpu(run_loss, "loss_mnist"))
    monkeypatch.setattr(naign_bench.imle_knn, "measure_peaks", lambda device: {"fp32_gflops": 1.0})
    run_train, run_pool = naign_bench.train.run_train, naign_bench.pool.run_pool

    def train_on_the_cpu(datasets: list[str], **options: object) -> object:
        small = ["model.base_channels=2", "image_size=8"] if options["settings"] else []
        settings = [*options["settings"], *small, "objective.pool_size=32"]  # type: ignore[misc]
        given = {**options, "device": "cpu", "settings": settings, "updates": 1, "threads": 1}
        assert datasets[-1] in ("mnist5k", "lfw100") and options["device"] == "cuda"
        return run_train(datasets[:1], **given)

    def pool_on_the_cpu(which: str, **options: object) -> object:
        few = naign_bench.pool.Workload("pool_plane", 10, 2, (8,), (16, 32))
        return run_pool(which, workloads=[few], **{**options, "device": "cpu", "memory": False})

    monkeypatch.setattr(naign_bench.train, "run_train", train_on_the_cpu)
    monkeypatch.setattr(naign_bench.pool, "run_pool", pool_on_the_cpu)
    for program in (check.BENCH_LOSS, check.BENCH_KNN, check.BENCH_TRAIN, check.BENCH_POOL):
        exec(program, {})
    names = sorted(path.stem for path in (tmp_path / "bench" / "results").iterdir())
    training = ["train-cuda", "train-photos128-cuda", "train-photos64-cuda"]
    assert names == ["knn-cuda", "loss-cuda", "loss-cuda-bfloat16", "pool-cuda", *training]
    assert sorted(path.stem for path in (tmp_path / "build" / "gpu-check").glob("*.png")) == names
