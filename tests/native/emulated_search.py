"""The CUDA search's own sources on the CPU, as functions of tensors."""

import ctypes
import math
from pathlib import Path

import torch
from emulated import build
from torch import Tensor

from naign_ext import Neighbours
from naign_ext.ops import reference

FILTER, FILTER_BY_MMA, COLUMNS, EXACT = 1, 2, 3, 4
# One multiprocessor takes wide tiles, many take narrow ones.
WIDE, NARROW = 1, 64
# Compute capabilities, ten times the major number and the minor one.
TURING, AMPERE, ADA, HOPPER, BLACKWELL = 75, 80, 89, 90, 120

DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}


class Matrix(ctypes.Structure):
    """naign::Matrix."""

    _fields_ = (
        ("values", ctypes.c_void_p),
        ("dtype", ctypes.c_int32),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("row_stride", ctypes.c_int64),
        ("column_stride", ctypes.c_int64),
    )

    @classmethod
    def of(cls, tensor: Tensor) -> "Matrix":
        return cls(tensor.data_ptr(), DTYPES[tensor.dtype], *tensor.shape[-2:], *tensor.stride()[-2:])


class Limits(ctypes.Structure):
    """In place of the plan's own, where they are not zero."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("capacity", "chunk_rows", "parts"))


class Passes(ctypes.Structure):
    """How often each way was taken: candidates that the filter kept; data rows whose list was too short; data rows
    compared exactly with a whole chunk; pool rows out of range compared exactly with a data row."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("candidates", "overflow", "exact", "out_of_range"))
    candidates: int
    overflow: int
    exact: int
    out_of_range: int


def kernels_in(folder: Path) -> ctypes.CDLL:
    """The search's kernels, linked in `folder`."""
    return build(folder, "imle_knn")


def device(
    kernels: ctypes.CDLL, capability: int, multiprocessors: int, late: bool = False, backwards: bool = False
) -> None:
    """What the emulation stands for from here on."""
    kernels.emulated_device(*(ctypes.c_int(n) for n in (capability, multiprocessors, late, backwards)))


def search(
    kernels: ctypes.CDLL,
    data: Tensor,
    pool: Tensor,
    k: int,
    reject_below: float | None,
    way: int,
    limits: Limits,
) -> tuple[int, Neighbours, Passes]:
    """The status, what was found, and how."""
    batches = data.shape[0] if data.dim() == 3 else 1
    shape = (*data.shape[:-1], k)
    distances, indices, passes = torch.full(shape, 7.0), torch.full(shape, 7), Passes()
    status = kernels.emulated_search(
        ctypes.byref(Matrix.of(data)),
        ctypes.byref(Matrix.of(pool)),
        ctypes.c_int64(batches),
        ctypes.c_int64(k),
        ctypes.c_double(-math.inf if reject_below is None else reject_below),
        ctypes.c_int(way),
        ctypes.byref(limits),
        ctypes.c_void_p(distances.data_ptr()),
        ctypes.c_void_p(indices.data_ptr()),
        ctypes.byref(passes),
    )
    return status, Neighbours(distances, indices), passes


def check(
    kernels: ctypes.CDLL,
    data: Tensor,
    pool: Tensor,
    k: int = 1,
    reject_below: float | None = None,
    *,
    way: int = 0,
    capability: int = HOPPER,
    multiprocessors: int = WIDE,
    late: bool = False,
    backwards: bool = False,
    capacity: int = 0,
    chunk_rows: int = 0,
    parts: int = 0,
) -> Passes:
    """Compares with the definition, bit for bit."""
    device(kernels, capability, multiprocessors, late, backwards)
    limits = Limits(capacity, chunk_rows, parts)
    status, found, passes = search(kernels, data, pool, k, reject_below, way, limits)
    assert status == 0
    expected = Neighbours(*reference.imle_knn(data, pool, k, reject_below))
    assert torch.equal(found.indices, expected.indices)
    torch.testing.assert_close(found.distances, expected.distances, rtol=0, atol=0, equal_nan=True)
    return passes


def normal(rows: int, columns: int, seed: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
