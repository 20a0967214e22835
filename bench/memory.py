"""Peak memory of one call, measured where nothing else can hide or add to it.

On Linux every measurement runs in a process of its own. A small server imports torch and the peers once and
then forks a child per measurement, before any thread pool exists (an OpenMP runtime does not survive a fork
once its threads run). The child loads the inputs, makes one tiny call so that code pages and thread pools are
there, returns free heap pages to the system, resets the kernel's high-water mark of its resident set
(writing 5 to /proc/self/clear_refs) and makes the call. VmHWM less the resident set before is the peak: all
allocators count, freed workspace too, and pages cached by an earlier call cannot hide the need for them.
On CUDA the caching allocator keeps the peak itself. Elsewhere the column is null.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import torch

LIMIT_S = 900
Job = tuple[Callable[[], Any], Callable[[], Any]]
_LINUX = "VmHWM less VmRSS of one call in a process of its own, preparation included"
_CUDA = "torch.cuda.max_memory_allocated beyond what was allocated before the call"
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def supported() -> str | None:
    """None where the peak can be measured, else the reason why not."""
    if not (_STATUS.is_file() and _CLEAR.is_file() and hasattr(os, "fork")):
        return "needs Linux with /proc/self/clear_refs"
    try:
        _CLEAR.write_text("5")
    except OSError as error:
        return f"/proc/self/clear_refs cannot be written: {error.strerror}"
    return None


def peak_bytes(job: Job) -> int:
    """Peak of the resident set during the job's call beyond what was resident before it, in bytes."""
    return peak_and_answer(job)[0]


def peak_and_answer(job: Job) -> tuple[int, Any]:
    """As :func:`peak_bytes`, and what the call answered.

    job: (warm, call). Meant for a fresh process: see the module's text.
    """
    warm, call = job
    warm()
    gc.collect()
    _return_free_pages()
    _CLEAR.write_text("5")
    before = _status_bytes("VmRSS")
    answer = call()
    peak = _status_bytes("VmHWM")
    return max(0, peak - before), answer


def cuda_peak_bytes(call: Callable[[], Any], device: str) -> int:
    """Peak of torch's CUDA allocations during the call beyond those before it, in bytes."""
    return cuda_peak_and_answer(call, device)[0]


def cuda_peak_and_answer(call: Callable[[], Any], device: str) -> tuple[int, Any]:
    """As :func:`cuda_peak_bytes`, and what the call answered."""
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    answer = call()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device)) - before, answer


def _status_bytes(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no field {name}")


def _return_free_pages() -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _method(wanted: bool, device: str) -> str:
    if not wanted:
        return "not measured"
    return _CUDA if device.startswith("cuda") else supported() or _LINUX


class MemoryProbe:
    """Context manager around the server; `measure` asks for one peak.

    preload: modules that the server imports before it forks, those missing are passed over. wanted, device:
    no server is started when memory is not wanted or the device keeps its own account. limit_s: a child that takes
    longer is ended by the system, so that a library that hangs after a fork cannot stop a run.
    """

    def __init__(
        self,
        preload: Sequence[str] = (),
        *,
        wanted: bool = True,
        device: str = "cpu",
        limit_s: int = LIMIT_S,
    ) -> None:
        self.wanted = wanted
        self._limit_s = limit_s
        self.method = _method(wanted, device)
        self._start = self.method == _LINUX
        self._preload = list(preload)
        self._server: subprocess.Popen[str] | None = None

    def __enter__(self) -> MemoryProbe:
        if self._start:
            paths = os.pathsep.join(path for path in sys.path if path)
            self._server = subprocess.Popen(
                [sys.executable, "-m", "naign_bench.memory"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": paths, "PYTHONWARNINGS": "ignore"},
            )
            self._ask({"preload": self._preload})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is None:
            return
        if self._server.stdin is not None:
            self._server.stdin.close()
        self._server.wait()
        if self._server.stdout is not None:
            self._server.stdout.close()

    def measure(self, module: str, function: str, arguments: Mapping[str, Any]) -> int | None:
        """Peak in bytes of the job that `module.function(**arguments)` returns; None where unsupported.

        The arguments travel as JSON. RuntimeError tells what the child raised.
        """
        measured = self.measure_with(module, function, arguments)
        return None if measured is None else measured[0]

    def measure_with(
        self, module: str, function: str, arguments: Mapping[str, Any]
    ) -> tuple[int, Any] | None:
        """The peak, and the answer of the job's call, null unless it is JSON."""
        if self._server is None:
            return None
        question = {
            "module": module,
            "function": function,
            "arguments": dict(arguments),
            "limit_s": self._limit_s,
        }
        answer = self._ask(question)
        if "error" in answer:
            raise RuntimeError(f"memory of {function}: {answer['error']}")
        return int(answer["peak"]), answer["answer"]

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        assert self._server is not None and self._server.stdin is not None and self._server.stdout is not None
        try:
            self._server.stdin.write(json.dumps(question) + "\n")
            self._server.stdin.flush()
            line = self._server.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(
                "the memory server ended without an answer; run `python -m naign_bench.memory` to see why"
            )
        return dict(json.loads(line))


def _serve(questions: IO[str], answers: IO[str]) -> None:
    for line in questions:
        question = json.loads(line)
        answer = _preload(question["preload"]) if "preload" in question else _in_child(question)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _preload(modules: Sequence[str]) -> dict[str, Any]:
    missing = []
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    return {"missing": missing}


def _in_child(question: Mapping[str, Any]) -> dict[str, Any]:
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.close(reader)
        signal.alarm(question["limit_s"])
        os.write(writer, json.dumps(_answer(question)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        content = pipe.read()
    _, status = os.waitpid(child, 0)
    return dict(json.loads(content)) if content else {"error": f"the child ended with status {status}"}


def _answer(question: Mapping[str, Any]) -> dict[str, Any]:
    try:
        job = getattr(importlib.import_module(question["module"]), question["function"])(
            **question["arguments"]
        )
        peak, answer = peak_and_answer(job)
        return {"peak": peak, "answer": answer if isinstance(answer, dict) else None}
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return {"error": f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"}


if __name__ == "__main__":
    # Answers keep the real standard output; whatever a library prints goes to standard error.
    stream = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _serve(sys.stdin, stream)
