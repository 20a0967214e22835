"""Runs every CUDA kernel on small inputs and compares with the CPU: a program for compute-sanitizer to watch.

usage: cuda_small_cases.py [loss] [search]

Inputs come from the host, so that initcheck has seen every byte written.
"""

import itertools
import sys

import torch

from naign_ext import ImleSearch, _native, fused_loss, imle_knn

FULL, HALF, BRIEF = torch.float32, torch.float16, torch.bfloat16
SHAPES = ((3, 40, 2), (70, 600, 33), (130, 1500, 64), (65, 900, 257), (2, 300, 784))


def loss_cases() -> int:
    """Every kernel of the loss: types, alignment, tails, terms, norms, and the scaling of gradients."""
    count = 0
    generator = torch.Generator().manual_seed(0)
    dtypes = ((FULL,) * 4, (BRIEF,) * 4, (HALF,) * 4, (FULL, BRIEF, HALF, FULL))
    for types, present, norm, offset in itertools.product(dtypes, (2, 3, 4), ("l2", "l1"), (0, 1)):
        size = 4096 + 17 if present < 4 else 65536 + 3
        rooms = [torch.randn(size + offset, generator=generator).to(t) for t in types[:present]]
        host = [room[offset:].requires_grad_() for room in rooms]
        device = [room.detach().cuda()[offset:].requires_grad_() for room in rooms]
        answers = []
        for inputs in (host, device):
            total = fused_loss(*inputs, norm=norm).total
            answers.append([total, *torch.autograd.grad(total * 2, inputs[1:])])
        for expected, found in zip(*answers, strict=True):
            torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=0)
        count += 1
    return count


def search_cases() -> int:
    """Small searches of every kind: sizes, types, neighbours, rejection, batches, streaming."""
    count = 0
    generator = torch.Generator().manual_seed(1)
    for (n, m, d), dtype, k in itertools.product(SHAPES, (FULL, BRIEF), (1, 5)):
        data, pool = (torch.randn(rows, d, generator=generator).to(dtype) for rows in (n, m))
        for reject in (None, float(d)):
            expected = imle_knn(data, pool, k, reject_below=reject)
            found = imle_knn(data.cuda(), pool.cuda(), k, reject_below=reject)
            search = ImleSearch(data.cuda(), k, reject_below=reject)
            for part in pool.split(m // 2 + 1):
                search.update(part.cuda())
            for answer in (found, search.neighbours()):
                assert torch.equal(answer.indices.cpu(), expected.indices)
                assert torch.equal(answer.distances.cpu(), expected.distances)
            count += 2
            # Filters for Hopper and for Ampere, lists too short for them, exact comparison.
            for way, capacity in ((1, 0), (1, 2), (2, 0), (2, 2), (4, 0)):
                arguments = (data.cuda(), pool.cuda(), k, reject, way, capacity)
                indices = torch.ops.naign.imle_knn_cuda_by(*arguments)[1]
                assert torch.equal(indices.cpu(), expected.indices)
                count += 1
    data, pool = (torch.randn(4, rows, 32, generator=generator) for rows in (1, 20))
    assert torch.equal(imle_knn(data.cuda(), pool.cuda()).indices.cpu(), imle_knn(data, pool).indices)
    return count + 1


CASES = {"loss": loss_cases, "search": search_cases}


def main(names: list[str]) -> None:
    assert "cuda" in _native.DEVICES_WITH_KERNELS, _native.status()
    for name in names or list(CASES):
        print(f"{name}: {CASES[name]()} cases", flush=True)
    torch.cuda.synchronize()


if __name__ == "__main__":
    main(sys.argv[1:])
