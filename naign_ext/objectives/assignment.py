"""Optimal one-to-one assignment of pool samples to data rows, on the neighbour graph of our own search."""

from collections.abc import Iterable

import torch
from torch import Tensor

from naign_ext.search import ImleSearch

COMPLETE_PAIRS = 1 << 17
"""Up to so many pairs every distance is taken, and the assignment is optimal among all there are."""

FIRST_NEIGHBOURS = 16


def assign(data: Tensor, samples: Iterable[tuple[int, Tensor]], count: int, *, merge: bool = False) -> Tensor:
    """For each row of data (N, D) another row of the pool, the sum of squared distances least; int64 (N,), CPU.

    samples: a pool of count >= N rows (M, D) in chunks, each with the index of its first row; iterated over anew
    for every k. merge: every process
    of torch.distributed calls this with the same data and its own chunks, and gets the same answer.

    Small problems (N M <= COMPLETE_PAIRS) are solved on all pairs (scipy's linear_sum_assignment). In larger ones
    only the edges to each row's k nearest samples are taken, k = 16, and the sparse problem solved (scipy's
    min_weight_full_bipartite_matching), so the answer is optimal among these. Where no assignment uses these edges
    alone, k doubles, up to k = M, which is all pairs again. A sample with NaN or Inf is never assigned; a row for
    which none is left gets -1.
    """
    k = count if len(data) * count <= COMPLETE_PAIRS else min(FIRST_NEIGHBOURS, count)
    while True:
        search = ImleSearch(data, k)
        for first, part in samples:
            search.update(part, offset=first)
        if merge:
            search.merge()
        distances, indices = (t.cpu() for t in search.neighbours())
        found = (
            assign_all(distances, indices, count) if k == count else assign_some(distances, indices, count)
        )
        if found is not None:
            return found
        k = min(2 * k, count)


def assign_some(distances: Tensor, indices: Tensor, count: int) -> Tensor | None:
    """The least-cost assignment (N,) along edges (N, k) to a pool of count rows; None where there is none."""
    import numpy as np
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    rows, k = indices.shape
    usable = (indices >= 0).flatten().numpy()
    # The solver takes zero for "no edge". A constant added to every edge moves all full matchings alike.
    scale = float(distances[indices >= 0].max()) if usable.any() else 1.0
    costs = (distances.double() / max(scale, torch.finfo(torch.float32).tiny) + 1).flatten().numpy()
    of_row = np.repeat(np.arange(rows), k)
    graph = csr_array(
        (costs[usable], (of_row[usable], indices.flatten().numpy()[usable])), shape=(rows, count)
    )
    try:
        matched, columns = min_weight_full_bipartite_matching(graph)
    except ValueError:
        return None
    result = torch.full((rows,), -1, dtype=torch.int64)
    result[torch.from_numpy(matched.astype(np.int64))] = torch.from_numpy(columns.astype(np.int64))
    return result


def assign_all(distances: Tensor, indices: Tensor, count: int) -> Tensor:
    """The least-cost assignment (N,) where all pairs (N, count) are there; -1 for rows that can have none."""
    from scipy.optimize import linear_sum_assignment

    rows = len(indices)
    usable = indices >= 0
    largest = float(distances[usable].max()) if bool(usable.any()) else 1.0
    # Dearer than any assignment without it, so it is used only where nothing else is left.
    costs = torch.full((rows, count), 2 * (rows + 1) * max(largest, 1e-30), dtype=torch.float64)
    edges = usable.nonzero(as_tuple=True)
    costs[edges[0], indices[usable]] = distances[usable].double()
    possible = torch.zeros(rows, count, dtype=torch.bool)
    possible[edges[0], indices[usable]] = True
    _, columns = linear_sum_assignment(costs.numpy())
    found = torch.from_numpy(columns.astype("int64"))
    return torch.where(possible[torch.arange(rows), found], found, -1)
