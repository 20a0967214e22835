"""The compiled extension, if it is there, and what is known about it."""

import functools
import importlib
import os
import warnings
from types import ModuleType
from typing import Any

import torch

NATIVE_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def _load() -> tuple[ModuleType | None, str]:
    if os.environ.get("NAIGN_DISABLE_EXTENSION") == "1":
        return None, "disabled by NAIGN_DISABLE_EXTENSION=1"
    try:
        return importlib.import_module("naign_ext._C"), ""
    except ImportError as error:
        return None, f"{error}; build it with `pip install --no-build-isolation .` (needs g++ with C++20)"


extension, missing_because = _load()
_build: dict[str, Any] = {} if extension is None else extension.build_info()

# Known at import, so that torch.compile sees constants.
DEVICES_WITH_KERNELS = tuple(
    device for device, there in (("cpu", extension is not None), ("cuda", _build.get("cuda", False))) if there
)

# More neighbours than this are found by the reference on CUDA devices.
LARGEST_K_ON_CUDA: int = _build.get("largest_k_on_cuda", 0)


@functools.cache
def _warn_once(device_type: str) -> None:
    reason = missing_because or f"the extension has no kernels for {device_type}"
    text = f"naign uses its torch reference on {device_type}, exact but slower: {reason}"
    warnings.warn(text, RuntimeWarning, stacklevel=4)


def has_kernel(*tensors: torch.Tensor | None) -> bool:
    """True where the extension has a kernel for the device and the dtypes of these tensors."""
    device_type = "cpu"
    for tensor in tensors:
        if tensor is None:
            continue
        if tensor.dtype not in NATIVE_DTYPES:
            return False
        device_type = tensor.device.type
    if device_type in DEVICES_WITH_KERNELS:
        return True
    if not torch.compiler.is_compiling():
        _warn_once(device_type)
    return False


def status() -> dict[str, Any]:
    """What `naign doctor` shows about the extension: plain values, JSON-able."""
    there = extension is not None
    return {
        "extension": there,
        "reason": missing_because,
        "isa": extension.isa() if extension is not None else "torch reference",
        "cpu_features": extension.cpu_features() if extension is not None else {},
        "cuda_built": _build.get("cuda", False),
        "cuda_reason": _build.get("cuda_reason", "no compiled extension"),
        "build": _build,
        "threads": torch.get_num_threads(),
    }
