"""Instruction sets, the fallback without an extension, and what a build says of itself."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from naign_ext import _native

ROOT = Path(__file__).parents[2]
ISAS = ("avx512", "avx2", "portable")

ANSWERS = """
import hashlib, sys, torch
from naign_ext import ImleSearch, _native, fused_loss, imle_knn
torch.set_num_threads(int(sys.argv[1]))
digest = hashlib.sha256()
for seed, (n, m, d, k) in enumerate([(70, 900, 33, 1), (33, 500, 784, 3), (9, 300, 1500, 2), (200, 4000, 3, 1)]):
    g = torch.Generator().manual_seed(seed)
    data, pool = torch.randn(n, d, generator=g), torch.randn(m, d, generator=g)
    pool[m // 2:] = pool[:m - m // 2].nextafter(pool[:m - m // 2] + 1)
    for found in (imle_knn(data, pool, k), imle_knn(data.half(), pool.bfloat16(), k),
                  imle_knn(data, pool, k, reject_below=float(d)), ImleSearch(data, k).update(pool).neighbours()):
        digest.update(found.indices.numpy().tobytes())
        digest.update(found.distances.numpy().tobytes())
    loss = fused_loss(data, data + 1, data * 2)
    digest.update(loss.total.numpy().tobytes())
print(_native.status()["isa"], digest.hexdigest())
"""


def run(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        cwd=ROOT,
        check=False,
    )


def supported(isa: str) -> bool:
    return _native.status()["cpu_features"].get(isa, True)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.slow
def test_every_other_instruction_set_passes_the_exactness_tests(isa: str) -> None:
    if not supported(isa):
        pytest.skip(f"this processor has no {isa}")
    if isa == _native.status()["isa"]:
        pytest.skip(f"{isa} is what the tests in this process run on")
    tests = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not slow"]
    environment = {**os.environ, "NAIGN_ISA": isa}
    done = subprocess.run(
        [*tests, "tests/ops/test_imle_knn.py", "tests/test_search.py"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout


@pytest.mark.slow
def test_all_instruction_sets_and_thread_counts_answer_alike() -> None:
    answers = {}
    for isa in filter(supported, ISAS):
        for threads in ("1", "3"):
            done = run(ANSWERS, threads, NAIGN_ISA=isa)
            assert done.returncode == 0, done.stderr
            used, digest = done.stdout.split()
            assert used == isa
            answers[isa, threads] = digest
    assert len(set(answers.values())) == 1, answers


def test_an_unknown_instruction_set_is_refused() -> None:
    done = run("import naign_ext; print(naign_ext._native.status()['isa'])", NAIGN_ISA="mmx")
    assert done.returncode != 0
    assert "NAIGN_ISA: expected avx512, avx2 or portable, got 'mmx'" in done.stderr


def test_without_the_extension_the_reference_answers_and_says_so_once() -> None:
    code = """
import torch, naign_ext
from naign_ext.ops import reference
g = torch.Generator().manual_seed(0)
data, pool = torch.randn(20, 8, generator=g), torch.randn(90, 8, generator=g)
for _ in range(3):
    found = naign_ext.imle_knn(data, pool, 2)
    assert torch.equal(naign_ext.ImleSearch(data, 2).update(pool).neighbours().indices, found.indices)
    naign_ext.fused_loss(data, data + 1)
assert torch.equal(found.indices, reference.imle_knn(data, pool, 2, None)[1])
import json
print(json.dumps(naign_ext._native.status()))
"""
    done = run(code, NAIGN_DISABLE_EXTENSION="1")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("RuntimeWarning: naign uses its torch reference on cpu") == 1
    status = json.loads(done.stdout)
    assert status["extension"] is False
    assert "NAIGN_DISABLE_EXTENSION" in status["reason"]


def test_the_build_describes_itself() -> None:
    status = _native.status()
    assert status["extension"] is True
    assert status["isa"] in ISAS
    assert status["cuda_reason"]
    assert status["build"]["cplusplus"] >= 202002


def test_the_glue_names_nothing_that_the_oldest_torch_lacks() -> None:
    """TORCH_TARGET_VERSION hides what is newer than torch 2.11, but not these macros of later headers."""
    later = ("STABLE_TORCH_ERROR_CODE_CHECK", "TORCH_DYNAMIC_VERSION_CALL", "TORCH_UTILS_CHECK")
    for source in (ROOT / "csrc").rglob("binding*"):
        assert not [name for name in later if re.search(rf"\b{name}", source.read_text())], source.name


def test_import_is_light() -> None:
    code = "import sys, naign_ext; print(*sorted(m for m in sys.modules if '.' not in m))"
    modules = set(run(code).stdout.split())
    assert "naign_ext" in modules
    assert not modules & {
        "pydantic",
        "typer",
        "torchvision",
        "sklearn",
        "skimage",
        "matplotlib",
        "scipy",
        "PIL",
    }
