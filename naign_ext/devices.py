"""Where to compute: auto, cpu, cuda or cuda:N, wherever a device is named."""

import re

import torch

EXPECTED = "expected auto, cpu, cuda or cuda:N"
_NAMES = re.compile(r"auto|cpu|cuda(:\d{1,3})?", re.ASCII)


def is_device_name(name: str) -> bool:
    """Whether the text names a device; it need not be there."""
    return _NAMES.fullmatch(name) is not None


def choose_device(wanted: torch.device | str | None) -> torch.device:
    """The device of a name; None and auto are CUDA where there is one, else the CPU.

    Raises:
        ValueError: no such name, or a device that is not there.
    """
    name = "auto" if wanted is None else str(wanted)
    if not is_device_name(name):
        raise ValueError(f"device: {EXPECTED}, got {name!r}")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device: expected one that torch sees, got {name!r}; use device=cpu")
    return device
