"""Counter-based standard normal numbers: functions of (seed, row, column) alone, any row without the others."""

import math
from typing import Any

import torch
from torch import Tensor

from naign_ext import _native
from naign_ext.ops import randn_reference

MOST_COLUMNS = 1 << 34


def randn(
    seed: int,
    first: int,
    rows: int,
    columns: int,
    *,
    scale: float = 1.0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """scale * z for rows first, first + 1, ..., first + rows - 1 of an endless table z of independent N(0, 1).

    z[row, column] is a pure function of seed, row and column. Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel
    random numbers: as easy as 1, 2, 3, SC 2011; constants of Random123) with key (seed low, seed high) and counter
    (row low, row high, column // 4, 0), 32 bits each, gives words w0, w1, w2, w3. With

        u(w) = min(floor(w / 2) + 1/2, 2^31 - 128) / 2^31       in float32; in (0, 1), so |z| <= 6.67
        a(w) = (w // 2^30 + s / 2^30) pi / 2                    s the other 30 bits as a signed number

    columns 4 g, ..., 4 g + 3 are (Box and Muller, 1958)

        sqrt(-2 log u(w0)) (cos a(w1), sin a(w1)),  sqrt(-2 log u(w2)) (cos a(w3), sin a(w3))

    in float32 by a fixed sequence of multiplications, additions and square roots, none fused
    (csrc/randn/arithmetic.inc; relative error below 5e-7). So the bits are the same for every chunking,
    number of threads, instruction set and device, and without the extension.

    Args:
        seed: 0 <= seed < 2^64.
        first: 0 <= first, first + rows <= 2^63.
        rows, columns: size of the result, rows >= 0, 1 <= columns <= 2^34.
        scale: factor of every number, rounded to float32, finite; one multiplication.
        device: where the numbers are made.

    Returns:
        float32 (rows, columns).

    Raises:
        TypeError, ValueError: an argument is not as above; the message names it.
    """
    _check(seed, columns, scale)
    for name, value in (("first", first), ("rows", rows)):
        if not _is_int(value):
            raise TypeError(f"{name}: expected int, got {type(value).__name__}")
        if value < 0:
            raise ValueError(f"{name}: expected 0 or more, got {value}")
    if first + rows > 1 << 63:
        raise ValueError(f"first: expected first + rows <= 2^63, got {first} + {rows}")
    if device != "cpu":
        _check_device(device)
    out = torch.empty(rows, columns, dtype=torch.float32, device=device)
    return _filled(out, None, first if rows else 0, seed, scale)


def randn_rows(seed: int, rows: Tensor, columns: int, *, scale: float = 1.0) -> Tensor:
    """Chosen rows of the table of :func:`randn`, on their device; the host does not wait for it.

    Args:
        rows: int64 (n,), repeats allowed; a negative one gives a row of zeros.
        seed, columns, scale: as there.

    Returns:
        float32 (n, columns), on rows' device.

    Raises:
        TypeError, ValueError: an argument is not as above; the message names it.
    """
    _check(seed, columns, scale)
    if not isinstance(rows, Tensor):
        raise TypeError(f"rows: expected a torch.Tensor, got {type(rows).__name__}")
    if rows.is_nested:
        raise TypeError("rows: expected int64 (n,), got a nested tensor; use torch.cat of its parts")
    if rows.dim() != 1 or rows.dtype != torch.int64:
        raise TypeError(f"rows: expected int64 (n,), got {rows.dtype} {tuple(rows.shape)}")
    out = torch.empty(rows.shape[0], columns, dtype=torch.float32, device=rows.device)
    return _filled(out, rows, 0, seed, scale)


def _is_int(value: Any) -> bool:
    return isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool)


def _check(seed: int, columns: int, scale: float) -> None:
    for name, value, low, high in (("seed", seed, 0, (1 << 64) - 1), ("columns", columns, 1, MOST_COLUMNS)):
        if not _is_int(value):
            raise TypeError(f"{name}: expected int, got {type(value).__name__}")
        if not low <= value <= high:
            raise ValueError(f"{name}: expected {low} to {high}, got {value}")
    try:
        is_finite = math.isfinite(scale)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise TypeError(f"scale: expected a finite number, got {type(scale).__name__}") from None
    if not is_finite:
        raise ValueError(f"scale: expected a finite number, got {scale}")


def _check_device(device: Any) -> None:
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(
            f"device: expected a torch.device, cpu, cuda or cuda:N, got {str(device)[:80]!r}"
        ) from None
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device: expected one that torch sees, got {str(found)!r}")


def _filled(out: Tensor, rows: Tensor | None, first: int, seed: int, scale: float) -> Tensor:
    operator = torch.ops.naign.randn if _native.has_kernel(out) else torch.ops.naign.randn_reference
    # Operators take signed numbers: the same 64 bits.
    operator(out, rows, first, seed - (seed >> 63 << 64), float(scale))
    return out


@torch.library.custom_op("naign::randn_reference", mutates_args=("out",))
def _reference_operator(out: Tensor, rows: Tensor | None, first: int, seed: int, scale: float) -> None:
    randn_reference.randn(out, rows, first, seed & (1 << 64) - 1, scale)


def _fake(out: Tensor, rows: Tensor | None, first: int, seed: int, scale: float) -> None:
    del out, rows, first, seed, scale


torch.library.register_fake("naign::randn_reference", _fake)
if _native.extension is not None:
    torch.library.register_fake("naign::randn", _fake)
