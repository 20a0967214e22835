"""Generation of a pool's samples, and the search beside it."""

from contextlib import contextmanager

import pytest
import torch
from torch import nn

from naign_ext import ImleSearch, imle_knn
from naign_ext.models import build_model
from naign_ext.objectives import NaignOptions, StepContext
from naign_ext.objectives.generation import SideStream, chunk_for, innermost, sample_in_evaluation
from naign_ext.objectives.matchers import build_matcher
from naign_ext.transforms.batch import Batch


class Streams:
    """In place of torch.cuda: writes down what is asked of streams and events."""

    def __init__(self):
        self.log = []
        self.current = "main"

    def current_stream(self, device):
        return _Stream(self, "main")

    def Stream(self, device):
        return _Stream(self, "side")

    @contextmanager
    def stream(self, stream):
        self.current = stream.name
        yield
        self.current = "main"


class _Stream:
    def __init__(self, streams, name):
        self.streams, self.name, self.events = streams, name, 0

    def wait_stream(self, other):
        self.streams.log.append(f"{self.name} waits for {other.name}")

    def wait_event(self, event):
        self.streams.log.append(f"{self.name} waits for {event.name}")

    def record_event(self):
        self.events += 1
        return _Event(self.streams, f"{self.name} {self.events}")


class _Event:
    def __init__(self, streams, name):
        self.streams, self.name = streams, name

    def synchronize(self):
        self.streams.log.append(f"host waits for {self.name}")


def test_work_runs_beside_the_caller_two_chunks_at_most():
    streams = Streams()
    with SideStream(torch.device("cpu"), streams) as side_stream:
        for i in range(4):
            streams.log.append(f"make {i}")
            side_stream.run(lambda chunk: streams.log.append(f"{streams.current}: search {chunk}"), i)
            assert len(side_stream._held) <= SideStream.HELD
    assert streams.log == [
        "side waits for main",
        "make 0", "side waits for main 1", "side: search 0",
        "make 1", "side waits for main 2", "side: search 1", "host waits for side 1",
        "make 2", "side waits for main 3", "side: search 2", "host waits for side 2",
        "make 3", "side waits for main 4", "side: search 3", "host waits for side 3",
        "main waits for side",
    ]  # fmt: skip
    assert not side_stream._held


def test_without_cuda_work_is_done_at_once():
    done = []
    with SideStream(torch.device("cpu")) as side_stream:
        for i in range(3):
            side_stream.run(done.append, i)
            assert done[-1] == i


def test_a_failure_leaves_the_context():
    streams = Streams()
    with pytest.raises(RuntimeError, match="no"), SideStream(torch.device("cpu"), streams):
        raise RuntimeError("no")
    assert streams.log[-1] == "main waits for side"


def test_samples_are_of_evaluation_and_inference_in_the_dtype_of_the_network():
    f = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).train()
    z = torch.randn(16, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        samples = sample_in_evaluation(f[:1], z)
    assert samples.dtype == torch.bfloat16
    assert samples.is_inference()
    assert sample_in_evaluation(f, z).dtype == torch.float32
    assert f.training
    assert f[1].num_batches_tracked == 0


@pytest.mark.parametrize("match", ["batch", "dataset", "one-to-one", "adaptive"])
@pytest.mark.parametrize("reject", [{}, {"reject_below": 0.01, "reject": "sample"}])
def test_half_precision_pools_match_as_their_values_say(match, reject):
    if match == "one-to-one" and reject:
        pytest.skip("one-to-one rejects nothing")
    torch.manual_seed(0)
    f, data = nn.Linear(5, 5), torch.randn(30, 5)
    options = NaignOptions(match=match, pool_size=200, **reject)
    matcher = build_matcher(options, data, StepContext(3))
    batch = Batch.of(data, torch.arange(30))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        matcher.prepare(f, 0)
        latents, admissible = matcher.latents(f, batch)
        samples = sample_in_evaluation(f, matcher.pool.chunk(0, 200))
        loss = (f(latents).float() - data).square().mean()
    loss.backward()
    assert f.weight.grad.isfinite().all()
    if match != "one-to-one":
        if reject:
            near = imle_knn(samples, data).distances[:, 0] < 0.01
            samples = samples.masked_fill(near[:, None], torch.nan)
        nearest = imle_knn(data, samples).indices[:, 0]
        assert torch.equal(latents, matcher.pool.rows(nearest))
        assert admissible.all()


def test_a_search_of_inference_tensors_keeps_its_own_normal():
    data = torch.randn(20, 3)
    with torch.inference_mode():
        pool = torch.randn(50, 3)
    search = ImleSearch(data).update(pool)
    assert not search.neighbours().indices.is_inference()


def test_chunks_are_chosen_once_and_change_nothing():
    torch.manual_seed(0)
    f, data = build_model("mlp", (6,), widths=[16, 16]), torch.randn(40, 6)
    chosen = build_matcher(NaignOptions(match="dataset", pool_size=5000), data, StepContext(1))
    given = build_matcher(NaignOptions(match="dataset", pool_size=5000, pool_chunk=64), data, StepContext(1))
    for matcher in (chosen, given):
        matcher.prepare(f, 0)
    assert chosen.rows_at_a_time == chunk_for(f, (6,), torch.device("cpu"))
    assert given.rows_at_a_time == 64
    batch = Batch.of(data, torch.arange(40))
    assert torch.equal(chosen.latents(f, batch)[0], given.latents(f, batch)[0])


def test_the_network_is_found_inside_its_wrappers():
    f = nn.Linear(2, 2)
    assert innermost(f) is f
    assert innermost(torch.compile(f)) is f
