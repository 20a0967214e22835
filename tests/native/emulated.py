"""Builds CUDA sources for the CPU, with tests/native/emulation in place of CUDA's own headers."""

import ctypes
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _compiled(folder: Path, source: Path) -> Path:
    product = folder / f"{source.name}.o"
    options = ["-std=c++20", "-O3", "-ffp-contract=off", "-fPIC", "-Wno-unknown-pragmas", "-x", "c++"]
    includes = [f"-I{ROOT / 'tests/native/emulation'}", f"-I{ROOT / 'csrc'}"]
    subprocess.run(["g++", *options, *includes, "-c", str(source), "-o", str(product)], check=True)
    return product


def build(folder: Path, family: str) -> ctypes.CDLL:
    """The kernels csrc/<family>/cuda/*.cu behind the functions of tests/native/emulation/<family>.cpp."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    sources = [*(ROOT / f"csrc/{family}/cuda").glob("*.cu"), ROOT / f"tests/native/emulation/{family}.cpp"]
    with ThreadPoolExecutor(2) as threads:
        products = list(threads.map(lambda source: _compiled(folder, source), sources))
    library = folder / f"{family}.so"
    subprocess.run(["g++", "-shared", *map(str, products), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))
