"""Builds naign_ext._C.

Environment: NAIGN_CUDA=auto|0|1, NAIGN_REQUIRE_EXTENSION=1, NAIGN_DEBUG_SYMBOLS=1, MAX_JOBS.

NAIGN_DEBUG_SYMBOLS=1 keeps what debuggers and profilers read, the source lines of host and device code; the
library is eleven times as large with it. Without it the compilers are told -g0, whatever Python's own flags say.

Without torch in the build environment, or without a working compiler, the package is installed without the
extension and runs on its torch reference; NAIGN_REQUIRE_EXTENSION=1 makes that an error.
"""

import os
import runpy
import shutil
import sys
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
REQUIRED = os.environ.get("NAIGN_REQUIRE_EXTENSION") == "1"
DEBUG_SYMBOLS = os.environ.get("NAIGN_DEBUG_SYMBOLS") == "1"


def cuda_state() -> tuple[bool, str]:
    """Whether to build the CUDA sources, and why; never decided by whether a GPU is visible."""
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    choice = os.environ.get("NAIGN_CUDA", "auto")
    if choice not in ("auto", "0", "1"):
        raise SystemExit(f"NAIGN_CUDA: expected auto, 0 or 1, got {choice!r}")
    if choice == "0":
        return False, "NAIGN_CUDA=0 at build time"
    missing = []
    if torch.version.cuda is None:
        missing.append(f"torch {torch.__version__} has no CUDA")
    elif CUDA_HOME is None or shutil.which("nvcc", path=str(Path(CUDA_HOME) / "bin")) is None:
        missing.append("nvcc was not found (set CUDA_HOME)")
    if missing and choice == "1":
        raise SystemExit(f"NAIGN_CUDA=1, but {' and '.join(missing)}")
    return (False, " and ".join(missing)) if missing else (True, f"built for CUDA {torch.version.cuda}")


def sources(*, cuda: bool) -> list[str]:
    """Every kernel and every binding; those for CUDA lie in folders of that name, or are *_cuda.cpp."""
    files = [p for p in (ROOT / "csrc").rglob("*") if p.suffix in (".cpp", ".cu")]
    chosen = [p for p in files if cuda or not (p.parent.name == "cuda" or p.stem.endswith("_cuda"))]
    return sorted(str(p.relative_to(ROOT)) for p in chosen)


def extension() -> tuple[list, dict]:
    import pybind11
    import torch
    from torch.utils import cpp_extension

    cuda, reason = cuda_state()
    host_flags = ["-std=c++20", "-O3", "-fno-math-errno", "-ffp-contract=off", "-fvisibility=hidden"]
    host_flags += ["-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-psabi", "-Wno-maybe-uninitialized"]
    host_flags += ["-Wno-unused-function", "-g" if DEBUG_SYMBOLS else "-g0"]
    device_flags = ["-std=c++20", "-O3", "--fmad=false", "--threads=4", "-Xcompiler=-fvisibility=hidden"]
    architectures = runpy.run_path(str(ROOT / "csrc" / "cuda_architectures.py"))["ARCHITECTURES"]
    device_flags += [
        f"-gencode=arch={arch},code=[{','.join(codes)}]" for arch, codes in architectures.items()
    ]
    device_flags += ["-Xcompiler=-g", "-lineinfo"] if DEBUG_SYMBOLS else ["-Xcompiler=-g0"]
    make = cpp_extension.CUDAExtension if cuda else cpp_extension.CppExtension
    built = make(
        "naign_ext._C",
        sources(cuda=cuda),
        include_dirs=[str(ROOT / "csrc"), pybind11.get_include()],
        define_macros=[
            ("NAIGN_BUILD_TORCH", f'"{torch.__version__}"'),
            ("NAIGN_BUILD_CUDA", str(int(cuda))),
            ("NAIGN_BUILD_CUDA_REASON", f'"{reason}"'),
        ],
        extra_compile_args={"cxx": host_flags, "nvcc": device_flags},
        # torch catches what the operators throw, which takes one libstdc++ for both. A compiler that finds the archive
        # first would link a second one into the extension, and every error would end the process.
        extra_link_args=["-l:libstdc++.so.6"] if sys.platform == "linux" else [],
    )

    class Build(cpp_extension.BuildExtension):
        """Compiles, or leaves the extension out with a message when the compiler fails."""

        def run(self) -> None:
            try:
                super().run()
            except Exception as error:
                if REQUIRED:
                    raise
                print(f"naign: installed without its extension, the build failed: {error}", file=sys.stderr)
                self.extensions = []

    return [built], {"build_ext": Build.with_options(use_ninja=shutil.which("ninja") is not None)}


def configuration() -> dict:
    try:
        modules, commands = extension()
    except ImportError as error:
        if REQUIRED:
            raise SystemExit(f"NAIGN_REQUIRE_EXTENSION=1, but {error}; use --no-build-isolation") from error
        print(f"naign: building without the extension ({error}); use --no-build-isolation", file=sys.stderr)
        return {}
    return {"ext_modules": modules, "cmdclass": commands}


setup(**configuration())
