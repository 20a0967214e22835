"""The only place that imports torchvision.

A torchvision built against a CUDA torch stops at import beside a CPU torch, because its operators are not
loaded and it registers fake kernels for two of them. Declaring these two schemas first lets the pure-Python
parts (data sets, downloads) be used; calling the operators themselves still fails, as it must.
"""

import importlib
import sys
from types import ModuleType

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
# A torch.library.Library takes its definitions along when it is collected.
_libraries: list[torch.library.Library] = []


def _forget_partial_import() -> None:
    for name in [n for n in sys.modules if n == "torchvision" or n.startswith("torchvision.")]:
        del sys.modules[name]


def _declare_missing_schemas() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS:
        if not hasattr(torch.ops.torchvision, schema.split("(")[0]):
            library.define(schema)  # type: ignore[no-untyped-call]
    _libraries.append(library)


def import_torchvision(submodule: str | None = None) -> ModuleType:
    """torchvision, or its submodule such as ``"datasets"``; works beside a torch that it was not built for.

    Raises:
        ImportError: torchvision is not installed, or unusable for another reason.
    """
    name = "torchvision" if submodule is None else f"torchvision.{submodule}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ImportError("torchvision is not installed. Install it with: pip install torchvision") from error
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    _forget_partial_import()
    _declare_missing_schemas()
    return importlib.import_module(name)
