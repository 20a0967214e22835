"""What the CUDA sources are compiled for: setup.py builds it, .ci/cuda_compile.py checks it."""

# Virtual architecture -> machine code, or PTX (compute_*) that a later driver compiles. compute_75 has no filter. The
# PTX of compute_80 serves what lies between the others: sm_100 and the like.
ARCHITECTURES = {
    "compute_75": ("sm_75",),
    "compute_80": ("sm_80", "compute_80"),
    "compute_90a": ("sm_90a",),
    "compute_120": ("compute_120",),
}
