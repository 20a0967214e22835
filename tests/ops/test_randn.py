"""Normal numbers by row: known answers, the same bits everywhere, and that they are normal."""

import hashlib
import itertools
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torch._subclasses import FakeTensorMode

from naign_ext import _native
from naign_ext.ops import randn, randn_rows
from naign_ext.ops import randn_reference as reference

ROOT = Path(__file__).parents[2]
ISAS = ("avx512", "avx2", "portable")
SIZES = ((1440, 25), (3001, 2), (700, 1), (700, 3), (64, 4), (5, 5000), (40, 2 * 1029), (0, 7), (200, 64))

ANSWERS = f"""
import hashlib, torch
from naign_ext import _native
from naign_ext.ops import randn, randn_rows
for threads in (1, 2, 3):
    torch.set_num_threads(threads)
    digest = hashlib.sha256()
    for rows, columns in {SIZES}:
        table = randn(2**64 - 3, 2**32 - 50, rows, columns, scale=0.7)
        digest.update(table.numpy().tobytes())
        chosen = torch.arange(2**33, 2**33 - 3 * rows, -3)
        chosen[::5] = -1
        digest.update(randn_rows(11, chosen, columns).numpy().tobytes())
    print(_native.status()["isa"], digest.hexdigest())
"""


def same_bits(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a.view(torch.int32), b.view(torch.int32))


def by_reference(seed: int, rows: Tensor, columns: int, scale: float = 1.0) -> Tensor:
    out = torch.full((len(rows), columns), math.nan)
    reference.randn(out, rows, 0, seed, scale)
    return out


def words(*values: int) -> list[Tensor]:
    return [torch.tensor([value]) for value in values]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0] * 4, 0, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, 2**64 - 1, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            0x299F31D0 << 32 | 0xA4093822,
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_random123s_known_answers(counter: list[int], key: int, expected: list[int]) -> None:
    assert [int(word) for word in reference.philox(key, words(*counter))] == expected


def test_words_are_those_of_the_counter() -> None:
    row, seed = (7 << 32) + 9, 0x0123456789ABCDEF
    found = reference.words(seed, torch.tensor([row]), 12)
    expected = reference.philox(seed, words(9, 7, 2, 0))
    assert [int(word[0, 2]) for word in found] == [int(word) for word in expected]


def digests(**environment: str) -> list[tuple[str, str]]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ANSWERS],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [tuple(line.rsplit(" ", 1)) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("isa", [*ISAS, "torch reference"])
def test_the_same_bits_with_every_instruction_set_number_of_threads_and_without_the_extension(
    isa: str,
) -> None:
    if not _native.status()["cpu_features"].get(isa, True):
        pytest.skip(f"this processor has no {isa}")
    digest = hashlib.sha256()
    for rows, columns in SIZES:
        table = by_reference(2**64 - 3, torch.arange(2**32 - 50, 2**32 - 50 + rows), columns, 0.7)
        digest.update(table.numpy().tobytes())
        chosen = torch.arange(2**33, 2**33 - 3 * rows, -3)
        chosen[::5] = -1
        digest.update(by_reference(11, chosen, columns).numpy().tobytes())
    choice = {"NAIGN_ISA": isa} if isa in ISAS else {"NAIGN_DISABLE_EXTENSION": "1"}
    assert digests(**choice) == [(isa, digest.hexdigest())] * 3


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1),
    first=st.one_of(st.integers(0, 300), st.integers(0, 2**63 - 400)),
    rows=st.integers(0, 300),
    columns=st.integers(1, 70),
    cuts=st.lists(st.integers(0, 300), max_size=4),
    data=st.data(),
)
def test_any_chunking_and_any_choice_of_rows(
    seed: int, first: int, rows: int, columns: int, cuts: list[int], data: st.DataObject
) -> None:
    whole = randn(seed, first, rows, columns)
    assert same_bits(whole, by_reference(seed, torch.arange(rows) + first, columns))
    edges = [0, *sorted(min(cut, rows) for cut in cuts), rows]
    pieces = [randn(seed, first + a, b - a, columns) for a, b in itertools.pairwise(edges)]
    assert same_bits(torch.cat(pieces), whole)
    chosen = torch.tensor(
        data.draw(st.lists(st.integers(0, max(0, rows - 1)), max_size=200 if rows else 0)),
        dtype=torch.int64,
    )
    assert same_bits(randn_rows(seed, chosen + first, columns), whole[chosen])


def test_every_number_of_columns_is_the_beginning_of_a_longer_row() -> None:
    widest = randn(3, 5, 300, 140)
    for columns in (*range(1, 21), 63, 64, 65, 127, 139):
        assert same_bits(randn(3, 5, 300, columns), widest[:, :columns].contiguous())


def test_rows_and_seeds_beyond_32_bits() -> None:
    tables = [randn(seed, first, 4, 40) for seed in (5, 5 + 2**32) for first in (0, 2**32, 2**62)]
    for i, a in enumerate(tables):
        for b in tables[:i]:
            assert not torch.isclose(a, b, rtol=1e-6, atol=0).any()
    rows = torch.tensor([2**63 - 1, 2**32, 0])
    assert same_bits(randn(5, 2**63 - 1, 1, 40)[0], randn_rows(5, rows, 40)[0])


def test_negative_rows_are_zeros_and_strides_do_not_matter() -> None:
    rows = torch.tensor([[3, 0], [-1, 0], [2**33, 0], [-(2**63), 0]])[:, 0]
    found = randn_rows(1, rows, 7, scale=-2.0)
    assert not rows.is_contiguous()
    assert same_bits(found, by_reference(1, rows, 7, -2.0))
    assert same_bits(found[[1, 3]], torch.zeros(2, 7))
    assert (found[[0, 2]] != 0).all()


def test_the_scale_is_one_multiplication() -> None:
    assert same_bits(randn(4, 0, 50, 9, scale=0.1), randn(4, 0, 50, 9) * 0.1)


def test_the_pieces_are_near_to_float64() -> None:
    g = torch.Generator().manual_seed(0)
    word = torch.randint(1 << 32, (1_000_000,), generator=g)
    edges = torch.arange(1024)
    word = torch.cat([word, edges, (1 << 32) - 1 - edges, *[(1 << k) + edges - 512 for k in range(10, 32)]])
    u = reference.uniform(word).double() / 2.0**31
    assert 0 < u.min() <= 2.0**-32 and u.max() == 1 - 2.0**-24
    exact = -2 * u.log()
    found = reference.minus_two_log(word)
    assert (found > 0).all()
    assert ((found.double() - exact) / exact).abs().max() < 3e-7
    t = (word << 2 & 0xFFFFFFFF).double()
    t = torch.where(t >= 2.0**31, t - 2.0**32, t).float().double() / 2.0**32
    angle = ((word >> 30) + t) * (math.pi / 2)
    for found, exact in zip(reference.direction(word), (angle.cos(), angle.sin()), strict=True):
        assert (found.double() - exact).abs().max() < 1.5e-7
        away = exact.abs() > 1e-6  # float64 itself knows the angle to no more digits
        assert ((found.double() - exact) / exact)[away].abs().max() < 3e-7


def test_square_roots_are_rounded_to_nearest() -> None:
    x = torch.rand(200_000, generator=torch.Generator().manual_seed(1)) * 45
    root = reference.square_root(x)
    exact = x.double()
    for neighbour in (root.nextafter(torch.tensor(math.inf)), root.nextafter(torch.tensor(0.0))):
        # |root - sqrt(x)| < |neighbour - sqrt(x)|: sqrt(x) is on root's side of the middle, which float64 holds.
        middle = (root.double() + neighbour.double()) / 2
        assert ((middle.square() > exact) == (neighbour > root)).all()


def test_numbers_are_near_to_float64() -> None:
    found = randn(6, 2**40, 2000, 250).double()
    exact = reference.randn_float64(6, torch.arange(2000) + 2**40, 250)
    assert ((found - exact) / exact).abs().max() < 5e-7


def test_a_million_numbers_are_normal() -> None:
    z = randn(2, 10, 1000, 1000).flatten().double()
    error = len(z) ** -0.5
    assert abs(z.mean()) < 4 * error
    assert abs(z.square().mean() - 1) < 4 * math.sqrt(2) * error
    assert abs(z.pow(3).mean()) < 4 * math.sqrt(15) * error
    assert abs(z.pow(4).mean() - 3) < 4 * math.sqrt(96) * error
    assert stats.kstest(z.numpy(), "norm").pvalue > 1e-3
    tail = (z.abs() > 4).double().sum().item()
    assert stats.binomtest(int(tail), len(z), 2 * stats.norm.sf(4)).pvalue > 1e-3


def test_columns_within_a_group_are_each_normal() -> None:
    z = randn(12, 0, 200_000, 4).double().numpy()
    assert min(stats.kstest(z[:, k], "norm").pvalue for k in range(4)) > 1e-3


def test_neighbouring_rows_columns_and_seeds_are_uncorrelated() -> None:
    z, other = randn(8, 0, 1000, 1000).double(), randn(9, 0, 1000, 1000).double()
    pairs = {"rows": (z[1:], z[:-1]), "seeds": (z, other)}
    pairs |= {f"columns {k}": (z[:, k:], z[:, :-k]) for k in (1, 2, 3, 4)}
    for name, (a, b) in pairs.items():
        for power in (1, 2):
            x, y = a.pow(power).flatten(), b.pow(power).flatten()
            assert abs(torch.corrcoef(torch.stack([x, y]))[0, 1]) < 4 / math.sqrt(len(x)), (name, power)


@pytest.mark.parametrize("operator", ["randn", "randn_reference"])
def test_opcheck(operator: str) -> None:
    rows = torch.tensor([3, -1, 2**40])
    for chosen in (rows, None):
        torch.library.opcheck(getattr(torch.ops.naign, operator), (torch.empty(3, 6), chosen, 7, -5, 2.0))


def test_fake_tensors_have_the_result_s_form() -> None:
    with FakeTensorMode():
        found = randn(0, 0, 12, 7)
        chosen = randn_rows(0, torch.zeros(5, dtype=torch.int64), 3)
    assert (found.shape, found.dtype, chosen.shape) == ((12, 7), torch.float32, (5, 3))


@pytest.mark.slow
def test_compiles_to_a_full_graph() -> None:
    def made(rows: Tensor) -> Tensor:
        return randn(1, 2, 3, 4).sum() + randn_rows(2**64 - 1, rows, 5) * 2

    rows = torch.tensor([1, 2, -1])
    torch.testing.assert_close(torch.compile(made, fullgraph=True)(rows), made(rows))


def test_inference_mode() -> None:
    with torch.inference_mode():
        assert torch.equal(randn(1, 2, 3, 4), randn_rows(1, torch.arange(2, 5), 4))


@pytest.mark.parametrize(
    ("arguments", "options", "error", "name"),
    [
        ((-1, 0, 1, 1), {}, ValueError, "seed"),
        ((2**64, 0, 1, 1), {}, ValueError, "seed"),
        ((1.0, 0, 1, 1), {}, TypeError, "seed"),
        ((0, -1, 1, 1), {}, ValueError, "first"),
        ((0, True, 1, 1), {}, TypeError, "first"),
        ((0, 2**63 - 1, 2, 1), {}, ValueError, "first"),
        ((0, 0, -1, 1), {}, ValueError, "rows"),
        ((0, 0, 1.5, 1), {}, TypeError, "rows"),
        ((0, 0, 1, 0), {}, ValueError, "columns"),
        ((0, 0, 0, 2**34 + 1), {}, ValueError, "columns"),
        ((0, 0, 1, 1), {"scale": math.inf}, ValueError, "scale"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: tuple, options: dict[str, float], error: type[Exception], name: str
) -> None:
    with pytest.raises(error, match=f"^{name}: expected"):
        randn(*arguments, **options)


@pytest.mark.parametrize("rows", [[1, 2], torch.tensor([1.0]), torch.tensor([[1]]), torch.tensor([1]).int()])
def test_wrong_rows_are_named(rows: object) -> None:
    with pytest.raises(TypeError, match=r"^rows: expected"):
        randn_rows(0, rows, 2)


def test_the_operator_refuses_other_memory() -> None:
    rows = torch.arange(3)
    for out in (torch.empty(3, 4).double(), torch.empty(4, 3).T, torch.empty(3)):
        with pytest.raises(RuntimeError, match="out: expected"):
            torch.ops.naign.randn(out, None, 0, 0, 1.0)
    for chosen in (rows[:2], rows.int(), rows[:, None]):
        with pytest.raises(RuntimeError, match="rows: expected"):
            torch.ops.naign.randn(torch.empty(3, 4), chosen, 0, 0, 1.0)
