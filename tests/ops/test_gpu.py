"""On a CUDA device the answers are those of the CPU, bit for bit."""

import math

import pytest
import torch

from naign_ext import ImleSearch, imle_knn

pytestmark = pytest.mark.gpu


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize(("rows", "pool_rows", "columns"), [(3, 50, 2), (70, 3000, 33), (257, 1001, 784)])
def test_search_equals_the_cpu(rows: int, pool_rows: int, columns: int, k: int, dtype: torch.dtype) -> None:
    data, pool = normal(rows, columns, seed=1).to(dtype), normal(pool_rows, columns, seed=2).to(dtype)
    data[0, 0], pool[1, 0] = math.nan, math.inf
    pool[pool_rows // 2 :] = pool[: pool_rows - pool_rows // 2].clone()
    for reject in (None, float(columns)):
        expected = imle_knn(data, pool, k, reject_below=reject)
        found = imle_knn(data.cuda(), pool.cuda(), k, reject_below=reject)
        assert torch.equal(found.indices.cpu(), expected.indices)
        torch.testing.assert_close(found.distances.cpu(), expected.distances, rtol=0, atol=0, equal_nan=True)
        search = ImleSearch(data.cuda(), k, reject_below=reject)
        for chunk in pool.cuda().split(777):
            search.update(chunk)
        assert torch.equal(search.neighbours().indices.cpu(), expected.indices)


def test_batches_and_gradients() -> None:
    data, pool = (
        normal(4, 9, 12, seed=3).cuda().requires_grad_(),
        normal(4, 40, 12, seed=4).cuda().requires_grad_(),
    )
    found = imle_knn(data, pool, 2)
    gradients = torch.autograd.grad(found.distances.sum(), (data, pool))
    on_cpu = [t.detach().cpu().requires_grad_() for t in (data, pool)]
    expected = torch.autograd.grad(imle_knn(on_cpu[0], on_cpu[1], 2).distances.sum(), on_cpu)
    for actual, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(actual.cpu(), wanted)
