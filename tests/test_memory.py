"""Chunks of a pool by free memory."""

import pytest
import torch
from torch import nn

from naign_ext import memory
from naign_ext.memory import automatic_chunk, available_bytes, bytes_per_row


def test_free_memory_is_what_the_system_says(monkeypatch):
    assert 1 << 20 < available_bytes("cpu") < 1 << 50
    monkeypatch.setattr(
        memory, "_number", lambda path: {"memory.max": 3 << 20, "memory.current": 1 << 20}[path.name]
    )
    assert available_bytes("cpu") == 2 << 20


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
