"""Builds CUDA sources for the CPU, with tests/emulation in place of CUDA's own headers."""

import ctypes
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _compiled(folder: Path, source: Path) -> Path:
    product = folder / f"{source.name}.o"
    options = ["-std=c++20", "-O3", "-ffp-contract=off", "-fPIC", "-Wno-unknown-pragmas", "-x", "c++"]
    includes = [f"-I{ROOT / 'tests/emulation'}", f"-I{ROOT / 'csrc/include'}"]
    subprocess.run(["g++", *options, *includes, "-c", str(source), "-o", str(product)], check=True)
    return product


def build(folder: Path, stem: str) -> ctypes.CDLL:
    """The kernels csrc/cuda/<stem>*.cu behind the functions of tests/emulation/<stem>.cpp."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    sources = [*(ROOT / "csrc/cuda").glob(f"{stem}*.cu"), ROOT / f"tests/emulation/{stem}.cpp"]
    with ThreadPoolExecutor(2) as threads:
        products = list(threads.map(lambda source: _compiled(folder, source), sources))
    library = folder / f"{stem}.so"
    subprocess.run(["g++", "-shared", *map(str, products), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))
