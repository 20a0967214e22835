"""Chunks of a pool by free memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from naign_ext import memory
from naign_ext.memory import (
    NotEnoughMemoryError,
    automatic_chunk,
    available_bytes,
    bytes_per_row,
    check_fits,
    in_units,
)


def test_free_memory_is_what_the_system_says(monkeypatch):
    assert 1 << 20 < available_bytes("cpu") < 1 << 50
    monkeypatch.setattr(
        memory, "_number", lambda path: {"memory.max": 3 << 20, "memory.current": 1 << 20}.get(path.name)
    )
    monkeypatch.setattr(memory, "_cached_bytes", lambda statistics: 0)
    assert available_bytes("cpu") == 2 << 20
    monkeypatch.setattr(memory, "_cached_bytes", lambda statistics: 1 << 19)
    assert available_bytes("cpu") == (2 << 20) + (1 << 19)
    monkeypatch.setattr(memory, "_number", lambda path: None)
    assert available_bytes("cpu") > 1 << 20


def test_where_the_system_does_not_say_all_of_its_memory_counts(monkeypatch):
    monkeypatch.setattr(memory, "Path", lambda path: Path("/nowhere") / path.lstrip("/"))
    assert memory._meminfo_bytes() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_limit_on_the_process_counts():
    code = (
        "import resource; from naign_ext.memory import available_bytes, _address_space_bytes as left\n"
        "assert left() == []\n"
        "resource.setrlimit(resource.RLIMIT_AS, (20 << 30, 20 << 30))\n"
        "free = left()[0]\n"
        "assert 0 < available_bytes() <= free < 20 << 30\n"
        "held = bytearray(1 << 28)\n"
        "assert left()[0] <= free - len(held)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_does_not_fit_is_refused_with_numbers(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda device: 2_500_000)
    check_fits("this", 2_500_000, "do that")
    with pytest.raises(NotEnoughMemoryError) as caught:
        check_fits("this", 4_000_000_000, "do that")
    assert str(caught.value) == "memory: this takes at least 4 GB; 2.5 MB are free on cpu; do that"
    assert [in_units(n) for n in (0, 999, 1234, 10**18, 10**21)] == [
        "0 bytes",
        "999 bytes",
        "1.23 kB",
        "1e+03 PB",
        "1e+06 PB",
    ]


def test_bytes_of_a_row_are_those_of_every_layer():
    f = nn.Sequential(nn.Linear(10, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 10)).train()
    assert bytes_per_row(f, (10,), "cpu") == 4 * (10 + 30 + 30 + 30 + 30 + 30 + 30 + 10)
    assert f.training
    assert f[1].num_batches_tracked == 0
    assert not any(m._forward_hooks for m in f.modules())


def test_chunks_follow_free_memory(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda device: 1 << 40)
    assert automatic_chunk(1 << 10, "cpu") == (64 << 20) >> 10
    assert automatic_chunk(3000, "cpu") == 16384
    assert automatic_chunk(1, "cpu") == 1 << 16
    assert automatic_chunk(1 << 20, "cuda") == 2048
    monkeypatch.setattr(memory, "available_bytes", lambda device: 8 << 20)
    assert automatic_chunk(1 << 10, "cpu") == 1024
    assert automatic_chunk(1 << 30, "cpu") == 8


@pytest.mark.parametrize("shape", [(2,), (3, 8, 8)])
def test_a_network_without_layers_counts_itself(shape):
    assert bytes_per_row(nn.Identity(), shape, "cpu") == 2 * 4 * torch.zeros(shape).numel()
