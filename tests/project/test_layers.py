"""Imports go one way: down. The table is the layout of the project."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {"naign_ext": "naign_ext", "naign_cli": "cli", "naign_bench": "bench"}

# What each layer may import of ours, lowest last; a layer may always import itself. First match wins.
BELOW_SEARCH = {"ops", "_native", "seeds"}
BELOW_TRANSFORMS = {"distributed", *BELOW_SEARCH}
BELOW_DATA = {
    "file_errors",
    "memory",
    "transforms",
    "options",
    "registry",
    "untrusted",
    "vision",
    *BELOW_TRANSFORMS,
}
BELOW_OBJECTIVES = {"features", "search", "latents", "timer", *BELOW_DATA}
BELOW_CONFIG = {"devices", "objectives", "models", "data", *BELOW_OBJECTIVES}
BELOW_PROJECTOR = {"evaluation", "checkpoint", *BELOW_CONFIG}
BELOW_RUN = {"json_files", "projector", "pretrained", "config", "metrics_log", "run_lock", *BELOW_PROJECTOR}
BELOW_TRAINING = {"run", *BELOW_RUN}
FILES = {"json_files", "pictures"}
LAYERS: dict[str, set[str]] = {
    "naign_cli": {"naign_ext", "naign_bench"},
    "naign_bench": {"naign_ext"},
    "naign_ext.reproduce": {"report", "training", *FILES, *BELOW_TRAINING},
    "naign_ext.report": {"training", "pictures", *BELOW_TRAINING},
    "naign_ext.training": BELOW_TRAINING,
    "naign_ext.run": BELOW_RUN,
    "naign_ext.run_lock": {"config"},
    "naign_ext.projector": {"pretrained", *BELOW_PROJECTOR},
    "naign_ext.pretrained": BELOW_PROJECTOR,
    "naign_ext.evaluation": BELOW_CONFIG,
    "naign_ext.checkpoint": BELOW_CONFIG,
    "naign_ext.config": BELOW_CONFIG,
    "naign_ext.objectives": BELOW_OBJECTIVES,
    "naign_ext.data": BELOW_DATA,
    "naign_ext.features": {"memory", "options", "registry", "seeds", "vision"},
    "naign_ext.models": {"options", "registry"},
    "naign_ext.transforms": BELOW_TRANSFORMS,
    "naign_ext.distributed": BELOW_SEARCH,
    "naign_ext.latents": BELOW_SEARCH,
    "naign_ext.search": BELOW_SEARCH,
    "naign_ext.devices": set(),
    "naign_ext.file_errors": set(),
    "naign_ext.json_files": {"options", "untrusted"},
    "naign_ext.pictures": set(),
    "naign_ext.metrics_log": {"file_errors", "json_files", "untrusted"},
    "naign_ext.memory": set(),
    "naign_ext.untrusted": {"options"},
    "naign_ext.options": {"registry"},
    "naign_ext.registry": set(),
    "naign_ext.seeds": set(),
    "naign_ext.timer": set(),
    "naign_ext.vision": set(),
    "naign_ext.ops": {"_native"},
    "naign_ext._native": {"_C"},
    "naign_ext": {"ops", "search", "projector"},
}


def modules() -> list[tuple[str, Path]]:
    found = []
    for package, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            name = ".".join([package, *(p for p in parts if p != "__init__")])
            found.append((name, path))
    return found


def imports(source: str) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a name comes from"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] in FOLDERS}


def layer_of(module: str) -> str:
    return max((layer for layer in LAYERS if module == layer or module.startswith(layer + ".")), key=len)


def violations(module: str, source: str) -> list[str]:
    layer = layer_of(module)
    allowed = LAYERS[layer]
    bad = []
    for name in imports(source):
        package, _, rest = name.partition(".")
        target = rest.split(".")[0] if package == "naign_ext" else package
        inside = package == "naign_ext" and layer.startswith("naign_ext.") and target == layer.split(".")[1]
        outside = layer in ("naign_cli", "naign_bench") and (package in allowed or package == layer)
        public = package == "naign_ext" and target in (
            "imle_knn",
            "fused_loss",
            "ImleSearch",
            "Neighbours",
            "FusedLoss",
            "FusedTerms",
        )
        public = public and "ops" in allowed
        if not (inside or outside or public or target in allowed or target == "__version__"):
            bad.append(f"{module} imports {name}, which is not below {layer}")
    return bad


@pytest.mark.parametrize(
    ("module", "path"), modules(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_imports_go_down(module: str, path: Path) -> None:
    assert violations(module, path.read_text()) == []


def test_the_check_can_fail() -> None:
    assert violations("naign_ext.ops.imle_knn", "from naign_ext.search import ImleSearch")
    assert violations("naign_ext.models.mlp", "import naign_ext.ops")
    assert violations("naign_ext.run", "from naign_ext.training.trainer import train")
    assert violations("naign_ext.projector", "from naign_ext.run import Run")
    assert violations("naign_bench.peers", "import naign_cli.main")
    assert not violations("naign_ext.objectives.naign", "from naign_ext import fused_loss")


BINDINGS = ("binding.cpp", "binding.h", "binding_cuda.cpp", "module.cpp")
GLUE = ("tensors.h", "cuda_stream.h", "handle.h", "handle.cpp")
KERNELS = sorted(
    p for p in (ROOT / "csrc").rglob("*.*") if p.name not in (*BINDINGS, *GLUE) and p.suffix != ".md"
)


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.name)
def test_kernels_know_no_framework(path: Path) -> None:
    included = [line for line in path.read_text().splitlines() if line.startswith("#include")]
    assert not [
        line
        for line in included
        if any(word in line for word in ("torch", "ATen", "c10", "pybind11", "Python"))
    ]
