"""The compile gate of the CUDA sources rejects what it is there to reject; needs nvcc, no GPU."""

import importlib.util
import re
import runpy
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]

GOOD = """
__global__ void copy(const float4* from, float4* to) { to[threadIdx.x] = from[threadIdx.x]; }
"""
SCALAR = """
__global__ void copy(const float* from, float* to) { to[threadIdx.x] = from[threadIdx.x]; }
"""
# Indexing by a number that only the device knows puts the array into local memory.
STACK = """
__global__ void copy(const float4* from, float4* to) {
  float4 all[32];
  for (int i = 0; i < 32; ++i) all[i] = from[i * 32 + threadIdx.x];
  to[threadIdx.x] = all[__float_as_int(from[0].x) & 31];
}
"""
# 96 numbers are alive at once, with registers for 32.
SPILLS = """
__global__ void __launch_bounds__(1024, 2) copy(const float4* from, float4* to) {
  float4 all[24];
#pragma unroll
  for (int i = 0; i < 24; ++i) all[i] = from[i * 1024 + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 24; ++i) to[i * 1024 + threadIdx.x] = all[23 - i];
}
"""
WARNS = """
__global__ void copy(const float4* from, float4* to) {
  int unused = 3;
  to[threadIdx.x] = from[threadIdx.x];
}
"""
# Which only the pass for the host forbids.
HOST = """
__device__ int answer() { return threadIdx.x; }
__host__ __device__ int either() { return answer(); }
""" + GOOD.replace("{", "{ either();", 1)


@pytest.fixture(scope="module")
def gate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cuda_compile", ROOT / ".ci" / "cuda_compile.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tools(gate: ModuleType) -> object:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("needs nvcc")
    return gate.find_tools(nvcc)


def faults(gate: ModuleType, tools: object, folder: Path, **sources: str) -> list[str]:
    """What the gate says of these sources, of which copy.cu must move 16 bytes at a time."""
    (folder / "csrc").mkdir(parents=True)
    for name, text in sources.items():
        (folder / "csrc" / f"{name}.cu").write_text(text)
    expected = tuple(
        gate.Expectation("copy.cu", target, "copy", (gate.LOAD_128, gate.STORE_128))
        for target in ("sm_75", "sm_80", "sm_90a")
    )
    return gate.check(tools, folder, 2, expected, glue=False)


def test_a_good_kernel_passes(gate: ModuleType, tools: object, tmp_path: Path) -> None:
    assert faults(gate, tools, tmp_path, copy=GOOD) == []


@pytest.mark.parametrize(
    ("source", "complaint", "targets"),
    [
        (SCALAR, "no instruction like LDG", 3),
        (SCALAR, "no instruction like STG", 3),
        (STACK, "stack frame", 3),
        (SPILLS, "spill stores", 3),
        (WARNS, "never referenced", 4),
        (GOOD.replace("copy", "other"), "no kernel is named like 'copy'", 3),
        ("int main( {", "does not compile", 4),
        (HOST, "does not compile", 3),
    ],
)
def test_faults_are_found_on_every_target(
    gate: ModuleType, tools: object, tmp_path: Path, source: str, complaint: str, targets: int
) -> None:
    found = faults(gate, tools, tmp_path, copy=source)
    assert len([fault for fault in found if complaint in fault]) >= targets


def test_an_instruction_that_the_oldest_device_lacks_is_found(
    gate: ModuleType, tools: object, tmp_path: Path
) -> None:
    source = "__global__ void copy(unsigned* at) { *at = __reduce_add_sync(~0u, *at); }"
    found = [fault for fault in faults(gate, tools, tmp_path, copy=source) if "does not compile" in fault]
    assert len(found) == 1 and "sm_75" in found[0]


def test_the_gate_looks_at_what_setup_builds(gate: ModuleType) -> None:
    """One list says what is built; the gate has a pass for each entry, and setup.py names none of its own."""
    listed = runpy.run_path(str(ROOT / "csrc" / "cuda_architectures.py"))["ARCHITECTURES"]
    assert set(listed) == {target.split(",")[0].removeprefix("arch=") for target in gate.TARGETS.values()}
    assert all(gate.TARGETS[codes[0]] == f"arch={arch},code={codes[0]}" for arch, codes in listed.items())
    setup = (ROOT / "setup.py").read_text()
    assert "cuda_architectures.py" in setup
    assert re.findall(r"(?:compute|sm)_\d+", setup) == []


def test_a_file_of_the_table_must_be_there(gate: ModuleType, tmp_path: Path) -> None:
    loss = gate.Expectation("loss/cuda/loss.cu", "sm_90a", "", ())
    knn = gate.Expectation("knn/cuda/filter.cu", "sm_90a", "", ())
    (tmp_path / "loss" / "cuda").mkdir(parents=True)
    (tmp_path / "loss" / "cuda" / "loss.cu").touch()
    assert [fault.split(":")[0] for fault in gate.missing_files(tmp_path, (loss, knn))] == [
        "knn/cuda/filter.cu"
    ]


def test_no_sources_is_a_fault(gate: ModuleType, tools: object, tmp_path: Path) -> None:
    assert faults(gate, tools, tmp_path)


def test_glue_that_does_not_compile_is_found(gate: ModuleType, tools: object, tmp_path: Path) -> None:
    source = tmp_path / "broken_cuda.cpp"
    source.write_text("#include <cuda_runtime_api.h>\nint f() { return cudaNoSuchThing; }\n")
    assert "cudaNoSuchThing" in gate.compile_glue(tools, tmp_path, source)[0]


def test_matrix_instructions_are_recognised(gate: ModuleType) -> None:
    code = """
        Function : knn_filter
    /*0000*/                   IGMMA.64x128x32.S8.S8 R24, gdesc[UR4], R24 ;
    /*0010*/              @!P0 LDG.E.EF.128.CONSTANT R4, desc[UR6][R2.64] ;
        Function : other
    /*0000*/                   HMMA.16816.F32.BF16 R4, R8, R2, R4 ;
    """
    expect = gate.Expectation("f.cu", "sm_90a", "filter", (r"(IGMMA|HGMMA)\b.*", gate.LOAD_128))
    assert gate.opcode_faults(code, expect) == []
    assert gate.opcode_faults(code, gate.Expectation("f.cu", "sm_90a", "other", (r"(IGMMA|HGMMA)\b.*",)))
    assert not gate.opcode_faults(code, gate.Expectation("f.cu", "sm_80", "other", (r"(IMMA|HMMA)\b.*",)))


def test_remarks_of_the_assembler_are_faults(gate: ModuleType) -> None:
    log = """
ptxas info    : Compiling entry function 'good' for 'sm_90a'
ptxas info    : Function properties for good
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 56 registers, used 1 barriers
ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized in 'bad'
ptxas info    : (C7508) Potential Performance Loss: 'setmaxnreg' ignored to maintain minimum registers
"""
    assert len(gate.resource_faults(log)) == 2
