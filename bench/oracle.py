"""Float64 brute force on a sample of queries: the judge of every peer's answer.

It shares no code with the package it judges. A float64 matrix product of the centred rows proposes
candidates; with u = 2^-53 its error on |x|^2 + |y|^2 - 2 x.y is below (2 D + 16) u (|x| + |y|)^2. Where the
last candidate is farther than the k-th best by more than twice that, the k nearest are among the candidates
and direct differences in float64 decide. Where the gap is smaller the query is settled by direct differences
with the whole pool.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_SPARE = 32
_ELEMENTS = 1 << 22
# Two float64 sums of the same squares in different order differ by less; a truly worse row by more.
_TOLERANCE = 1e-11


@dataclass(frozen=True)
class Truth:
    """Places of the sampled queries in the data, (S,) each, and their true distances (S, k), float64."""

    batches: Tensor
    rows: Tensor
    distances: Tensor


def blocks(values: Tensor, rows: int) -> Iterator[Tensor]:
    """Views of at most `rows` consecutive rows."""
    return (values[start : start + rows] for start in range(0, len(values), rows))


def direct(query: Tensor, pool: Tensor) -> Tensor:
    """Squared distances of query (D,) to pool (P, D) by float64 differences; (P,)."""
    step = max(1, _ELEMENTS // pool.shape[1])
    parts = [(query.double() - part.double()).square_().sum(1) for part in blocks(pool, step)]
    return torch.cat(parts) if parts else pool.new_zeros(0, dtype=torch.float64)


def nearest(queries: Tensor, pool: Tensor, k: int) -> Tensor:
    """The k smallest squared distances of each query (S, D) in pool (M, D), float64 (S, k), ascending."""
    centre = pool[: _SPARE * 32].double().mean(0)
    centred = queries.double() - centre
    scores, indices, largest = _candidates(centred, pool, centre, k + _SPARE)
    norms = (centred.norm(dim=1) + largest) ** 2
    slack = 2 * (2 * pool.shape[1] + 16) * 2.0**-53 * norms
    result = torch.empty(len(queries), k, dtype=torch.float64, device=pool.device)
    for s, query in enumerate(queries):
        exact = direct(query, pool[indices[s]]).sort().values[:k]
        complete = indices.shape[1] == len(pool) or scores[s, -1] - scores[s, k - 1] > slack[s]
        result[s] = exact if complete else direct(query, pool).sort().values[:k]
    return result


def _candidates(centred: Tensor, pool: Tensor, centre: Tensor, count: int) -> tuple[Tensor, Tensor, float]:
    """Approximate scores and indices of the `count` best pool rows, and the largest norm in the pool."""
    square = centred.square().sum(1, keepdim=True)
    scores = centred.new_empty(len(centred), 0)
    indices = scores.long()
    largest = 0.0
    step = max(count, _ELEMENTS // max(pool.shape[1], len(centred)))
    for start in range(0, len(pool), step):
        part = pool[start : start + step].double() - centre
        norms = part.square().sum(1)
        largest = max(largest, float(norms.max().sqrt()))
        scores = torch.cat([scores, square + norms - 2 * centred @ part.T], dim=1)
        numbers = torch.arange(start, start + len(part), device=pool.device).expand(len(centred), -1)
        indices = torch.cat([indices, numbers], dim=1)
        scores, kept = scores.topk(min(count, scores.shape[1]), dim=1, largest=False, sorted=True)
        indices = indices.gather(1, kept)
    return scores, indices, largest


def truth(data: Tensor, pool: Tensor, k: int, *, queries: int, seed: int) -> Truth:
    """True distances of a random sample of queries of data (N, D) or (B, N, D), pool alike."""
    batches = data.shape[0] if data.dim() == 3 else 1
    rows = data.shape[-2]
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(batches * rows, generator=generator)[:queries].sort().values
    batch, row = chosen // rows, chosen % rows
    distances = torch.empty(len(chosen), k, dtype=torch.float64)
    for b in sorted(set(batch.tolist())):
        inside = batch == b
        wanted = _matrix(data, b)[row[inside].to(data.device)]
        distances[inside] = nearest(wanted, _matrix(pool, b), k).cpu()
    return Truth(batch, row, distances)


def compare(
    known: Truth, data: Tensor, pool: Tensor, indices: Tensor, distances: Tensor | None
) -> Mapping[str, Any]:
    """Columns `checked`, `mismatches` and `max_relative_error` of a peer's answer.

    indices (N, k) or (B, N, k), distances alike (squared) or None. A query is a mismatch when the row named
    at some rank is farther in float64 than the true one, is named twice, or is no row of the pool; which of
    several equally near rows is named does not matter. The error is |distance - float64| / float64 of the row
    named.
    """
    mismatches = 0
    worst = 0.0
    for s, (b, row) in enumerate(zip(known.batches.tolist(), known.rows.tolist(), strict=True)):
        named = _matrix(indices, b)[row].long().to(pool.device)
        rows = _matrix(pool, b)
        if bool(((named < 0) | (named >= len(rows))).any()) or len(set(named.tolist())) < len(named):
            mismatches += 1
            continue
        exact = direct(_matrix(data, b)[row], rows[named]).cpu()
        mismatches += int(bool((exact > known.distances[s] * (1 + _TOLERANCE)).any()))
        if distances is not None:
            worst = max(worst, _relative_error(_matrix(distances, b)[row].double().cpu(), exact))
    error = None if distances is None else worst
    return {"checked": len(known.rows), "mismatches": mismatches, "max_relative_error": error}


def _relative_error(found: Tensor, exact: Tensor) -> float:
    error = (found - exact).abs() / exact
    error = torch.where(exact == 0, torch.where(found == 0, 0.0, torch.inf), error)
    return float(error.nan_to_num(nan=torch.inf).max())


def _matrix(values: Tensor, batch: int) -> Tensor:
    return values[batch] if values.dim() == 3 else values
