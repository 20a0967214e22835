"""The peers of the exact search: ways to find the k nearest of M pool rows for each of N data rows.

Every peer receives the pool as if it had just been generated: what depends on the pool (norms, conversion,
trees) is done inside its timing. What depends on the data alone is prepared by the peer called "prepared".
The bare matrix products find nothing: they are the ceilings of every method that needs all N M D products.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from naign_bench.harness import OURS, Absent, Peer
from naign_bench.oracle import Truth, compare
from torch import Tensor

from naign_ext.memory import available_bytes

PREPARED = "naign prepared"
# Elements of a block of scores and rows of data in it: for torch on the CPU, where blocks stay in the cache, the
# fastest powers of two over shapes from (100, 10000, 3072) to (20000, 4000, 64); on a GPU enough to fill it.
_BLOCK = {"cpu": 1 << 20, "cuda": 1 << 26}
_ROWS = {"cpu": 1024, "cuda": 8192}
_CDIST_BYTES = {"cpu": 2 << 30, "cuda": 32 << 30}
Answer = tuple[Tensor, Tensor | None]


class Unavailable(Exception):
    """A peer cannot run here; the message says why."""


@dataclass(frozen=True)
class Problem:
    """data (N, D) and pool (M, D), or (B, N, D) and (B, M, D); neighbours wanted; the truth where known."""

    data: Tensor
    pool: Tensor
    k: int
    threads: int
    known: Truth | None = None

    @property
    def device(self) -> str:
        return self.data.device.type

    @property
    def batched(self) -> bool:
        return self.data.dim() == 3


Build = Callable[[Problem], Callable[[], Any]]


@dataclass(frozen=True)
class Entry:
    """How a peer is built, where it runs, and how indices and distances are read from its answer."""

    build: Build
    devices: tuple[str, ...] = ("cpu", "cuda")
    read: Callable[[Any], Answer] | None = None


def peer_names(device: str) -> list[str]:
    """Names of the peers that belong to a device, in the order of the tables."""
    return [name for name, entry in PEERS.items() if device in entry.devices]


def build_peer(name: str, problem: Problem) -> Peer | Absent:
    """The peer of this name for this problem, or why there is none."""
    if name not in PEERS:
        raise ValueError(f"peers: expected names among {list(PEERS)}, got {name!r}")
    entry = PEERS[name]
    if problem.device not in entry.devices:
        return Absent(name, f"does not run on {problem.device}")
    try:
        call = entry.build(problem)
    except Unavailable as reason:
        return Absent(name, str(reason))
    except ImportError as error:
        return Absent(name, f"cannot be imported: {error}")
    known, read = problem.known, entry.read
    if known is None or read is None:
        return Peer(name, call)

    def check(answer: Any) -> Any:
        indices, distances = read(answer)
        return compare(known, problem.data, problem.pool, indices, distances)

    return Peer(name, call, check)


def _naign(problem: Problem) -> Callable[[], Any]:
    from naign_ext import imle_knn

    return lambda: imle_knn(problem.data, problem.pool, problem.k)


def _naign_prepared(problem: Problem) -> Callable[[], Any]:
    from naign_ext import ImleSearch

    if problem.batched:
        raise Unavailable("searches one problem at a time")
    search = ImleSearch(problem.data, problem.k)

    def call() -> Any:
        search.reset()
        search.update(problem.pool)
        return search.neighbours()

    return call


def _faiss(problem: Problem) -> Callable[[], Any]:
    import faiss

    if problem.batched:
        raise Unavailable("searches one problem at a time")
    if problem.device == "cpu":
        return lambda: faiss.knn(_array(problem.data), _array(problem.pool), problem.k)
    if not hasattr(faiss, "StandardGpuResources"):
        raise Unavailable("this faiss has no GPU part")
    import faiss.contrib.torch_utils

    resources = faiss.StandardGpuResources()
    return lambda: faiss.knn_gpu(resources, problem.data.float(), problem.pool.float(), problem.k)


def _array(values: Tensor) -> Any:
    """As float32 numpy array, without a copy where the tensor is one already."""
    return values.float().contiguous().numpy()


def _torch_chunked(convert: Callable[[Tensor], Tensor]) -> Build:
    """Chunked matrix product and minimum: |y|^2 - 2 x.y block by block, products in `convert`'s type."""

    def build(problem: Problem) -> Callable[[], Any]:
        return lambda: search_chunked(problem.data, problem.pool, problem.k, convert)

    return build


def _tile(data: Tensor) -> tuple[int, int]:
    """Rows of data and rows of the pool in one block of scores."""
    batch, rows, size = math.prod(data.shape[:-2]), _ROWS[data.device.type], _BLOCK[data.device.type]
    return rows, max(1, size // max(1, batch * min(rows, data.shape[-2])))


def _blocks(values: Tensor, rows: int) -> list[tuple[int, Tensor]]:
    """Views of at most `rows` rows, each with the number of its first."""
    return [(start, values[..., start : start + rows, :]) for start in range(0, values.shape[-2], rows)]


def search_chunked(
    data: Tensor, pool: Tensor, k: int, convert: Callable[[Tensor], Tensor], nearest: Any = None
) -> tuple[Tensor, Tensor]:
    """Squared distances and indices of the k nearest in plain torch; inputs (N, D) or (B, N, D)."""
    nearest = nearest or nearest_of_block
    rows, pool_rows = _tile(data)
    queries = [convert(part) for _, part in _blocks(data, rows)]
    best: list[tuple[Tensor, Tensor] | None] = [None] * len(queries)
    for start, part in _blocks(pool, pool_rows):
        norms = torch.linalg.vector_norm(part, dim=-1, dtype=torch.float32).square().unsqueeze(-2)
        converted = convert(part)
        for number, query in enumerate(queries):
            values, found = nearest(query, converted, norms, k)
            best[number] = _merge(best[number], values, found + start, k)
    distances, indices = (torch.cat(parts, dim=-2) for parts in zip(*filter(None, best), strict=True))
    return distances + data.float().square().sum(-1, keepdim=True), indices


def block_scores(queries: Tensor, part: Tensor, norms: Tensor) -> Tensor:
    """|y|^2 - 2 x.y in float32 for a block of the pool, products in the type of `queries`."""
    if queries.dtype != torch.float32:
        return torch.add(norms, queries @ part.mT, alpha=-2)
    product = torch.addmm if queries.dim() == 2 else torch.baddbmm
    return product(norms, queries, part.mT, alpha=-2)


def nearest_of_block(queries: Tensor, part: Tensor, norms: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The at most k smallest scores of each query in a block of the pool, and their columns."""
    return _smallest(block_scores(queries, part, norms), k)


def _smallest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The at most k smallest of each row and their columns."""
    if k == 1:
        values, found = scores.min(dim=-1, keepdim=True)
    else:
        values, found = scores.topk(min(k, scores.shape[-1]), largest=False)
    return values, found


def _merge(
    best: tuple[Tensor, Tensor] | None, values: Tensor, found: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    if best is None:
        return values, found
    if k == 1:
        nearer = values < best[0]
        return torch.where(nearer, values, best[0]), torch.where(nearer, found, best[1])
    kept, order = _smallest(torch.cat([best[0], values], dim=-1), k)
    return kept, torch.cat([best[1], found], dim=-1).gather(-1, order)


def _torch_compiled(problem: Problem) -> Callable[[], Any]:
    compiled = torch.compile(nearest_of_block, dynamic=True)
    return lambda: search_chunked(problem.data, problem.pool, problem.k, Tensor.float, compiled)


def _flash_kmeans(convert: Callable[[Tensor], Tensor]) -> Build:
    """The assignment step of flash-kmeans, a Triton kernel: data are points, the pool is the centroids."""

    def build(problem: Problem) -> Callable[[], Any]:
        from flash_kmeans.assign_euclid_triton import euclid_assign_triton

        if problem.k != 1:
            raise Unavailable("finds one neighbour")
        shape = problem.data.shape[:-1]
        points = convert(problem.data).contiguous().view(-1, *problem.data.shape[-2:])
        squares = points.float().square().sum(-1)

        def call() -> Any:
            centroids = convert(problem.pool).contiguous().view(len(points), *problem.pool.shape[-2:])
            return None, euclid_assign_triton(points, centroids, squares).view(*shape, 1)

        return call

    return build


def _tf32(build: Build) -> Build:
    """The same peer with tensor-float-32 products; the setting holds for its own calls only."""

    def with_setting(problem: Problem) -> Callable[[], Any]:
        inner = build(problem)

        def call() -> Any:
            before = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("high")
            try:
                return inner()
            finally:
                torch.set_float32_matmul_precision(before)

        return call

    return with_setting


def _torch_cdist(problem: Problem) -> Callable[[], Any]:
    data, pool, k = problem.data, problem.pool, problem.k
    needed = 4 * math.prod(data.shape[:-1]) * pool.shape[-2]
    limit = min(_CDIST_BYTES[problem.device], available_bytes(problem.device) // 3)
    if needed > limit:
        raise Unavailable(f"its N x M matrix would take {needed / 2**30:.1f} GiB")

    def call() -> tuple[Tensor, Tensor]:
        distances = torch.cdist(data.float(), pool.float())
        values, found = distances.min(-1, keepdim=True) if k == 1 else distances.topk(k, largest=False)
        return values.square(), found

    return call


def _sklearn(problem: Problem) -> Callable[[], Any]:
    from sklearn.metrics import pairwise_distances_argmin
    from sklearn.neighbors import NearestNeighbors

    if problem.batched:
        raise Unavailable("searches one problem at a time")
    if problem.k == 1:
        return lambda: (None, pairwise_distances_argmin(_array(problem.data), _array(problem.pool))[:, None])

    def call() -> Any:
        model = NearestNeighbors(n_neighbors=problem.k, algorithm="brute").fit(_array(problem.pool))
        distances, found = model.kneighbors(_array(problem.data))
        return distances**2, found

    return call


def _tree(problem: Problem) -> Callable[[], Any]:
    from scipy.spatial import cKDTree

    if problem.batched:
        raise Unavailable("searches one problem at a time")
    dimensions = problem.data.shape[-1]
    if dimensions > 8:
        raise Unavailable(f"a tree is for at most 8 dimensions, these are {dimensions}")

    def call() -> Any:
        tree = cKDTree(_array(problem.pool))
        distances, found = tree.query(
            _array(problem.data), k=range(1, problem.k + 1), workers=problem.threads
        )
        return distances**2, found

    return call


def _gemm(dtype: torch.dtype) -> Build:
    """All N M D products and nothing else, block by block into one buffer; inputs converted beforehand."""

    def build(problem: Problem) -> Callable[[], Any]:
        data, pool = problem.data.to(dtype), problem.pool.to(dtype)
        rows, pool_rows = _tile(data)
        buffer = torch.empty(*data.shape[:-2], rows, pool_rows, dtype=dtype, device=data.device)

        def call() -> None:
            for _, part in _blocks(pool, pool_rows):
                for _, queries in _blocks(data, rows):
                    out = buffer[..., : queries.shape[-2], : part.shape[-2]]
                    torch.matmul(queries, part.mT, out=out if out.is_contiguous() else None)

        return call

    return build


def _read_arrays(answer: Any) -> Answer:
    """(distances or None, indices) as numpy arrays or tensors."""
    distances, indices = answer
    return torch.as_tensor(indices), None if distances is None else torch.as_tensor(distances)


def _read_neighbours(answer: Any) -> Answer:
    return answer.indices, answer.distances


PEERS: dict[str, Entry] = {
    OURS: Entry(_naign, read=_read_neighbours),
    PREPARED: Entry(_naign_prepared, read=_read_neighbours),
    "faiss": Entry(_faiss, read=_read_arrays),
    "torch fp32": Entry(_torch_chunked(Tensor.float), read=_read_arrays),
    "torch tf32": Entry(_tf32(_torch_chunked(Tensor.float)), devices=("cuda",), read=_read_arrays),
    "torch bf16": Entry(_torch_chunked(Tensor.bfloat16), read=_read_arrays),
    "torch compile": Entry(_torch_compiled, devices=("cuda",), read=_read_arrays),
    "flash-kmeans": Entry(_flash_kmeans(Tensor.float), devices=("cuda",), read=_read_arrays),
    "flash-kmeans bf16": Entry(_flash_kmeans(Tensor.bfloat16), devices=("cuda",), read=_read_arrays),
    "torch cdist": Entry(_torch_cdist, read=_read_arrays),
    "sklearn": Entry(_sklearn, devices=("cpu",), read=_read_arrays),
    "cKDTree": Entry(_tree, devices=("cpu",), read=_read_arrays),
    "gemm fp32": Entry(_gemm(torch.float32)),
    "gemm tf32": Entry(_tf32(_gemm(torch.float32)), devices=("cuda",)),
    "gemm bf16": Entry(_gemm(torch.bfloat16)),
}
