"""Runs of several processes: who is who, what happens once, and what all must agree on.

torchrun starts the processes and tells each its rank by environment variables; nothing else does. Collectives
go through gloo for what lies on the CPU and NCCL for what lies on CUDA.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from naign_ext.distributed.sharding import Shard

T = TypeVar("T")

PATIENCE_VARIABLE = "NAIGN_TIMEOUT"
"""Environment variable with the seconds for which a process waits for the others."""
_PATIENCE_S = 600
_MOST_PATIENCE_S = 7 * 24 * 3600
_MOST_NAMED = 3
"""Values that are named where processes differ in many."""
_THREADS_END_S = 0.1
_SIGNS_OF_LOSS = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "pair closure")


class MainProcessFailedError(RuntimeError):
    """Another process of the run, mostly the main one, failed and tells why; the others stop with this."""


class JoinError(RuntimeError):
    """The processes of a run do not find each other."""


class ProcessLostError(RuntimeError):
    """Another process of the run is gone, or has not answered in time; the run goes on from its last checkpoint."""


@dataclass(frozen=True)
class Processes:
    """This process, number ``rank`` of ``world_size``; ``local_rank`` numbers those of one machine."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_distributed(self) -> bool:
        """Whether there are others."""
        return self.world_size > 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    @property
    def shard(self) -> Shard:
        """This process's shard of every step."""
        return Shard(self.rank, self.world_size)

    def on_main(self, act: Callable[[], T]) -> T:
        """What act() returns in the main process, for all; the others do not call it.

        Its exception is raised there, and MainProcessFailedError in the others.
        """
        if not self.is_distributed:
            return act()
        box: list[Any] = [None, None]
        error: Exception | None = None
        if self.is_main:
            try:
                box[0] = act()
            except Exception as raised:
                error, box[1] = raised, str(raised)
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        if error is not None:
            raise error
        if box[1] is not None:
            raise MainProcessFailedError(box[1])
        return box[0]  # type: ignore[no-any-return]

    def in_turn(self, act: Callable[[], T]) -> T:
        """act() in every process, first in one of each machine, so that a download is made once.

        Its exception is raised where it happens, and MainProcessFailedError in the others.
        """
        if not self.is_distributed:
            return act()
        found: list[T] = []
        self._together(lambda: found.append(act()) if self.local_rank == 0 else None)
        self._together(lambda: None if found else found.append(act()))
        return found[0]

    def agree(self, values: Mapping[str, Any]) -> None:
        """ValueError in every process unless all give equal values (plain ones, by name); a collective."""
        if not self.is_distributed:
            return
        gathered: list[Any] = [None] * self.world_size
        dist.all_gather_object(gathered, dict(values))
        first = gathered[0]
        for rank, others in enumerate(gathered):
            differing = [key for key in first | others if first.get(key) != others.get(key)]
            if differing:
                told = (
                    f"{key}: {first.get(key)!r} in process 0, {others.get(key)!r} in process {rank}"
                    for key in differing[:_MOST_NAMED]
                )
                raise ValueError(
                    f"{'; '.join(told)}: expected the same in all {self.world_size} processes of a job; start them "
                    "all by the same command"
                )

    def _together(self, act: Callable[[], object]) -> None:
        """act() in all processes at once; where it fails in any, all fail."""
        error: Exception | None = None
        try:
            act()
        except Exception as raised:
            error = raised
        texts: list[str | None] = [None] * self.world_size
        dist.all_gather_object(texts, None if error is None else str(error))
        if error is not None:
            raise error
        for text in texts:
            if text is not None:
                raise MainProcessFailedError(text)


SINGLE_PROCESS = Processes()


@contextmanager
def join() -> Iterator[Processes]:
    """The processes that torchrun started, this one among them; SINGLE_PROCESS where it did not, or started one.

    A default group that exists is used and left in place.
    """
    if dist.is_available() and dist.is_initialized():
        yield _current()
        return
    if "RANK" not in os.environ or whole_number_from("WORLD_SIZE", 1, least=1) == 1:
        yield SINGLE_PROCESS
        return
    _check_environment()
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(_local_rank())
    else:
        _keep_to_own_processors()
    with nullcontext() if cuda else _threads_that_wait_their_turn():
        _meet("cpu:gloo,cuda:nccl" if cuda else "gloo")
    try:
        yield _current()
    finally:
        dist.destroy_process_group()
        # gloo's threads outlive their group where DistributedDataParallel has used it. One that lets go of the last
        # collective's tensors needs the interpreter's lock, and aborts the process if the interpreter ends meanwhile.
        time.sleep(_THREADS_END_S)


def whole_number_from(variable: str, default: int, *, least: int = 0) -> int:
    """The whole number that an environment variable holds; ValueError names it where it holds something else."""
    given = os.environ.get(variable, str(default))
    if not (given.isascii() and given.isdigit()) or int(given) < least:
        raise ValueError(f"{variable}: expected a whole number of {least} or more, got {given!r}")
    return int(given)


def _check_environment() -> None:
    """Raise where what torchrun sets is set to something that no job has."""
    rank, count = whole_number_from("RANK", 0), whole_number_from("WORLD_SIZE", 1, least=1)
    if rank >= count:
        raise ValueError(f"RANK: expected less than WORLD_SIZE = {count}, got {rank}")
    for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT"):
        whole_number_from(name, 0)


def _meet(backend: str) -> None:
    patience = _patience()
    try:
        store, index, count = next(iter(rendezvous("env://", timeout=patience)))
        # A restarted job finds the addresses of its killed processes in the store, unless each attempt has its own
        # keys.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        own = dist.PrefixStore(f"attempt_{attempt}", store)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=own, rank=index, world_size=count, timeout=patience)
    except RuntimeError as error:
        where = ":".join(os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
        raise JoinError(
            f"the processes of the job cannot meet at {where} ({str(error).splitlines()[0]}); where another program "
            "has the port, give another one (torchrun --master-port, or MASTER_PORT), and start all of them"
        ) from error


def _patience() -> timedelta:
    """How long a process waits for another in a collective, and for all to come."""
    given = os.environ.get(PATIENCE_VARIABLE, str(_PATIENCE_S))
    try:
        return timedelta(seconds=_within(float(given)))
    except ValueError:
        raise ValueError(
            f"{PATIENCE_VARIABLE}: expected seconds, 1 to {_MOST_PATIENCE_S}, got {given!r}"
        ) from None


def _within(seconds: float) -> float:
    if not 1 <= seconds <= _MOST_PATIENCE_S:
        raise ValueError
    return seconds


@contextmanager
def name_lost_processes(processes: Processes, run: Path) -> Iterator[None]:
    """Turns the failure of a collective, which is how the end of another process is noticed, into words."""
    try:
        yield
    except RuntimeError as error:
        if not processes.is_distributed or not _is_loss(error):
            raise
        raise ProcessLostError(
            f"process {processes.rank} of {processes.world_size}: another process of the run is gone or does not "
            f"answer ({str(error).splitlines()[0]}). The run stops here and goes on from its last checkpoint with "
            f"--resume {run}; torchrun --max-restarts does so by itself"
        ) from error


def _is_loss(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, dist.DistError) or any(sign in text for sign in _SIGNS_OF_LOSS)


def _current() -> Processes:
    return Processes(dist.get_rank(), dist.get_world_size(), _local_rank())


def _keep_to_own_processors() -> None:
    """Split the processors that this process may use among those of its machine, in equal consecutive parts.

    gloo answers in threads of its own. A scheduler that starts them where another process computes lets a collective
    wait for whole slices of time, milliseconds instead of microseconds.
    """
    parts = whole_number_from("LOCAL_WORLD_SIZE", 0)
    if not hasattr(os, "sched_setaffinity") or not _local_rank() < parts:
        return
    mine = sorted(os.sched_getaffinity(0))
    size = len(mine) // parts
    if size:
        first = _local_rank() * size
        os.sched_setaffinity(0, mine[first : first + size])


@contextmanager
def _threads_that_wait_their_turn() -> Iterator[None]:
    """Threads that are begun meanwhile do not interrupt another when they wake (Linux's SCHED_BATCH).

    The thread that receives for gloo polls without a pause while another one, which sends, holds their connection's
    lock. Where the two share a processor, and the one that polls has interrupted the one that sends, both wait for the
    end of its slice of time: 3 or 4 ms instead of .1 for a collective.
    """
    if not hasattr(os, "SCHED_BATCH"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


def _local_rank() -> int:
    return whole_number_from("LOCAL_RANK", whole_number_from("RANK", 0))
