"""What the machine itself can do, through torch: matrix products of each type and the copy of a large array.

Rates are the best of several runs and sizes, since a peak is an upper bound. They are the ceilings in tables
and plots, measured in the same process with the same threads as the peers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from naign_bench.harness import Clock, device_kind
from torch import Tensor

_SIDES = {"cpu": (512, 1024, 2048), "cuda": (4096, 8192)}
_COPY_BYTES = {"cpu": 1 << 28, "cuda": 1 << 30}
_RUNS = 3


def measure_peaks(device: str = "cpu") -> dict[str, Any]:
    """Peaks of the device with torch's current threads; null where torch has no such operator.

    fp32_gflops, tf32_gflops (CUDA), bf16_gflops, int8_gops: 10^9 operations / s of a square matrix product.
    copy_gbs: 10^9 bytes / s, read and written counted. A pause of the machine can only lower them.
    """
    peaks: dict[str, Any] = {
        "fp32_gflops": _best_rate(device, _product(device, torch.float32)),
        "tf32_gflops": _tf32_rate(device),
        "bf16_gflops": _best_rate(device, _product(device, torch.bfloat16)),
        "int8_gops": _best_rate(device, _int8_product(device)),
        "copy_gbs": copy_rate(device),
    }
    return peaks


def copy_rate(device: str = "cpu", size: int | None = None) -> float:
    """10^9 bytes read and written per second when an array of `size` bytes is copied."""
    kind = device_kind(device)
    size = _COPY_BYTES[kind] if size is None else size
    source = torch.rand(size // 4, device=device)
    target = torch.ones_like(source)
    seconds = _fastest(device, lambda: target.copy_(source))
    return 2 * source.nbytes / seconds * 1e-9


def _product(device: str, dtype: torch.dtype) -> Callable[[int], Callable[[], Any]]:
    def build(side: int) -> Callable[[], Any]:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        return lambda: torch.mm(a, b.T, out=out)

    return build


def _int8_product(device: str) -> Callable[[int], Callable[[], Tensor]]:
    def build(side: int) -> Callable[[], Tensor]:
        a, b = (torch.randint(-127, 128, (side, side), dtype=torch.int8, device=device) for _ in range(2))
        return lambda: torch._int_mm(a, b.T)

    return build


def _tf32_rate(device: str) -> float | None:
    if not device.startswith("cuda"):
        return None
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        return _best_rate(device, _product(device, torch.float32))
    finally:
        torch.set_float32_matmul_precision(before)


def _best_rate(device: str, build: Callable[[int], Callable[[], Any]]) -> float | None:
    """Best 10^9 operations / s over the sides; None where torch has no such product.

    A larger side is tried only while the last took less than half a second: without hardware for its type a
    product can be hundreds of times slower.
    """
    best = None
    for side in _SIDES[device_kind(device)]:
        try:
            seconds = _fastest(device, build(side))
        except (RuntimeError, NotImplementedError):
            return best
        best = max(best or 0.0, 2.0 * side**3 / seconds * 1e-9)
        if seconds > 0.5:
            break
    return best


def _fastest(device: str, call: Callable[[], Any]) -> float:
    clock = Clock(device)
    first = clock(call)[0]
    runs = _RUNS if first > 0.2 else 3 * _RUNS
    return min(clock(call)[0] for _ in range(runs))
