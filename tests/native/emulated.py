"""Builds C++ tests with g++: CUDA sources with tests/native/emulation in place of CUDA's own headers."""

import ctypes
import fcntl
import hashlib
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EMULATION = ROOT / "tests/native/emulation"
# Objects are compiled once, whatever the number of processes that run tests.
OBJECTS = ROOT / "build/native-tests"
# -ffp-contract=off: sums and products round as the kernels' do. A signed overflow ends the program.
OPTIONS = ["-std=c++20", "-O3", "-ffp-contract=off", "-fPIC", "-Wno-unknown-pragmas", "-x", "c++"]
OPTIONS += ["-fsanitize=signed-integer-overflow", "-fsanitize-undefined-trap-on-error"]
INCLUDES = [f"-I{EMULATION}", f"-I{ROOT / 'csrc'}"]


def _inputs() -> str:
    """A digest of everything that an object may depend on."""
    digest = hashlib.sha256(" ".join(OPTIONS).encode())
    for folder in (ROOT / "csrc", ROOT / "tests/native"):
        for path in sorted(folder.rglob("*.*")):
            if path.suffix in (".cu", ".cuh", ".h", ".inc", ".cpp"):
                digest.update(str(path).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _object(source: Path, inputs: str) -> Path:
    """The compiled source; another process that wants it waits."""
    OBJECTS.mkdir(parents=True, exist_ok=True)
    product = OBJECTS / ("+".join(source.relative_to(ROOT).parts) + ".o")
    made_from = product.with_suffix(".inputs")
    with product.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (product.exists() and made_from.exists() and made_from.read_text() == inputs):
            subprocess.run(["g++", *OPTIONS, *INCLUDES, "-c", str(source), "-o", str(product)], check=True)
            made_from.write_text(inputs)
    return product


def _linked(product: Path, sources: list[Path], *options: str) -> Path:
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    inputs = _inputs()
    with ThreadPoolExecutor(2) as threads:
        objects = list(threads.map(lambda source: str(_object(source, inputs)), sources))
    subprocess.run(["g++", *options, *objects, "-o", str(product)], check=True)
    return product


def build(folder: Path, family: str) -> ctypes.CDLL:
    """The kernels of a family behind the functions of tests/native/emulation/<family>.cpp, linked in `folder`."""
    cuda = ROOT / "csrc" / family / "cuda"
    sources = [*sorted(cuda.glob("*.cu")), *sorted(cuda.glob("*.cpp")), EMULATION / f"{family}.cpp"]
    return ctypes.CDLL(str(_linked(folder / f"{family}.so", sources, "-shared")))


def build_program(folder: Path, *sources: str) -> Path:
    """A program of these sources, paths from the root of the repository, linked in `folder`."""
    return _linked(folder / Path(sources[0]).stem, [ROOT / source for source in sources])
