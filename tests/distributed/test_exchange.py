"""What processes tell each other in an update: means of scalars, and what one of them asks of all."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from naign_ext.distributed.exchange import Exchanged, begin_exchange
from naign_ext.distributed.processes import SINGLE_PROCESS, Processes


def scalars(rank=0):
    return {"loss": torch.tensor(1.0 + rank), "imle": torch.tensor(0.5)}


def test_one_process_hears_itself():
    for asked, heard in ((None, ()), ("SIGTERM", ("SIGTERM",))):
        requests = {name: name == asked for name in ("SIGINT", "SIGTERM")}
        finish = begin_exchange(SINGLE_PROCESS, scalars(), requests)
        assert finish() == Exchanged({"loss": 1.0, "imle": 0.5}, heard)


def process(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=3)
    processes = Processes(rank, 3)
    calls = []
    reduce, dist.all_reduce = dist.all_reduce, lambda *a, **k: calls.append(1) or reduce(*a, **k)
    heard = []
    for asked_by in (None, 0, 2):
        requests = {"SIGINT": False, "SIGTERM": rank == asked_by}
        heard.append(begin_exchange(processes, scalars(rank), requests)())
    torch.save((heard, len(calls)), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_all_processes_hear_the_same_by_one_collective(tmp_path):
    mp.spawn(process, args=(str(tmp_path),), nprocs=3)
    for rank in range(3):
        heard, collectives = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        assert [h.requests for h in heard] == [(), ("SIGTERM",), ("SIGTERM",)]
        assert all(h.means == {"loss": 2.0, "imle": 0.5} for h in heard)
        assert collectives == 3
