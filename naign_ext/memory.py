"""Free memory of a device, and how many rows of a pool fit into a part of it."""

import os
import resource
from pathlib import Path

import torch
from torch import Tensor, nn

LARGEST_BYTES = {"cpu": 64 << 20, "cuda": 2 << 30}
"""What a chunk may take in activations at most; beyond it nothing gets faster."""

SHARE_OF_FREE = 8
SMALLEST_CHUNK, LARGEST_CHUNK = 8, 1 << 16


_CGROUPS = Path("/sys/fs/cgroup")
_LIMIT_AND_USED = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)
"""Files of control groups, of version 2 and 1."""
_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


class NotEnoughMemoryError(MemoryError):
    """What is asked for takes more memory than is free; none of it has been taken."""


def available_bytes(device: torch.device | str = "cpu") -> int:
    """Memory that can still be taken on the device; on the CPU within the limits of control group and process."""
    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return max(0, min([_meminfo_bytes(), *_control_group_bytes(), *_address_space_bytes()]))


def check_fits(what: str, needed: int, advice: str, device: torch.device | str = "cpu") -> None:
    """NotEnoughMemoryError, with what takes so many bytes and what to do, where they are not free."""
    free = available_bytes(device)
    if needed > free:
        raise NotEnoughMemoryError(
            f"memory: {what} takes at least {in_units(needed)}; {in_units(free)} are free on {device}; {advice}"
        )


def in_units(count: int) -> str:
    """A number of bytes for messages, such as 4.0 GB."""
    value, unit = float(count), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} bytes" if unit == 0 else f"{value:.3g} {_UNITS[unit]}"


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
    """What the system says is available; all it has where it does not say."""
    info = Path("/proc/meminfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _control_group_bytes() -> list[int]:
    """What is left of the control group's limit; files that the system keeps in memory only while it is free count as
    free."""
    found = []
    for limit, used in _LIMIT_AND_USED:
        most, now = _number(_CGROUPS / limit), _number(_CGROUPS / used)
        if most is not None and now is not None:
            found.append(most - now + min(now, _cached_bytes((_CGROUPS / used).with_name("memory.stat"))))
    return found


def _cached_bytes(statistics: Path) -> int:
    try:
        lines = statistics.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("inactive_file ", "active_file ")))


def _address_space_bytes() -> list[int]:
    """What is left of a limit on the process's addresses (ulimit -v)."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return []
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return [limit]
    return [limit - pages * resource.getpagesize()]


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
