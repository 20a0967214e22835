"""Batches: each a function of the seed and the step, shared among processes, augmented by place."""

import pytest
import torch

from naign_ext.config import ConfigError, resolve_config
from naign_ext.distributed.sharding import Shard
from naign_ext.seeds import derive_seed
from naign_ext.training.batches import BatchOrder, TrainingData, with_copies
from naign_ext.transforms import random_augment

SEED = 3


def images(count=20):
    return torch.rand(count, 1, 6, 5, generator=torch.Generator().manual_seed(0))


def test_data_come_in_shuffled_epochs():
    order = BatchOrder(10, seed=3)
    stream = torch.cat([order.rows(i, 7) for i in range(0, 70, 7)])
    for epoch in range(7):
        assert stream[10 * epoch : 10 * epoch + 10].sort().values.tolist() == list(range(10))
    assert stream[:10].tolist() != stream[10:20].tolist()
    assert torch.equal(BatchOrder(10, seed=3).rows(21, 35), stream[21:56])
    assert not torch.equal(BatchOrder(10, seed=4).rows(0, 10), stream[:10])


def test_a_batch_has_the_rows_of_its_positions_as_they_are():
    x = images()
    data = TrainingData(x, batch_size=8, seed=SEED)
    order = BatchOrder(20, SEED)
    for step in (0, 2, 5):
        batch = data.batch(step)
        assert torch.equal(batch.rows, order.rows(8 * step, 8)) and torch.equal(batch.all_rows, batch.rows)
        assert torch.equal(batch.x, x[batch.rows]) and batch.augmented is batch.x
        assert batch.offset == (0, 8)


def test_jitter_shifts_a_batch_by_the_seed_of_its_step():
    data = TrainingData(images(), batch_size=8, seed=SEED, jitter=2)
    seen = [data.batch(step) for step in (4, 4, 5)]
    random = torch.Generator().manual_seed(derive_seed(SEED, "vary", 4))
    shifted = random_augment(seen[0].x, flip=False, pixels=2, generator=random)
    assert torch.equal(seen[0].augmented, shifted) and torch.equal(seen[1].augmented, shifted)
    assert torch.equal(seen[0].x, images()[seen[0].rows]) and not torch.equal(shifted, seen[0].x)
    again = torch.Generator().manual_seed(derive_seed(SEED, "vary", 5))
    assert torch.equal(seen[2].augmented, random_augment(seen[2].x, flip=False, pixels=2, generator=again))


@pytest.mark.parametrize("count", [2, 4])
def test_shards_are_parts_of_the_whole_batch(count):
    whole = TrainingData(images(), batch_size=8, seed=SEED, jitter=1).batch(7)
    shards = [Shard(i, count) for i in range(count)]
    parts = [TrainingData(images(), batch_size=8, seed=SEED, jitter=1, shard=s).batch(7) for s in shards]
    for name in ("rows", "x", "augmented"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
    assert all(torch.equal(part.all_rows, whole.rows) for part in parts)
    assert [part.offset for part in parts] == [(8 // count * i, 8) for i in range(count)]


def test_a_batch_that_processes_cannot_share_equally_is_refused():
    with pytest.raises(ValueError, match="batch_size: expected a multiple of the 3 processes, got 8"):
        TrainingData(images(), batch_size=8, seed=SEED, shard=Shard(0, 3))


def test_copies_come_after_the_originals_and_vectors_have_none():
    x = images(4)
    flips = with_copies(x, resolve_config("lfw100", settings=["augment.flip=true", "augment.shift=0"]))
    assert torch.equal(flips, torch.cat([x, x.flip(3)]))
    every = with_copies(x, resolve_config("lfw100", settings=["augment.flip=true", "augment.shift=1"]))
    assert len(every) == 2 * 9 * 4 and torch.equal(every[:8], flips)
    points = torch.zeros(4, 2)
    assert with_copies(points, resolve_config("8gaussians")) is points
    with pytest.raises(ConfigError, match=r"^augment: 8gaussians has vectors"):
        with_copies(points, resolve_config("8gaussians", settings=["augment.jitter=1"]))
