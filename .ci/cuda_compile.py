"""Compiles every CUDA source for every architecture and looks at what the compiler made of it; needs no GPU.

A file passes when nvcc and ptxas give no warning, no kernel has a stack frame or spills registers, and its machine
code holds the instructions that its speed rests on (`EXPECTED`). The glue (csrc/*/binding_cuda.cpp) is compiled
against the headers of whatever torch is installed.

usage: cuda_compile.py [--nvcc NVCC] [--jobs N] [--root FOLDER] [--no-glue]
"""

from __future__ import annotations

import argparse
import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURES: dict[str, tuple[str, ...]] = runpy.run_path(str(ROOT / "csrc" / "cuda_architectures.py"))[
    "ARCHITECTURES"
]
# -gencode of each pass, by what it makes. PTX beside machine code is what that is made of.
TARGETS = {codes[0]: f"arch={arch},code={codes[0]}" for arch, codes in ARCHITECTURES.items()}
# ptxas compiles PTX alone for this architecture as well, to be sure that it can.
PTX_ON = {name: name.replace("compute_", "sm_") for name in TARGETS if name.startswith("compute_")}
NVCC_FLAGS = ["-std=c++20", "-O3", "--fmad=false", "-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra"]
GLUE_FLAGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-fvisibility=hidden"]


@dataclass(frozen=True)
class Expectation:
    """Every kernel of `file`, below csrc/, on `target` whose name matches `kernels` has an instruction for each opcode.

    At least one kernel must match. A file that is missing is an error.
    """

    file: str
    target: str
    kernels: str
    opcodes: tuple[str, ...]


LOAD_128 = r"LDG\.E(\.\w+)*\.128(\.\w+)*"
STORE_128 = r"STG\.E(\.\w+)*\.128(\.\w+)*"
EXPECTED = (
    Expectation(
        "fused_loss/cuda/fused_loss.cu", "sm_75", r"loss_of_piece.*Li256E.*Arguments", (LOAD_128, STORE_128)
    ),
    Expectation("fused_loss/cuda/fused_loss.cu", "sm_80", r"loss_of_piece.*Arguments", (LOAD_128, STORE_128)),
    Expectation(
        "fused_loss/cuda/fused_loss.cu", "sm_90a", r"loss_of_piece.*Arguments", (LOAD_128, STORE_128)
    ),
    Expectation("fused_loss/cuda/fused_loss.cu", "sm_90a", r"scale_all", (LOAD_128, STORE_128)),
    Expectation("randn/cuda/randn.cu", "sm_80", r"fill_randnILb1", (STORE_128,)),
    Expectation("randn/cuda/randn.cu", "sm_90a", r"fill_randnILb1", (STORE_128,)),
    Expectation("imle_knn/cuda/filter_sm90.cu", "sm_90a", r"filter", (r"(IGMMA|HGMMA)\b.*",)),
    Expectation("imle_knn/cuda/filter_sm80.cu", "sm_80", r"filter", (r"(IMMA|HMMA)\b.*",)),
)


@dataclass(frozen=True)
class Tools:
    """Programs that the gate runs."""

    nvcc: str
    cuobjdump: str
    environment: dict[str, str]


def run(command: list[str], environment: dict[str, str] | None = None) -> tuple[int, str]:
    """Exit status and output, standard error included."""
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    return done.returncode, done.stdout + done.stderr


def resource_faults(log: str) -> list[str]:
    """Kernels that ptxas says use local memory, and its remarks that an instruction is ignored or serialised."""
    faults = []
    function = "?"
    for line in log.splitlines():
        named = re.search(r"(?:Function properties for|Compiling entry function) '?(\w+)'?", line)
        function = named.group(1) if named else function
        if re.search(r"\b[1-9]\d* bytes (stack frame|spill stores|spill loads)", line):
            faults.append(f"{function}: {line.strip()}")
        elif re.search(r"\b(warning|advisory|ignored|performance loss)\b", line, re.IGNORECASE):
            faults.append(line.strip())
    return faults


def opcode_faults(machine_code: str, expectation: Expectation) -> list[str]:
    """Kernels of a disassembly that lack an expected instruction."""
    kernels: dict[str, set[str]] = {}
    current: set[str] = set()
    for line in machine_code.splitlines():
        header = re.match(r"\s*Function : (\S+)", line)
        if header:
            current = kernels.setdefault(header.group(1), set())
            continue
        instruction = re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", line)
        if instruction:
            current.add(instruction.group(1))
    chosen = {name: found for name, found in kernels.items() if re.search(expectation.kernels, name)}
    if not chosen:
        return [f"no kernel is named like {expectation.kernels!r}"]
    return [
        f"{name}: no instruction like {opcode}"
        for name, found in chosen.items()
        for opcode in expectation.opcodes
        if not any(re.fullmatch(opcode, instruction) for instruction in found)
    ]


def compile_one(
    tools: Tools, root: Path, source: Path, target: str, expected: tuple[Expectation, ...]
) -> tuple[str, list[str]]:
    """A line that says what was done, and what is wrong."""
    started = time.monotonic()
    name = str(source.relative_to(root / "csrc"))
    with tempfile.TemporaryDirectory() as folder:
        product = Path(folder) / ("out.ptx" if target in PTX_ON else "out.o")
        # An object, as setup.py makes it: code for the device alone would leave the pass for the host out.
        form = "-ptx" if target in PTX_ON else "-c"
        options = [*NVCC_FLAGS, "-Xptxas", "-v,-Werror", "-gencode", TARGETS[target], f"-I{root / 'csrc'}"]
        status, log = run([tools.nvcc, *options, form, str(source), "-o", str(product)], tools.environment)
        if status == 0 and target in PTX_ON:
            assembled = ["ptxas", "-v", f"-arch={PTX_ON[target]}", str(product), "-o", f"{folder}/out.cubin"]
            status, more = run(assembled, tools.environment)
            log += more
        faults = [f"does not compile:\n{log}"] if status else resource_faults(log)
        wanted = [e for e in expected if e.file == name and e.target == target]
        if wanted and not status:
            status, machine_code = run([tools.cuobjdump, "-sass", str(product)], tools.environment)
            faults += [f"cannot be disassembled:\n{machine_code}"] if status else []
            faults += [fault for e in wanted if not status for fault in opcode_faults(machine_code, e)]
    kernels = len(set(re.findall(r"Compiling entry function '(\w+)'", log)))
    line = f"{name} {target}: {kernels} kernels, {time.monotonic() - started:.0f} s"
    return line, [f"{name} {target}: {fault}" for fault in faults]


def missing_files(folder: Path, expected: tuple[Expectation, ...]) -> list[str]:
    """Files that the table names and that are not there."""
    names = {e.file for e in expected if not (folder / e.file).is_file()}
    return [
        f"{name}: the table of expected instructions names it, and it is missing" for name in sorted(names)
    ]


def compile_glue(tools: Tools, root: Path, source: Path) -> list[str]:
    """What is wrong with a file that joins a kernel to torch; nvcc adds CUDA's headers, the rest is C++."""
    from torch.utils.cpp_extension import include_paths

    system = [part for folder in include_paths() for part in ("-isystem", folder)]
    own = f"-I{root / 'csrc'}"
    options = ["-std=c++20", "-Xcompiler", ",".join(GLUE_FLAGS), own, *system]
    with tempfile.TemporaryDirectory() as folder:
        product = str(Path(folder) / "out.o")
        status, log = run([tools.nvcc, *options, "-c", str(source), "-o", product], tools.environment)
    return [f"{source.parent.name}/{source.name}: does not compile:\n{log}"] if status else []


def find_tools(nvcc: str) -> Tools:
    """The compiler, and the disassembler of the Python packages or of the toolkit."""
    packaged = Path(sysconfig.get_path("purelib")) / "nvidia" / "cu13" / "bin"
    path = os.pathsep.join([str(packaged), str(Path(nvcc).resolve().parent), os.environ.get("PATH", "")])
    cuobjdump = shutil.which("cuobjdump", path=path)
    if cuobjdump is None or shutil.which("nvdisasm", path=path) is None:
        raise SystemExit(
            "cuda-compile: cuobjdump and nvdisasm were not found;"
            " pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm"
        )
    return Tools(nvcc, cuobjdump, {**os.environ, "PATH": path})


def check(
    tools: Tools, root: Path, jobs: int, expected: tuple[Expectation, ...], *, glue: bool = True
) -> list[str]:
    """Everything that is wrong with the CUDA sources below `root`."""
    folder = root / "csrc"
    sources = sorted(folder.rglob("*.cu"))
    if not sources:
        return [f"{folder}: there are no CUDA sources"]
    faults = missing_files(folder, expected)
    with ThreadPoolExecutor(jobs) as pool:
        passes = [
            pool.submit(compile_one, tools, root, source, target, expected)
            for source in sources
            for target in TARGETS
        ]
        joined = sorted(folder.glob("*/binding_cuda.cpp")) if glue else []
        glued = [pool.submit(compile_glue, tools, root, source) for source in joined]
        for done in passes:
            line, found = done.result()
            print(f"cuda-compile: {line}{'' if not found else ', FAILED'}", flush=True)
            faults += found
        for source, compiled in zip(joined, glued, strict=True):
            found = compiled.result()
            print(
                f"cuda-compile: {source.relative_to(folder)}: glue{'' if not found else ', FAILED'}",
                flush=True,
            )
            faults += found
    return faults


def main() -> int:
    """Exit status: 0 where all is well or there is no nvcc, 1 where a source falls short."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else None)
    parser.add_argument("--nvcc", default=shutil.which("nvcc") or "")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--no-glue", action="store_true")
    chosen = parser.parse_args()
    if not chosen.nvcc:
        if os.environ.get("NAIGN_REQUIRE_NVCC") == "1":
            print("cuda-compile: NAIGN_REQUIRE_NVCC=1, but nvcc was not found")
            return 1
        print("cuda-compile: skipped, nvcc was not found")
        return 0
    faults = check(find_tools(chosen.nvcc), chosen.root, chosen.jobs, EXPECTED, glue=not chosen.no_glue)
    for fault in faults:
        print(f"cuda-compile: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
