"""Normal numbers on a CUDA device: the bits of the CPU, and the host never waits."""

import pytest
import torch
from torch import Tensor

from naign_ext.latents import LatentPool
from naign_ext.ops import randn, randn_reference, randn_rows

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("built_with_cuda")]

SEED = 0xFEDCBA9876543210
FIRST = 2**32 - 7


def assert_same_bits(found: Tensor, expected: Tensor) -> None:
    assert found.device.type == "cuda"
    assert torch.equal(found.cpu().view(torch.int32), expected.view(torch.int32))


@pytest.mark.parametrize("columns", [1, 2, 3, 4, 5, 8, 33, 625, 12288])
def test_ranges(columns: int) -> None:
    for count in (0, 1, 7, 3000):
        found = randn(SEED, FIRST, count, columns, scale=0.3, device="cuda")
        assert_same_bits(found, randn(SEED, FIRST, count, columns, scale=0.3))


@pytest.mark.parametrize("columns", [2, 7, 64])
def test_chosen_rows(columns: int) -> None:
    rows = torch.randint(2**62, (5000,), generator=torch.Generator().manual_seed(0))
    rows[::7] = -1
    assert_same_bits(randn_rows(SEED, rows.cuda(), columns), randn_rows(SEED, rows, columns))
    strided = rows.cuda().view(-1, 2)[:, 1]
    assert_same_bits(randn_rows(SEED, strided, columns), randn_rows(SEED, rows[1::2], columns))


def test_tables_that_begin_anywhere() -> None:
    expected = randn(SEED, FIRST, 9, 8)
    for offset in range(4):
        room = torch.full((offset + 72 + 16,), 7.0, device="cuda")
        out = room[offset : offset + 72].view(9, 8)
        torch.ops.naign.randn(out, None, FIRST, SEED - 2**64, 1.0)
        assert_same_bits(out.clone(), expected)
        assert (room[:offset] == 7).all() and (room[-16:] == 7).all()


def test_the_torch_reference_has_the_same_bits_on_the_device() -> None:
    out = torch.empty(400, 33, device="cuda")
    randn_reference.randn(out, None, FIRST, SEED, 0.3)
    assert_same_bits(out, randn(SEED, FIRST, 400, 33, scale=0.3))


def test_more_elements_than_32_bits_count() -> None:
    rows = 2**31 // 1024 + 3
    if torch.cuda.mem_get_info()[0] < 10 * 2**30:
        pytest.fail("needs 10 GB of free memory on the device")
    found = randn(SEED, 0, rows, 1024, device="cuda")
    assert_same_bits(found[-2:].clone(), randn(SEED, rows - 2, 2, 1024))


def test_the_host_never_waits(no_waiting: None) -> None:
    pool = LatentPool((3, 5), 2.0, 1, device="cuda")
    rows = torch.arange(70, device="cuda")
    pool.rows(rows - 3)
    pool.chunk(3, 5000)


def test_pools_are_those_of_the_cpu() -> None:
    there, here = (LatentPool((3, 5), 2.0, 1, device=device) for device in ("cuda", "cpu"))
    rows = torch.tensor([4, -1, 900])
    assert_same_bits(there.chunk(3, 500), here.chunk(3, 500))
    assert_same_bits(there.rows(rows.cuda()), here.rows(rows))


def test_a_graph_replays_on_other_rows() -> None:
    rows = torch.arange(100, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        randn_rows(SEED, rows, 6)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = randn_rows(SEED, rows, 6)
    rows += 2**35
    graph.replay()
    assert_same_bits(captured, randn_rows(SEED, rows.cpu(), 6))


def test_opcheck() -> None:
    for rows in (torch.tensor([3, -1, 2**40], device="cuda"), None):
        torch.library.opcheck(torch.ops.naign.randn, (torch.empty(3, 6, device="cuda"), rows, 7, -5, 2.0))


def test_other_devices_are_refused() -> None:
    with pytest.raises(RuntimeError, match="rows: expected out's device"):
        torch.ops.naign.randn(torch.empty(3, 4, device="cuda"), torch.arange(3), 0, 0, 1.0)
