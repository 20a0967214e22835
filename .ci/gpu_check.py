"""Builds, tests, sanitizes and measures the CUDA kernels on a machine with a GPU: `make gpu-check`.

Works on a bare machine with python3, torch with CUDA and nvcc; installs nothing. Steps run in order, each with its
own time limit, within one limit for all; a step that fails does not stop those after it (except the build), and
fails the whole. Logs go to build/gpu-check, results to bench/results, both also to $OUT where that is set.

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
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / "build" / "gpu-check"
RESULTS = ROOT / "bench" / "results"
PACKAGES = ROOT / "build" / "packages"
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
OPERATOR_TESTS = (
    "test_imle_knn",
    "test_search",
    "test_fused_loss",
    "test_fused_loss_emulated",
    "test_bounds",
)

# The benchmarks themselves, without the command line, whose packages may be missing.
BENCH_LOSS = """
from naign_bench.fused_loss import run_loss
from naign_bench.plot import draw
from naign_bench.tables import show
for dtype, name in (("float32", "loss-cuda"), ("bfloat16", "loss-cuda-bfloat16")):
    found = run_loss(["cuda"], device="cuda", dtype=dtype, json_path=f"bench/results/{name}.json", progress=print)
    show(found)
    draw(found, f"build/gpu-check/{name}.png")
    limit = 1e-5 if dtype == "float32" else 1e-2
    for row in found.rows:
        if row["peer"] == "naign" and not (row["status"] == "ok" and row["gradient_error"] < limit):
            raise SystemExit(f"{row['workload']}: {row['status']}, {row['reason']}, {row['gradient_error']}")
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


@dataclass(frozen=True)
class Step:
    """Commands that run at the same time; `shown`: this many last lines of each log are printed."""

    name: str
    commands: dict[str, list[str]]
    seconds: float
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


def test_files(marker: str) -> list[str]:
    """Test files that contain the marker."""
    return sorted(str(p) for p in (ROOT / "tests").glob("test_*.py") if marker in p.read_text())


def sanitizer_command(tool: str) -> list[str]:
    """memcheck and initcheck watch all kernels, the slower others ours alone."""
    program = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    options = ["--tool", tool, "--error-exitcode", "9", "--print-limit", "20", "--require-cuda-init", "no"]
    chosen = ["--kernel-name", "kns=naign"] if tool in ("racecheck", "synccheck") else []
    return [program, *options, *chosen, *python(str(ROOT / "tests" / "cuda_small_cases.py"))]


def steps() -> list[Step]:
    pytest = [
        "-m",
        "pytest",
        "-q",
        "--maxfail=20",
        "--continue-on-collection-errors",
        "-p",
        "no:cacheprovider",
    ]
    spread = ["-n", "4", "--dist", "worksteal"] if importlib.util.find_spec("xdist") else []
    required = {"NAIGN_REQUIRE_GPU": "1"}
    return [
        Step(
            "build",
            {"build": python("setup.py", "build_ext", "--inplace")},
            240,
            {"NAIGN_CUDA": "1", "NAIGN_REQUIRE_EXTENSION": "1", "MAX_JOBS": str(os.cpu_count() or 4)},
            shown=5,
        ),
        Step(
            "gpu-tests",
            {"gpu-tests": python(*pytest, "-m", "gpu", *test_files("pytest.mark.gpu"))},
            150,
            required,
            "build",
            25,
        ),
        Step(
            "sanitize",
            {tool: sanitizer_command(tool) for tool in SANITIZERS},
            150,
            # Every tensor its own allocation: no access beyond one can hide in another.
            {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
            "build",
            6,
        ),
        Step("bench-loss", {"bench-loss": python("-c", BENCH_LOSS)}, 90, needs="build", shown=60),
        Step("bench-knn", {"bench-knn": python("-c", BENCH_KNN)}, 220, needs="build", shown=120),
        Step(
            "operator-tests",
            {
                "operator-tests": python(
                    *pytest, "-m", "not gpu", *spread, *(f"tests/{name}.py" for name in OPERATOR_TESTS)
                )
            },
            150,
            {"OMP_NUM_THREADS": "2"},
            "build",
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


def run_command(name: str, command: list[str], seconds: float, environment: dict[str, str]) -> str:
    """Why it failed; nothing where it did not. The log holds all that it printed."""
    with (LOGS / f"{name}.log").open("w") as log:
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


def without_filter(command: list[str]) -> list[str]:
    """The sanitizer's command without its choice of kernels, for versions that spell it differently."""
    at = command.index("--kernel-name") if "--kernel-name" in command else None
    return command if at is None else command[:at] + command[at + 2 :]


def run_watched(name: str, command: list[str], seconds: float, environment: dict[str, str]) -> str:
    """A command, once more without the sanitizer's filter where the sanitizer itself refused to start."""
    started = time.monotonic()
    reason = run_command(name, command, seconds, environment)
    refused = reason and " SUMMARY: " not in (LOGS / f"{name}.log").read_text()
    left = seconds - (time.monotonic() - started)
    if refused and without_filter(command) != command and left > 1:
        return run_command(name, without_filter(command), left, environment)
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


def run_all(chosen: list[Step], limit: float) -> list[Outcome]:
    started = time.monotonic()
    outcomes: list[Outcome] = []
    for step in chosen:
        left = limit - (time.monotonic() - started)
        failed = {outcome.name for outcome in outcomes if not outcome.ok}
        if step.needs in failed or left < 5:
            reason = f"{step.needs} failed" if step.needs in failed else "no time left"
            outcome = Outcome(step.name, False, 0.0, f"not run: {reason}")
        else:
            print(f"=== {step.name} (at {time.monotonic() - started:.0f} s)", flush=True)
            outcome = run_step(step, min(step.seconds, left))
        outcomes.append(outcome)
        print(
            f"=== {outcome.name}: {'ok' if outcome.ok else 'FAILED'}, {outcome.seconds:.0f} s"
            f" {outcome.reason}",
            flush=True,
        )
        bring_back()
    return outcomes


def main() -> int:
    known = steps()
    names = [step.name for step in known]
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", default=",".join(names), help=f"some of {','.join(names)}")
    parser.add_argument("--limit", type=float, default=580.0, help="seconds for everything")
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
