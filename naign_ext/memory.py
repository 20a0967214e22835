"""Free memory of a device, and how many rows of a pool fit into a part of it."""

from pathlib import Path

import torch
from torch import Tensor, nn

LARGEST_BYTES = {"cpu": 64 << 20, "cuda": 2 << 30}
"""What a chunk may take in activations at most; beyond it nothing gets faster."""

SHARE_OF_FREE = 8
SMALLEST_CHUNK, LARGEST_CHUNK = 8, 1 << 16


def available_bytes(device: torch.device | str = "cpu") -> int:
    """Memory that can still be taken on the device; on the CPU within the limit of the control group."""
    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = _meminfo_bytes()
    limit, used = (_number(Path("/sys/fs/cgroup") / name) for name in ("memory.max", "memory.current"))
    return free if limit is None or used is None else max(0, min(free, limit - used))


def bytes_per_row(f: nn.Module, shape: tuple[int, ...], device: torch.device | str) -> int:
    """Bytes that one row (of this shape) leaves behind on its way through f: inputs and outputs of all its layers.

    Measured on a pass of two rows in evaluation mode without gradients. More than f holds at any moment, since
    without gradients a layer's input is freed when it is done.
    """
    counted = [0]

    def count(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        counted[0] += sum(t.nbytes for t in (*inputs, output) if isinstance(t, Tensor))

    layers = [m for m in f.modules() if not any(True for _ in m.children())]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    training = f.training
    f.eval()
    try:
        with torch.inference_mode():
            f(torch.zeros(2, *shape, device=device))
    finally:
        f.train(training)
        for hook in hooks:
            hook.remove()
    return max(1, counted[0] // 2)


def automatic_chunk(row_bytes: int, device: torch.device | str) -> int:
    """Rows of a pool to hold at a time: a power of two whose activations fill at most an eighth of free memory.

    Between 8 and 65536. Where memory is not short it depends on row_bytes and the kind of device alone, so that a
    repeated run has the same chunks.
    """
    device = torch.device(device)
    budget = min(available_bytes(device) // SHARE_OF_FREE, LARGEST_BYTES[device.type])
    rows = max(1, budget // row_bytes)
    return min(LARGEST_CHUNK, max(SMALLEST_CHUNK, 1 << (rows.bit_length() - 1)))


def _meminfo_bytes() -> int:
    info = Path("/proc/meminfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else 2 << 30


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
