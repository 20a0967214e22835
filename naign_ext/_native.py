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


@functools.cache
def _warn_once(device_type: str) -> None:
    if extension is None:
        text = f"naign runs on its torch reference, which is slower: no compiled extension ({missing_because})"
    else:
        text = f"naign runs on its torch reference on {device_type}: the extension has no kernels for this device"
    warnings.warn(text, RuntimeWarning, stacklevel=4)


def has_kernel(*tensors: torch.Tensor | None) -> bool:
    """True where the extension has a kernel for the device and the dtypes of these tensors."""
    present = [t for t in tensors if t is not None]
    device_type = present[0].device.type
    if any(t.dtype not in NATIVE_DTYPES for t in present):
        return False
    if extension is not None and (device_type == "cpu" or (device_type == "cuda" and extension.build_info()["cuda"])):
        return True
    if not torch.compiler.is_compiling():
        _warn_once(device_type)
    return False


def status() -> dict[str, Any]:
    """What `naign doctor` shows: extension, reason, isa, cpu_features, cuda_built, cuda_reason, threads."""
    if extension is None:
        found: dict[str, Any] = {"isa": "torch reference", "cpu_features": {}, "cuda_built": False}
        found["cuda_reason"] = "no compiled extension"
        found["build"] = {}
    else:
        build = extension.build_info()
        found = {"isa": extension.isa(), "cpu_features": extension.cpu_features(), "cuda_built": build["cuda"]}
        found["cuda_reason"] = build["cuda_reason"]
        found["build"] = build
    return {"extension": extension is not None, "reason": missing_because, "threads": torch.get_num_threads(), **found}
