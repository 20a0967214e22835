"""Attacks on lemma 6 of docs/exactness.md: inputs whose true distance leaves the filter's interval."""

import os

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from naign_ext import _native

INT8, INT16, FLOAT32 = 0, 1, 2
NAMES = {INT8: "int8", INT16: "int16", FLOAT32: "float32"}
PORTABLE = _native.status()["isa"] == "portable"
FILTERS = [FLOAT32] if PORTABLE else [INT8, INT16, FLOAT32]


def true_distances(data: Tensor, pool: Tensor) -> NDArray[np.longdouble]:
    """Squared distances with 64 bits of precision, a thousand times finer than the filter's slack."""
    x, y = data.numpy().astype(np.longdouble), pool.numpy().astype(np.longdouble)
    return ((x[:, None] - y[None]) ** 2).sum(-1)


def margins(data: Tensor, pool: Tensor, which: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How far inside its interval each distance lies, and the interval's width, both in roots of distance."""
    lower, upper = torch.ops.naign._test_imle_knn_filter_bounds(data, pool, which)
    true = np.sqrt(true_distances(data, pool))
    low, high = np.sqrt(lower.numpy().astype(np.longdouble)), np.sqrt(upper.numpy().astype(np.longdouble))
    inside = np.minimum(true - low, high - true)
    return inside.astype(np.float64), (high - low).astype(np.float64)


def normal(rows: int, columns: int, seed: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("which", FILTERS, ids=NAMES.get)
@pytest.mark.parametrize("columns", [3, 64, 777])
def test_the_interval_is_narrow_and_holds_the_truth(which: int, columns: int) -> None:
    data, pool = normal(40, columns, 1), normal(300, columns, 2)
    inside, width = margins(data, pool, which)
    true = np.sqrt(true_distances(data, pool)).astype(np.float64)
    assert (inside >= 0).all()
    widest = {INT8: 0.06, INT16: 1e-3, FLOAT32: 4e-4}[which] * (10 if columns == 3 else 1)
    assert float(np.median(width / true)) < widest


def generator_of(kind: str, columns: int, seed: int) -> tuple[Tensor, Tensor]:
    data, pool = normal(16, columns, seed), normal(48, columns, seed + 1)
    if kind == "aligned":  # the errors of both rows point the same way
        pool = -data[:1] + 0.01 * pool
    elif kind == "near":
        pool = data[torch.arange(48) % 16] * (1 + 1e-3 * pool)
    elif kind == "half steps":  # every value lies between two integers of the 8-bit filter
        data = (torch.round(data * 40) + 0.499) / 127
        pool = (torch.round(pool * 40) + 0.501) / 127
        data[:, 0] = pool[:, 0] = 1.0
    elif kind == "offset":
        data, pool = data + 1e4, pool + 1e4
    elif kind == "one giant":
        data[:, 0] *= 1e6
        pool[::2, -1] *= 1e6
    elif kind == "positive":
        data, pool = data.abs(), pool.abs()
    elif kind == "tiny":
        data, pool = data * 1e-38, pool * 1e-38
    elif kind == "huge":
        data, pool = data * 1e30, pool * 1e30
    return data, pool


KINDS = ["plain", "aligned", "near", "half steps", "offset", "one giant", "positive", "tiny", "huge"]


@pytest.mark.parametrize("which", FILTERS, ids=NAMES.get)
@pytest.mark.parametrize("kind", KINDS)
def test_hill_climbing_finds_no_distance_outside(kind: str, which: int) -> None:
    """Changes that bring some distance closer to the end of its interval are kept."""
    g = torch.Generator().manual_seed(17)
    data, pool = generator_of(kind, 33, 3)
    closest = 1.0
    for _ in range(60):
        inside, width = margins(data, pool, which)
        assert (inside >= 0).all()
        ratio = np.where(np.isfinite(width) & (width > 0), inside / width, 1.0)
        best = float(ratio.min())
        if best <= closest:
            closest, kept = best, (data, pool)
        data, pool = (t.clone() for t in kept)
        for rows in (data, pool):
            row = int(torch.randint(len(rows), (1,), generator=g))
            column = torch.randint(rows.shape[1], (4,), generator=g)
            step = torch.randn(4, generator=g) * 10.0 ** float(torch.randint(-7, 0, (1,), generator=g))
            rows[row, column] *= 1 + step
    assert closest < 0.5


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    columns = draw(st.integers(1, 40))
    number = st.floats(width=32, allow_nan=False, allow_infinity=False)
    spread = draw(st.sampled_from([0.0, 1.0, 2.0**10, 2.0**127, 2.0**-100]))
    number = st.one_of(
        st.floats(-spread, spread, width=32) if spread else number, st.sampled_from([0.0, 1.0])
    )
    rows = st.lists(st.lists(number, min_size=columns, max_size=columns), min_size=1, max_size=5)
    return torch.tensor(draw(rows)).float(), torch.tensor(draw(rows)).float()


@hypothesis.settings(max_examples=150, deadline=None, derandomize=True)
@hypothesis.given(pairs(), st.sampled_from(FILTERS))
def test_no_input_leaves_its_interval(pair: tuple[Tensor, Tensor], which: int) -> None:
    data, pool = pair
    inside, _ = margins(data, pool, which)
    assert (inside >= 0).all()


def test_the_attack_would_notice_a_wrong_bound() -> None:
    """With the packing error left out of the 8-bit interval, distances do leave it."""
    if PORTABLE:
        pytest.skip("the portable kernels have no 8-bit filter")
    data, pool = normal(30, 64, 5), normal(200, 64, 6)
    inside, width = margins(data, pool, INT8)
    without_error = inside - width / 2 * 0.98
    assert (without_error < 0).any()


def test_filters_without_a_kernel_are_refused() -> None:
    data = normal(4, 8, 7)
    with pytest.raises(RuntimeError, match="filter: expected 0, 1 or 2, got 3"):
        torch.ops.naign._test_imle_knn_filter_bounds(data, data, 3)
    if PORTABLE or os.environ.get("NAIGN_ISA") == "portable":
        with pytest.raises(RuntimeError, match="filter: this instruction set has no kernel for it"):
            torch.ops.naign._test_imle_knn_filter_bounds(data, data, INT8)
