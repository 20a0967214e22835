"""Rows that have no neighbour: marked by index -1 and a mask, or an error that names them."""

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from naign_ext import ImleSearch, imle_knn


def rows(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


DATA, POOL = rows(6, 4, seed=0), rows(20, 4, seed=1)


def with_value(x: Tensor, place: tuple[int, ...], value: float) -> Tensor:
    x = x.clone()
    x[place] = value
    return x


def searched(data, pool, k=1, reject_below=None, **options):
    """Once by each way there is."""
    search = ImleSearch(data, k, reject_below=reject_below)
    for chunk in pool.split(7):
        search.update(chunk)
    yield lambda: search.neighbours(**options)
    yield lambda: imle_knn(data, pool, k, reject_below=reject_below, **options)
    yield lambda: imle_knn(data.double(), pool.double(), k, reject_below=reject_below, **options)


WITHOUT = {
    "a row with NaN": (with_value(DATA, (2, 1), torch.nan), POOL, 1, None, "1 of 6 rows have NaN or Inf, row 2 first"),
    "rows with Inf": (with_value(DATA, (slice(3, 5),), torch.inf), POOL, 2, None, "2 of 6 rows .* row 3 first"),
    "a pool of NaN": (DATA, torch.full_like(POOL, torch.nan), 1, None, "6 of 6 rows have fewer than k"),
    "fewer than k finite": (DATA, with_value(POOL, (slice(2, 20),), torch.nan), 3, None, "6 of 6 .* row 0 first"),
    "all rejected": (DATA, POOL, 1, 1e9, "6 of 6 rows have fewer than k admissible neighbours.*reject_below"),
    "all but one rejected": (
        torch.cat([DATA, DATA[:1] + 100]),
        DATA - 100,
        1,
        49_000.0,
        "6 of 7 rows have fewer than k",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WITHOUT)
def test_missing_neighbours_are_marked_or_raised(case):
    data, pool, k, reject_below, message = WITHOUT[case]
    for search in searched(data, pool, k, reject_below):
        found = search()
        assert torch.equal(found.found, found.indices != -1)
        assert not found.found.all()
        assert not found.distances[~found.found].isfinite().any()
        assert found.distances[found.found].isfinite().all()
    for search in searched(data, pool, k, reject_below, missing="raise"):
        with pytest.raises(ValueError, match=f"^data: .*{message}"):
            search()


def test_where_all_are_there_the_answer_is_the_same():
    for marking, raising in zip(
        searched(DATA, POOL, 3), searched(DATA, POOL, 3, missing="raise"), strict=True
    ):
        assert marking().found.all()
        assert all(torch.equal(a, b) for a, b in zip(marking(), raising(), strict=True))


def test_batches_name_batch_and_row():
    data = with_value(rows(2, 3, 4, seed=2), (1, 2, 0), torch.nan)
    with pytest.raises(ValueError, match=r"data: 1 of 6 rows have NaN or Inf, row \(1, 2\) first"):
        imle_knn(data, rows(2, 9, 4, seed=3), missing="raise")


@pytest.mark.parametrize("missing", ["Raise", "ignore", None, True])
def test_other_modes_are_named(missing):
    for search in searched(DATA, POOL, missing=missing):
        with pytest.raises(ValueError, match="missing: expected 'mark' or 'raise', got"):
            search()


def test_gradients_and_transforms_pass():
    def near(x: Tensor, **options: str) -> Tensor:
        return imle_knn(x, POOL, **options).distances.sum()

    leaf = DATA.clone().requires_grad_()
    (plain,) = torch.autograd.grad(near(leaf), leaf)
    (checked,) = torch.autograd.grad(near(leaf, missing="raise"), leaf)
    assert torch.equal(plain, checked)
    assert torch.equal(grad(lambda x: near(x, missing="raise"))(DATA), plain)
    many = vmap(lambda x: imle_knn(x[None], POOL, missing="raise").indices)(DATA)
    assert torch.equal(many[:, 0], imle_knn(DATA, POOL).indices)
    with pytest.raises(ValueError, match="data: 1 of 6 rows"):
        vmap(lambda x: imle_knn(x[None], POOL, missing="raise").indices)(with_value(DATA, (4, 0), torch.nan))


def test_opcheck():
    found = imle_knn(DATA, POOL, 2)
    torch.library.opcheck(torch.ops.naign.require_found, tuple(found))


@pytest.mark.slow
def test_compiled_graphs_keep_the_check():
    @torch.compile(fullgraph=True)
    def nearest(data: Tensor, pool: Tensor) -> tuple[Tensor, Tensor]:
        found = imle_knn(data, pool, missing="raise")
        return pool[found.indices[:, 0]] * 2, found.found

    chosen, found = nearest(DATA, POOL)
    assert torch.equal(chosen, POOL[imle_knn(DATA, POOL).indices[:, 0]] * 2)
    assert found.all()
    with pytest.raises(ValueError, match="data: 1 of 6 rows"):
        nearest(with_value(DATA, (0, 0), torch.nan), POOL)
