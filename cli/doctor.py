"""`naign doctor`: what is installed, and which kernels run here."""

import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from naign_cli.arguments import Json
from naign_cli.guard import guarded
from naign_cli.output import print_json, print_table, results

PACKAGES = (
    "naign",
    "torch",
    "numpy",
    "torchvision",
    "typer",
    "rich",
    "pydantic",
    "safetensors",
    "huggingface_hub",
    "tensorboard",
    "matplotlib",
    "scipy",
    "scikit-image",
    "scikit-learn",
    "mlxtend",
    "pillow",
    "gdown",
    "faiss-cpu",
)


@guarded
def doctor(*, json: Json = False) -> None:
    """Show versions, whether the compiled extension is there, the instruction set it chose, CUDA and
    threads."""
    found = examine()
    if json:
        print_json(found)
        return
    extension = found["extension"]
    features = [name for name, has in extension["cpu_features"].items() if has]
    lines = [
        ["python", f"{found['python']}, {found['platform']}"],
        ["extension", "built" if extension["extension"] else f"missing: {extension['reason']}"],
        [
            "kernels for",
            extension["isa"] + (f" (this processor has {', '.join(features)})" if features else ""),
        ],
        ["CUDA kernels", "built" if extension["cuda_built"] else f"not built: {extension['cuda_reason']}"],
        ["CUDA devices", ", ".join(found["cuda_devices"]) or "none that torch sees"],
        ["threads", f"{extension['threads']} of {found['cores']} cores"],
        ["compilers", ", ".join(f"{k} {v}" for k, v in found["compilers"].items() if v) or "none found"],
    ]
    print_table("", ["", " "], lines)
    results().print()
    print_table("packages", ["", " "], [[k, v or "not installed"] for k, v in found["packages"].items()])
    if not extension["extension"]:
        results().print("\nnaign works without the extension, through torch and more slowly.")


def examine() -> dict[str, Any]:
    """Everything the command shows, JSON-able."""
    import os

    import torch

    from naign_ext._native import status

    devices = range(torch.cuda.device_count())
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "extension": status(),
        "cuda_devices": [torch.cuda.get_device_name(i) for i in devices],
        "torch_cuda": torch.version.cuda,
        "compilers": {name: shutil.which(name) for name in ("g++", "nvcc", "ninja")},
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
