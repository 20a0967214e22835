"""Random arguments for every operator: the answer of a float64 oracle, or an error that names the argument."""

import math
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from faults.verdicts import FaultError
from faults.workers import Kind, Kinds

Say = Callable[[str], None]
FLOATING = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
DTYPES = (*FLOATING, *FLOATING, torch.int64, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn)
_EXPONENTS = (0, 0, 0, 0, -3, 3, 15, -20, 38, -44)


def odd_thing(rng: Random) -> Any:
    """No tensor, or one of a kind that operators do not take."""
    dense = torch.randn(3, 4)
    return rng.choice(
        [
            None,
            1,
            1.5,
            "x",
            [[1.0, 2.0]],
            np.zeros((3, 4), np.float32),
            dense.to_sparse(),
            dense.to_sparse_csr(),
            dense.to_mkldnn(),
            torch.quantize_per_tensor(dense, 0.1, 0, torch.qint8),
            torch.nested.nested_tensor([torch.zeros(2, 4), torch.zeros(3, 4)]),
            torch.zeros(3, 4, device="meta"),
            torch.nn.Linear(2, 2),
            torch.tensor(1.0),
            torch.zeros(0),
            {},
            object(),
        ]
    )


def number(rng: Random, sound: Callable[[], Any]) -> Any:
    """A number that is sound, or one that is odd."""
    if rng.random() < 0.75:
        return sound()
    odd = [0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**30, 0.5, math.nan, math.inf, -math.inf, True, None]
    odd += ["1", [1], b"1", 1 + 2j, np.int64(2), np.float32(0.5), torch.tensor(2), torch.tensor([1, 2])]
    return rng.choice(odd)


def numbers_of(rng: Random, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Normal numbers, of one magnitude or another; some are equal, some not finite."""
    generator = torch.Generator().manual_seed(rng.randrange(2**63))
    values = torch.randn(shape, generator=generator, dtype=torch.float64)
    if rng.random() < 0.3:
        values = values.round()
    values = values * 10.0 ** rng.choice(_EXPONENTS)
    if rng.random() < 0.15 and values.numel():
        flat = values.view(-1)
        for _ in range(rng.choice([1, 3])):
            flat[rng.randrange(len(flat))] = rng.choice([math.nan, math.inf, -math.inf])
    return values.to(dtype)


def laid_out(rng: Random, x: Tensor) -> Tensor:
    """The same numbers with other strides, offsets or kinds of tensor."""
    what = rng.randrange(8)
    if what == 0 and x.dim() >= 2:
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    if what == 1:
        return torch.stack([x, x], dim=-1)[..., 0]
    if what == 2 and x.dim():
        return torch.cat([x[:1], x], dim=0)[1:] if len(x) else x
    if what == 3 and x.dim() and len(x):
        return x[:1].expand(x.shape)
    if what == 4:
        return x.flip(0) if x.dim() else x
    if what == 5 and x.is_floating_point():
        return torch.nn.Parameter(x)
    if what == 6 and x.is_floating_point():
        return x.clone().requires_grad_()
    return x


def tensor(rng: Random, shape: tuple[int, ...], *, dtypes: tuple[torch.dtype, ...] = FLOATING) -> Tensor:
    return laid_out(rng, numbers_of(rng, shape, rng.choice(dtypes)))


def _sizes(rng: Random, most: int = 70) -> int:
    return rng.choice([1, 1, 2, 3, rng.randrange(1, 20), rng.randrange(1, most)])


def _odd_shape(rng: Random) -> tuple[int, ...]:
    return tuple(rng.choice([0, 1, 2, 3, 5]) for _ in range(rng.randrange(5)))


def _describe(value: Any) -> str:
    if isinstance(value, Tensor) and not value.is_nested:
        return f"{value.dtype}{tuple(value.shape)}{'' if value.layout is torch.strided else value.layout}"
    return repr(value)[:60]


def search(rng: Random, folder: Path, say: Say) -> None:
    """imle_knn, and ImleSearch with the same pool in pieces."""
    from naign_ext import imle_knn

    batched, rows, columns = rng.random() < 0.25, _sizes(rng), _sizes(rng, 200)
    count = _sizes(rng, 300)
    ahead = (rng.randrange(1, 4),) if batched else ()
    dtypes = DTYPES if rng.random() < 0.1 else FLOATING
    data: Any = tensor(rng, (*ahead, rows, columns), dtypes=dtypes)
    pool: Any = tensor(rng, (*ahead, count, columns), dtypes=dtypes)
    odd = rng.random()
    if odd < 0.1:
        data = odd_thing(rng)
    elif odd < 0.2:
        pool = odd_thing(rng)
    elif odd < 0.3:
        pool = tensor(rng, _odd_shape(rng))
    k = number(rng, lambda: rng.randrange(1, count + 1))
    below = None if rng.random() < 0.7 else number(rng, lambda: abs(rng.gauss(0, 3)))
    say(f"imle_knn({_describe(data)}, {_describe(pool)}, {_describe(k)}, reject_below={_describe(below)})")
    found = imle_knn(data, pool, k, reject_below=below)
    _check_neighbours(data, pool, int(k), below, *found)
    if found.distances.requires_grad:
        found.distances.sum().backward()
    if not batched:
        _check_in_pieces(rng, data, pool, int(k), below, found)


def _check_neighbours(
    data: Tensor, pool: Tensor, k: int, below: Any, distances: Tensor, indices: Tensor
) -> None:
    """Against all distances in float64, for every row of every batch."""
    if distances.shape != (*data.shape[:-1], k) or indices.shape != distances.shape:
        raise FaultError(f"shapes {tuple(distances.shape)} and {tuple(indices.shape)}")
    wide = torch.float64 if torch.float64 in (data.dtype, pool.dtype) else torch.float32
    if distances.dtype != wide:
        raise FaultError(f"distances of {distances.dtype}")
    ahead = data.shape[:-2]
    x, y = (t.detach().double().reshape(-1, *t.shape[-2:]) for t in (data, pool))
    found = distances.detach().double().view(len(x), -1, k), indices.view(len(x), -1, k)
    for batch in range(math.prod(ahead)):
        _check_rows(x[batch], y[batch], k, below, found[0][batch], found[1][batch], wide)


def _check_rows(
    x: Tensor, y: Tensor, k: int, below: Any, distances: Tensor, indices: Tensor, wide: torch.dtype
) -> None:
    every = (x[:, None] - y[None]).square().sum(-1)
    every[:, ~y.isfinite().all(1)] = math.inf
    if below is not None:
        every = torch.where(every < float(below), torch.inf, every)
    sound = x.isfinite().all(1)
    if not (indices[~sound] == -1).all() or not distances[~sound].isnan().all():
        raise FaultError("a row that is not finite has a neighbour")
    best = every.sort(1).values[:, :k]
    # A distance at the very border of reject_below may fall on either side by rounding.
    for row in sound.nonzero().flatten().tolist():
        for rank in range(k):
            index, distance, wanted = (
                int(indices[row, rank]),
                float(distances[row, rank]),
                float(best[row, rank]),
            )
            own = math.inf if index < 0 else float(every[row, index])
            if not (_near(own, wanted, 1e-9) and _near(distance, float(torch.tensor(own, dtype=wide)), 1e-6)):
                raise FaultError(
                    f"row {row}, rank {rank}: {index} at {distance}, which is {own}; best {wanted}"
                )
        named = indices[row][indices[row] >= 0]
        if len(named.unique()) != len(named):
            raise FaultError(f"row {row}: an index twice")


def _near(a: float, b: float, tolerance: float) -> bool:
    return (
        a == b or (math.isnan(a) and math.isnan(b)) or abs(a - b) <= tolerance * max(abs(a), abs(b)) + 1e-44
    )


def _check_in_pieces(rng: Random, data: Tensor, pool: Tensor, k: int, below: Any, whole: Any) -> None:
    from naign_ext import ImleSearch

    streamed = ImleSearch(data, k, reject_below=below)
    cuts = sorted(rng.randrange(len(pool) + 1) for _ in range(rng.randrange(3)))
    for start, stop in zip([0, *cuts], [*cuts, len(pool)], strict=True):
        streamed.update(pool[start:stop])
    found = streamed.neighbours()
    distances = whole.distances.detach().to(found.distances.dtype)
    same = torch.equal(found.indices, whole.indices)
    same = same and torch.equal(found.distances.nan_to_num(nan=-1), distances.nan_to_num(nan=-1))
    if not same:
        raise FaultError("another answer for the pool in pieces")


def streaming(rng: Random, folder: Path, say: Say) -> None:
    """ImleSearch with odd data, pools, offsets and calls out of turn."""
    from naign_ext import ImleSearch

    columns = _sizes(rng)
    data: Any = odd_thing(rng) if rng.random() < 0.15 else tensor(rng, (_sizes(rng), columns))
    k = number(rng, lambda: rng.randrange(1, 5))
    below = None if rng.random() < 0.8 else number(rng, lambda: 1.0)
    say(f"ImleSearch({_describe(data)}, {_describe(k)}, reject_below={_describe(below)})")
    found = ImleSearch(data, k, reject_below=below)
    for _ in range(rng.randrange(4)):
        pool: Any = tensor(rng, (rng.randrange(9), columns))
        if rng.random() < 0.15:
            pool = odd_thing(rng)
        offset = None if rng.random() < 0.5 else number(rng, lambda: rng.randrange(1000))
        say(f"update({_describe(pool)}, offset={_describe(offset)})")
        found.update(pool, offset=offset)
        if rng.random() < 0.1:
            found.reset()
    distances, indices = found.neighbours()
    if distances.shape != (len(data), int(k)) or indices.dtype != torch.int64:
        raise FaultError(f"shape {tuple(distances.shape)}, indices of {indices.dtype}")


def loss(rng: Random, folder: Path, say: Say) -> None:
    """fused_loss in both of its forms, with gradients."""
    from naign_ext import fused_loss

    shape = rng.choice([(_sizes(rng), _sizes(rng)), (2, 3, 5, 4), (_sizes(rng),), (), _odd_shape(rng)])
    many = [_loss_tensor(rng, shape) for _ in range(rng.randrange(2, 6))]
    if rng.random() < 0.25:
        odd = odd_thing(rng) if rng.random() < 0.5 else tensor(rng, _odd_shape(rng), dtypes=DTYPES)
        many[rng.randrange(len(many))] = odd
    norm: Any = rng.choice(["l2", "l2", "l1", "l1", "l3", None]) if rng.random() < 0.9 else 2
    if rng.random() < 0.5:
        pairs = [(rng.choice(many), rng.choice(many)) for _ in range(rng.randrange(1, 4))]
        weights = [number(rng, lambda: rng.gauss(0, 2)) for _ in pairs]
        terms = [(a, b, w) for (a, b), w in zip(pairs, weights, strict=True)]
        say(f"fused_loss({[tuple(map(_describe, term)) for term in terms]}, norm={norm!r})")
        found = fused_loss(terms, norm=norm)
        answered = found.terms
    else:
        while len(many) < 4:
            many.append(None)
        data, reconstruction, matched, projected = many[:4]
        weights = [number(rng, lambda: rng.gauss(0, 2)) for _ in range(rng.choice([3, 3, 3, 3, 2]))]
        say(
            f"fused_loss({[_describe(t) for t in many[:4]]}, weights={list(map(_describe, weights))}, norm={norm!r})"
        )
        found = fused_loss(data, reconstruction, matched, projected, weights=tuple(weights), norm=norm)
        pairs = [(reconstruction, data), (matched, data), (projected, matched)]
        pairs = [(a, b) for a, b in pairs if a is not None]
        answered = torch.stack(list(found[1:]))[: len(pairs)]
    _check_loss(pairs, [float(w) for w in weights[: len(pairs)]], norm, found.total, answered)


def _loss_tensor(rng: Random, shape: tuple[int, ...]) -> Tensor:
    """Of few magnitudes, so that the oracle's sums stay comparable."""
    x = tensor(rng, shape)
    return x if x.requires_grad or rng.random() < 0.5 else x.detach().clone().requires_grad_()


def _check_loss(pairs: list[Any], weights: list[float], norm: str, total: Tensor, terms: Tensor) -> None:
    inputs = list({id(t): t for pair in pairs for t in pair}.values())
    doubles = {id(t): t.detach().double().requires_grad_() for t in inputs}
    expected = [_mean_error(doubles[id(a)] - doubles[id(b)], norm) for a, b in pairs]
    whole = sum((w * e for w, e in zip(weights, expected, strict=True)), torch.zeros((), dtype=torch.float64))
    for got, want in zip(terms.tolist(), expected, strict=True):
        if not _close(got, float(want), terms.dtype):
            raise FaultError(f"term {got}, expected {float(want)}")
    scale = sum(abs(w) * float(e.detach().abs()) for w, e in zip(weights, expected, strict=True))
    if math.isfinite(scale) and not abs(float(total) - float(whole)) <= 1e-5 * scale + 1e-30 and scale < 1e37:
        raise FaultError(f"total {float(total)}, expected {float(whole)}")
    if total.requires_grad and math.isfinite(scale) and scale < 1e30:
        _check_gradients(inputs, doubles, total, whole)


def _check_gradients(inputs: list[Tensor], doubles: dict[int, Tensor], total: Tensor, whole: Tensor) -> None:
    leaves = [t for t in inputs if t.requires_grad]
    got = torch.autograd.grad(total, leaves, allow_unused=True)
    want = torch.autograd.grad(whole, [doubles[id(t)] for t in leaves], allow_unused=True)
    for leaf, found, oracle in zip(leaves, got, want, strict=True):
        if oracle is None:
            continue
        mine = torch.zeros_like(leaf) if found is None else found
        if mine.dtype != leaf.dtype or mine.shape != leaf.shape:
            raise FaultError(f"a gradient of {mine.dtype}{tuple(mine.shape)}")
        rounded = oracle.to(leaf.dtype).double()
        least = torch.finfo(leaf.dtype).tiny
        wrong = (
            mine.double() - rounded
        ).abs() > 2e-2 * rounded.abs() + 1e-5 * oracle.abs().sum().nan_to_num() + least
        if (wrong & rounded.isfinite()).any():
            raise FaultError(f"a gradient is wrong by {float((mine.double() - rounded).abs().max())}")


def _mean_error(difference: Tensor, norm: str) -> Tensor:
    penalty = difference.abs() if norm == "l1" else difference.square()
    return penalty.sum() / max(1, penalty.numel())


def _close(got: float, want: float, dtype: torch.dtype) -> bool:
    rounded = float(torch.tensor(want, dtype=dtype))
    if not math.isfinite(want) or not math.isfinite(rounded):
        return not math.isfinite(got) or abs(got) > 3e38
    return abs(got - want) <= 2e-6 * abs(want) + 1e-38


def normal_numbers(rng: Random, folder: Path, say: Say) -> None:
    """randn and randn_rows: equal bits in any piece of the table."""
    from naign_ext.ops import randn, randn_rows

    seed, scale = number(rng, lambda: rng.randrange(2**64)), number(rng, lambda: rng.gauss(0, 2))
    columns, rows = number(rng, lambda: _sizes(rng)), rng.randrange(20)
    # Sizes that are allowed and larger than memory are torch's to refuse.
    columns = columns if not isinstance(columns, int) or columns < 10**4 else 10**30
    if rng.random() < 0.5:
        first = number(rng, lambda: rng.choice([0, 5, 2**40, 2**63 - 20]))
        device = rng.choice(["cpu"] * 8 + ["x", 5])
        say(f"randn({seed!r}, {first!r}, {rows}, {columns!r}, scale={scale!r}, device={device!r})")
        found = randn(seed, first, rows, columns, scale=scale, device=device)
        again = randn_rows(
            seed, torch.arange(rows, dtype=torch.int64) + (first if rows else 0), columns, scale=scale
        )
    else:
        chosen: Any = torch.tensor(
            [rng.choice([0, 1, -1, 2**40, rng.randrange(99)]) for _ in range(rows)], dtype=torch.int64
        )
        if rng.random() < 0.25:
            chosen = odd_thing(rng)
        say(f"randn_rows({seed!r}, {_describe(chosen)}, {columns!r}, scale={scale!r})")
        found = randn_rows(seed, chosen, columns, scale=scale)
        parts = [randn_rows(seed, chosen[i : i + 1], columns, scale=scale) for i in range(rows)]
        again = torch.cat([torch.empty(0, columns), *parts])
    if found.dtype != torch.float32 or not torch.equal(found, again):
        raise FaultError("other numbers in another call")
    if found.abs().max().item() > 6.68 * abs(float(scale)) + 1e-30 if found.numel() else False:
        raise FaultError(f"a number of {found.abs().max().item()}")


def statistics(rng: Random, folder: Path, say: Say) -> None:
    """batch_norm's three parts beside torch's own, in float64."""
    from naign_ext.ops.batch_norm import batch_norm_backward, batch_norm_forward, batch_norm_sums

    channels = _sizes(rng, 20)
    shape = rng.choice([(_sizes(rng) + 1, channels), (2, channels, 3), (_sizes(rng, 5) + 1, channels, 3, 4)])
    x = laid_out(
        rng, torch.randn(shape, generator=torch.Generator().manual_seed(rng.randrange(2**63)))
    ).detach()
    gradient = laid_out(rng, torch.randn(shape)).detach()
    weight, bias = (torch.randn(channels) if rng.random() < 0.7 else None for _ in range(2))
    mean, variance = torch.randn(channels), torch.rand(channels) + 0.5
    say(f"batch_norm {shape}, strides {x.stride()}")
    sums = batch_norm_sums(x, mean)
    y, own, scale = batch_norm_forward(x, sums, mean.clone(), variance.clone(), weight, bias)
    wide = x.double().requires_grad_()
    slopes = [None if t is None else t.double() for t in (weight, bias)]
    oracle = torch.nn.functional.batch_norm(wide, None, None, *slopes, training=True, eps=1e-5)
    _check_like(y, oracle, 1e-4)
    for_sums = batch_norm_sums(x, own.to(x.dtype), gradient)
    for_x, _, _ = batch_norm_backward(x, gradient, for_sums, for_sums, own, scale, weight)
    _check_like(for_x, torch.autograd.grad(oracle, wide, gradient.double())[0], 1e-2)


def _check_like(got: Tensor, want: Tensor, tolerance: float) -> None:
    off = (got.double() - want).abs().max()
    if got.shape != want.shape or not off <= tolerance * (1 + want.abs().max()):
        raise FaultError(f"off by {float(off)}")


_SEARCH = ("data", "pool", "k", "reject_below", "offset")
_LOSS = ("data", "reconstruction", "matched", "projected", "weights", "norm", "terms")
_NUMBERS = ("seed", "first", "rows", "columns", "scale", "device")
OPERATORS: dict[str, tuple[int, Callable[[Random, Path, Say], None], tuple[str, ...]]] = {
    "imle_knn": (10, search, _SEARCH),
    "search": (6, streaming, _SEARCH),
    "fused_loss": (8, loss, _LOSS),
    "randn": (4, normal_numbers, _NUMBERS),
    "batch_norm": (2, statistics, ("x",)),
}
"""By kind: how many of thirty tries, the try, and the arguments of which an error names one."""


def kinds() -> Kinds:
    """The kinds of calls of operators."""
    return {name: Kind(do, names=lambda _, names=names: names) for name, (_, do, names) in OPERATORS.items()}
