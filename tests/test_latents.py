"""Latent pools: the same bits whatever the chunking, another pool with every draw."""

import pytest
import torch

from naign_ext.latents import LatentPool, spherical_steps
from naign_ext.ops import randn
from naign_ext.seeds import derive_seed, generator


@pytest.mark.parametrize("shape", [(1,), (2,), (1, 5, 5)])
def test_any_chunking_gives_the_same_bits(shape):
    pool = LatentPool(shape, 2.0, seed=3)
    whole = pool.chunk(0, 300)
    assert whole.shape == (300, *shape) and whole.dtype == torch.float32
    for size in (1, 7, 64, 129):
        pieces = [pool.chunk(i, min(i + size, 300)) for i in range(0, 300, size)]
        assert torch.equal(torch.cat(pieces), whole)
    assert torch.equal(pool.chunk(250, 260), whole[250:260])
    assert pool.chunk(5, 5).shape == (0, *shape)


def test_a_pool_is_fixed_for_all_time():
    pool = LatentPool((2, 3), 2.0, seed=9)
    pool.draw = 4
    expected = randn(derive_seed(9, "latents", 4), 7, 5, 6, scale=2.0).view(5, 2, 3)
    assert torch.equal(pool.chunk(7, 12), expected)
    first = torch.tensor([0.7016453742980957, 0.4525899291038513, -0.9100348353385925, 0.797615110874176])
    assert torch.equal(LatentPool((4,), 1.0, seed=0).chunk(0, 1)[0], first)


def test_rows_beyond_32_bits():
    pool = LatentPool((3,), 1.0, seed=0)
    row = 2**40 + 5
    assert torch.equal(pool.rows(torch.tensor([row])), pool.chunk(row, row + 1))
    assert not torch.isclose(pool.chunk(row, row + 1), pool.chunk(5, 6)).any()


def test_chosen_rows_are_those_of_the_chunk():
    pool = LatentPool((3,), 1.0, seed=0)
    pool.draw = 12
    whole = pool.chunk(0, 500)
    indices = torch.tensor([499, 0, 0, 63, 64, 250, 63, 499])
    assert torch.equal(pool.rows(indices), whole[indices])
    assert pool.rows(indices[:0]).shape == (0, 3)


def test_a_missing_match_gives_zeros():
    pool = LatentPool((2,), 1.0, seed=0)
    rows = pool.rows(torch.tensor([-1, 4, -1]))
    assert torch.equal(rows[[0, 2]], torch.zeros(2, 2))
    assert torch.equal(rows[1], pool.chunk(4, 5)[0])


def test_draw_seed_and_row_all_matter():
    pool = LatentPool((4,), 1.0, seed=0)
    first = pool.chunk(0, 128)
    pool.draw = 1
    second = pool.chunk(0, 128)
    other = LatentPool((4,), 1.0, seed=1).chunk(0, 128)
    for a, b in ((first, second), (first, other), (first[:64], first[64:])):
        assert not torch.isclose(a, b).any()
    pool.draw = 0
    assert torch.equal(pool.chunk(0, 128), first)


def test_latents_are_normal_with_the_scale_asked_for():
    z = LatentPool((8,), 2.5, seed=7).chunk(0, 20_000)
    assert abs(z.mean().item()) < 0.03
    assert abs(z.std().item() - 2.5) < 0.03
    assert abs((z.abs() < 2.5).float().mean().item() - 0.6827) < 0.005
    correlation = torch.corrcoef(z.T) - torch.eye(8)
    assert correlation.abs().max() < 0.03


def test_global_generator_is_left_alone():
    before = torch.get_rng_state()
    LatentPool((2,), 1.0, seed=0).chunk(0, 10)
    generator(0, "anything")
    assert torch.equal(torch.get_rng_state(), before)


def test_seeds_are_fixed_for_all_time_and_differ_between_streams():
    assert derive_seed(3, "noise", 5) == 8494324888569835685
    seeds = {derive_seed(a, b, c) for a in range(5) for b in ("noise", "order") for c in range(50)}
    assert len(seeds) == 500 and all(0 <= s < 2**63 for s in seeds)
    assert derive_seed(1, "2") != derive_seed("1", 2) != derive_seed(12)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [(((), 1.0), "shape"), (((0,), 1.0), "shape"), (((2,), 0.0), "scale"), (((2,), float("nan")), "scale")],
)
def test_wrong_arguments_are_named(arguments, name):
    with pytest.raises(ValueError, match=f"^{name}"):
        LatentPool(*arguments, seed=0)


def test_wrong_rows_are_named():
    pool = LatentPool((2,), 1.0, seed=0)
    with pytest.raises(ValueError, match="start"):
        pool.chunk(3, 2)
    with pytest.raises(TypeError, match="indices"):
        pool.rows(torch.tensor([0.0]))


def test_steps_between_latents_are_equal_turns_of_unchanged_length():
    first, second = torch.randn(2, 1, 9, 9, generator=generator(0, "test"))
    second *= first.norm() / second.norm()
    steps = spherical_steps(first, second, 7)
    assert steps.shape == (7, 1, 9, 9) and steps.dtype == torch.float32
    torch.testing.assert_close(steps[0], first)
    torch.testing.assert_close(steps[-1], second)
    rows = steps.flatten(1)
    torch.testing.assert_close(rows.norm(dim=1), first.norm().expand(7))
    turns = torch.nn.functional.cosine_similarity(rows[:-1], rows[1:])
    torch.testing.assert_close(turns, turns[:1].expand(6))


def test_latents_on_one_line_are_joined_by_it():
    line = torch.tensor([1.0, 2.0])
    assert torch.equal(spherical_steps(line, line, 3), line.expand(3, 2))
    assert torch.equal(spherical_steps(line, -line, 3)[1], torch.zeros(2))
    with pytest.raises(ValueError, match="count: expected 2 or more, got 1"):
        spherical_steps(line, line, 1)
    with pytest.raises(ValueError, match=r"second: expected the shape of first, \(2,\), got \(1,\)"):
        spherical_steps(line, line[:1], 3)
