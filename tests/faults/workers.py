"""Tries in processes of their own, with limits of time and memory: a hang, a crash and a memory bomb end one try."""

import contextlib
import io
import os
import resource
import select
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

from faults.verdicts import USED, Verdict, judge

MEMORY = 2 << 30
"""Bytes a try may take beyond what the worker has."""
TRIES_OF_A_WORKER = 400


@dataclass(frozen=True)
class Try:
    """One try: everything in it follows from the kind, the seed and the number."""

    kind: str
    seed: int
    number: int

    def random(self) -> Random:
        return Random(f"{self.seed}/{self.kind}/{self.number}")


@dataclass(frozen=True)
class Ended:
    """A try, its verdict, where its files are kept (faults alone), and what it was, in words."""

    tried: Try
    verdict: Verdict
    folder: Path
    words: str = ""


@dataclass(frozen=True)
class Kind:
    """A kind of try. do: called with random choices, an empty folder and say, by which it tells what it tries.

    names: arguments of which an error has to name one; seconds: a try that takes longer hangs.
    """

    do: Callable[[Random, Path, Callable[[str], None]], None]
    seconds: float = 60.0
    names: Callable[[Random], tuple[str, ...]] | None = None


Kinds = dict[str, Kind]


def carry_out(tried: Try, kind: Kind, folder: Path) -> Ended:
    """The try, in this process; the folder is made for it and stays."""
    said: list[str] = []
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    names = kind.names(tried.random()) if kind.names else ()
    try:
        # Relative names and defaults such as runs/ are the try's own too.
        with quiet(), contextlib.chdir(folder):
            kind.do(tried.random(), folder, said.append)
        verdict = Verdict(USED)
    except Exception as error:
        verdict = judge(error, names)
        if verdict.is_fault:
            trace = "".join(traceback.format_exception(error))[-4000:]
            verdict = replace(verdict, text=f"{verdict.text}\n{trace}")
    return Ended(tried, verdict, folder, "; ".join(said))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing that a try prints is seen; nor are its warnings."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        with contextlib.redirect_stderr(io.StringIO()):
            yield


def limit_memory(more: int = MEMORY) -> None:
    """From here on this process cannot take more address space than this beyond what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


class _Worker:
    """A process that carries out tries, one at a time."""

    def __init__(self, kinds: Kinds, work: Path) -> None:
        self.pipe, theirs = Pipe()
        self.tried: Try | None = None
        self.done = 0
        self.work, self.kinds = work, kinds
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self.pipe.close()
            _serve(theirs, kinds, work)
        theirs.close()

    def begin(self, tried: Try) -> None:
        self.tried, self.since = tried, time.monotonic()
        self.done += 1
        self.pipe.send(tried)

    def is_late(self) -> bool:
        return self.tried is not None and time.monotonic() - self.since > self.kinds[self.tried.kind].seconds

    def end(self) -> int:
        """Ends the process; its status."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.pipe.close()
        return os.waitpid(self.pid, 0)[1]


def _serve(pipe: Connection, kinds: Kinds, work: Path) -> None:
    try:
        limit_memory()
        with contextlib.suppress(EOFError):
            while True:
                tried = pipe.recv()
                pipe.send(carry_out(tried, kinds[tried.kind], work / f"{tried.kind}-{tried.number}"))
    finally:
        os._exit(0)


def carry_out_all(tries: Iterable[Try], kinds: Kinds, work: Path, jobs: int) -> Iterator[Ended]:
    """All tries, as they end; the folders of those without a fault are removed."""
    waiting = iter(tries)
    workers = [_Worker(kinds, work) for _ in range(jobs)]
    try:
        for worker in list(workers):
            _give(worker, waiting, workers)
        while workers:
            ready, _, _ = select.select([w.pipe for w in workers], [], [], 0.2)
            for worker in list(workers):
                ended = _look(worker, worker.pipe in ready)
                if ended is None:
                    continue
                if not ended.verdict.is_fault:
                    _remove(ended.folder)
                yield ended
                workers.remove(worker)
                follower = _follower(worker)
                workers.append(follower)
                _give(follower, waiting, workers)
    finally:
        for worker in workers:
            worker.end()


def _follower(worker: _Worker) -> _Worker:
    """Who goes on: the same, or a fresh one where that is gone or has done enough."""
    if worker.tried is None and worker.done < TRIES_OF_A_WORKER:
        return worker
    if worker.tried is None:
        worker.end()
    return _Worker(worker.kinds, worker.work)


def _give(worker: _Worker, waiting: Iterator[Try], workers: list[_Worker]) -> None:
    """The next try for a worker, or its end."""
    following = next(waiting, None)
    if following is None:
        workers.remove(worker)
        worker.end()
    else:
        worker.begin(following)


def _look(worker: _Worker, has_news: bool) -> Ended | None:
    """What became of a worker's try, if anything; a worker that is gone or late is ended and keeps its try."""
    tried = worker.tried
    assert tried is not None
    folder = worker.work / f"{tried.kind}-{tried.number}"
    if has_news:
        try:
            ended: Ended = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            status = worker.end()
            signalled = os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            return Ended(
                tried, Verdict("crash", f"the process ended by signal or status {signalled}"), folder
            )
        worker.tried = None
        return ended
    if worker.is_late():
        seconds = worker.kinds[tried.kind].seconds
        worker.end()
        return Ended(tried, Verdict("hang", f"no end after {seconds:.0f} s"), folder)
    return None


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
