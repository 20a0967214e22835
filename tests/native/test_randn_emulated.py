"""The CUDA kernel of the normal numbers, run on the CPU by the emulation: the bits of the CPU's own kernels."""

import ctypes

import pytest
import torch
from emulated import build
from torch import Tensor

from naign_ext import _native
from naign_ext.ops import randn, randn_rows

SEED = 0xFEDCBA9876543210
FIRST = 2**32 - 7
GUARD = 16


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    if _native.extension is None:
        pytest.skip("needs the compiled extension")
    return build(tmp_path_factory.mktemp("emulation"), "randn")


def run(
    kernel: ctypes.CDLL,
    columns: int,
    *,
    count: int = 0,
    rows: Tensor | None = None,
    offset: int = 0,
    multiprocessors: int = 1,
) -> Tensor:
    """A table that begins `offset` floats after a multiple of 16 bytes; what lies about it stays as it was."""
    count = count if rows is None else len(rows)
    room = torch.full((offset + count * columns + GUARD,), 7.0)
    status = kernel.emulated_randn(
        ctypes.c_void_p(room.data_ptr() + 4 * offset),
        ctypes.c_void_p(None if rows is None else rows.data_ptr()),
        ctypes.c_int64(FIRST),
        ctypes.c_int64(count),
        ctypes.c_int64(columns),
        ctypes.c_uint64(SEED),
        ctypes.c_float(0.3),
        ctypes.c_int(multiprocessors),
    )
    assert status == 0
    assert (room[:offset] == 7).all() and (room[-GUARD:] == 7).all()
    return room[offset:-GUARD].view(count, columns)


def assert_same_bits(a: Tensor, b: Tensor) -> None:
    assert torch.equal(a.view(torch.int32), b.view(torch.int32))


@pytest.mark.parametrize("columns", [1, 2, 3, 4, 5, 6, 7, 8, 33, 64, 1022, 1024])
def test_every_number_of_columns(kernel: ctypes.CDLL, columns: int) -> None:
    for count in (1, 11, 4000 // columns + 1):
        assert_same_bits(run(kernel, columns, count=count), randn(SEED, FIRST, count, columns, scale=0.3))


@pytest.mark.parametrize("multiprocessors", [1, 2, 3])
@pytest.mark.parametrize("columns", [2, 20, 4 * 2048, 4 * 5000 + 1])
def test_a_thread_takes_many_counters(kernel: ctypes.CDLL, columns: int, multiprocessors: int) -> None:
    count = 3 * 4 * 2048 * multiprocessors // columns + 3
    found = run(kernel, columns, count=count, multiprocessors=multiprocessors)
    assert_same_bits(found, randn(SEED, FIRST, count, columns, scale=0.3))


@pytest.mark.parametrize("columns", [2, 7, 8])
def test_chosen_rows(kernel: ctypes.CDLL, columns: int) -> None:
    rows = torch.tensor([5, 5, -1, 2**40 + 3, 0, -(2**63), 2**63 - 1])
    assert_same_bits(run(kernel, columns, rows=rows), randn_rows(SEED, rows, columns, scale=0.3))


@pytest.mark.parametrize("offset", [1, 2, 3])
def test_tables_that_begin_anywhere(kernel: ctypes.CDLL, offset: int) -> None:
    found = run(kernel, 8, count=9, offset=offset)
    assert_same_bits(found.clone(), randn(SEED, FIRST, 9, 8, scale=0.3))


def test_nothing_at_all(kernel: ctypes.CDLL) -> None:
    assert run(kernel, 8, count=0).shape == (0, 8)
