"""imle_knn under torch.func and forward-mode AD, against the distances written out."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from naign_ext import imle_knn


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def searched(data: Tensor, pool: Tensor) -> Tensor:
    return imle_knn(data, pool, 2).distances


def written_out(data: Tensor, pool: Tensor) -> Tensor:
    """The two smallest of all distances."""
    every = (data[..., :, None, :] - pool[..., None, :, :]).square().sum(-1)
    return every.topk(2, largest=False).values


def total(distances: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda data, pool: distances(data, pool).square().sum()


SHAPES = {"2-D": ((5, 6), (20, 6)), "3-D": ((3, 5, 6), (3, 20, 6))}
DTYPES = [torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("argument", [0, 1])
def test_derivatives(argument: int, shape: str, dtype: torch.dtype) -> None:
    data, pool = (normal(*size, seed=i, dtype=dtype) for i, size in enumerate(SHAPES[shape]))
    for transform in (grad, jacrev, jacfwd, hessian):
        found, expected = (transform(total(f), argnums=argument)(data, pool) for f in (searched, written_out))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_with_jacobians(dtype: torch.dtype) -> None:
    data, pool = normal(5, 6, seed=2, dtype=dtype), normal(20, 6, seed=3, dtype=dtype)
    tangents = normal(5, 6, seed=4, dtype=dtype), normal(20, 6, seed=5, dtype=dtype)
    found, expected = (jvp(f, (data, pool), tangents) for f in (searched, written_out))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    upstream = normal(5, 2, seed=6, dtype=dtype)
    found, expected = (vjp(f, data, pool)[1](upstream) for f in (searched, written_out))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("in_dims", [(0, 0), (0, None), (None, 0), (1, 2), (2, None), (None, 1)])
@pytest.mark.parametrize("batched", [False, True])
def test_vmap(batched: bool, in_dims: tuple[int | None, int | None]) -> None:
    inner = (3,) if batched else ()
    data, pool = normal(4, *inner, 5, 6, seed=7), normal(4, *inner, 20, 6, seed=8)
    one = data[0] if in_dims[0] is None else data, pool[0] if in_dims[1] is None else pool
    moved = [t if d is None else t.movedim(0, d) for t, d in zip(one, in_dims, strict=True)]
    found = vmap(lambda x, y: tuple(imle_knn(x, y, 2)), in_dims=in_dims)(*moved)
    for i in range(4):
        expected = imle_knn(data[0 if in_dims[0] is None else i], pool[0 if in_dims[1] is None else i], 2)
        assert torch.equal(found[0][i], expected.distances)
        assert torch.equal(found[1][i], expected.indices)


def test_gradients_of_each_of_many_searches() -> None:
    data, pool = normal(4, 5, 6, seed=9), normal(20, 6, seed=10)
    found = vmap(grad(total(searched)), in_dims=(0, None))(data, pool)
    torch.testing.assert_close(
        found, vmap(grad(total(written_out)), in_dims=(0, None))(data, pool), rtol=1e-4, atol=1e-4
    )
    twice = vmap(vmap(lambda x: imle_knn(x[None], pool).indices))(data)
    assert torch.equal(twice[..., 0], imle_knn(data.flatten(0, 1), pool).indices.view(4, 5, 1))


def test_forward_mode() -> None:
    data, pool, tangent = normal(5, 6, seed=11), normal(20, 6, seed=12), normal(5, 6, seed=13)
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(searched(forward_ad.make_dual(data, tangent), pool))
        expected = forward_ad.unpack_dual(written_out(forward_ad.make_dual(data, tangent), pool))
    torch.testing.assert_close(found.tangent, expected.tangent, rtol=1e-5, atol=1e-5)


def test_rows_without_a_neighbour() -> None:
    data, pool = normal(3, 6, seed=14), normal(20, 6, seed=15)
    data[1, 2] = torch.nan
    none = jvp(lambda x: imle_knn(x, pool, 1, reject_below=1e9).distances, (data,), (torch.ones_like(data),))[
        1
    ]
    assert (none[[0, 2]] == 0).all()
    assert none[1].isnan().all()
    assert grad(lambda x: imle_knn(x, pool).distances[0].sum())(data)[2].eq(0).all()
