"""Inputs that are not data: what each kind keeps of the data, and what it breaks."""

import pytest
import torch

from naign_ext.transforms.foreign import (
    ForeignInputs,
    Spectrum,
    fill_box,
    scramble,
    shape_noise,
    turn,
    widen,
    zoom,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count=6, channels=3, height=11, width=11):
    return torch.randn(count, channels, height, width, generator=seeded(1))


@pytest.mark.parametrize("shape", [(1, 25, 25), (3, 11, 11), (2, 7, 13), (1, 2, 2), (1, 3, 9)])
def test_scrambled_images_keep_their_values_and_move_whole_cells(shape):
    x = images(8, *shape)
    y = scramble(x, seeded())
    assert torch.equal(y.flatten(1).sort().values, x.flatten(1).sort().values)
    side = max(1, min(shape[1:]) // 5)
    rows, columns = shape[1] // side * side, shape[2] // side * side
    assert torch.equal(y[..., rows:, :], x[..., rows:, :])
    assert torch.equal(y[..., :, columns:], x[..., :, columns:])
    assert bool((y != x).any())
    cells = {
        tuple(c.flatten().tolist())
        for c in x[0].unfold(1, side, side).unfold(2, side, side).flatten(1, 2).unbind(1)
    }
    assert tuple(y[0, :, :side, :side].flatten().tolist()) in cells


def test_turned_images_are_no_longer_upright():
    x = images(60)
    y = turn(x, seeded())
    ways = torch.stack([x.flip(2), x.rot90(1, (2, 3)), x.rot90(-1, (2, 3))])
    of = (ways == y).flatten(2).all(dim=2)
    assert bool((of.sum(dim=0) == 1).all())
    assert bool((of.sum(dim=1) > 5).all())
    oblong = images(4, 1, 5, 8)
    assert torch.equal(turn(oblong, seeded()), oblong.flip(2))


def test_zoomed_images_show_a_part_of_the_image():
    ramp = torch.arange(40.0).expand(50, 1, 40, 40)
    y = zoom(ramp, seeded())
    span = y.flatten(1).amax(1) - y.flatten(1).amin(1)
    assert y.shape == ramp.shape
    assert bool((y >= 0).all() and (y <= 39).all())
    assert bool((span > 0.2 * 39).all() and (span < 0.7 * 39).all())


def test_shaped_noise_has_the_mean_and_deviation_of_the_data_at_each_frequency():
    smooth = torch.nn.functional.avg_pool2d(images(400, 1, 17, 16), 5, stride=1, padding=2) + 0.3
    spectrum = Spectrum.of(smooth)
    made = shape_noise(torch.randn(4000, 1, 17, 16, generator=seeded(2)), spectrum)
    found = Spectrum.of(made)
    torch.testing.assert_close(found.mean, spectrum.mean, rtol=0, atol=float(0.08 * spectrum.real.max()))
    power = (spectrum.real.square() + spectrum.imaginary.square()).sqrt()
    torch.testing.assert_close(
        (found.real.square() + found.imaginary.square()).sqrt(),
        power,
        rtol=0.1,
        atol=float(0.02 * power.mean()),
    )


def test_points_of_a_box_fill_it_one_and_a_half_times():
    data = torch.stack([torch.linspace(-1, 1, 50), torch.linspace(4, 10, 50)], dim=1)
    made = fill_box(data[:1].expand(4000, 2), data, seeded())
    torch.testing.assert_close(made.amin(0), torch.tensor([-1.5, 2.5]), rtol=0, atol=0.02)
    torch.testing.assert_close(made.amax(0), torch.tensor([1.5, 11.5]), rtol=0, atol=0.02)
    assert bool((made.std(0) / torch.tensor([3.0, 9.0]) - 12**-0.5).abs().max() < 0.01)


def test_widened_points_lie_around_data_in_the_datas_own_units():
    data = torch.randn(500, 2, generator=seeded(3)) * torch.tensor([1.0, 100.0])
    rows = data[:1].expand(4000, 2)
    spread = (widen(rows, data, seeded()) - rows).std(0) / data.std(0)
    # The deviation is 2 U, U ~ U(0, 1): its mean square is 4/3.
    torch.testing.assert_close(spread, torch.full((2,), (4 / 3) ** 0.5), rtol=0.05, atol=0)


@pytest.mark.parametrize("data", [images(), torch.randn(30, 4, generator=seeded())])
def test_kinds_take_turns_and_a_draw_depends_on_the_generator_alone(data):
    source = ForeignInputs(data)
    drawn = source.draw(9, seeded(5))
    assert drawn.shape == (9, *data.shape[1:])
    assert torch.equal(drawn, source.draw(9, seeded(5)))
    assert not torch.equal(drawn, source.draw(9, seeded(6)))
    assert bool(drawn.isfinite().all())
    assert source.kinds == (
        ("scrambled", "turned", "zoomed", "spectral") if data.dim() == 4 else ("box", "wide")
    )
    assert not bool((drawn[:, None] == data).flatten(2).all(dim=2).any())
    assert len(ForeignInputs(data).draw(1, seeded())) == 1


def test_turned_alone_is_the_turn_of_chosen_images():
    x = images()
    drawn = ForeignInputs(x, ("turned",)).draw(12, seeded(7))
    random = seeded(7)
    chosen = x[torch.randint(len(x), (12,), generator=random)]
    assert torch.equal(drawn, turn(chosen, random))


@pytest.mark.parametrize(
    ("data", "kinds", "text"),
    [
        (images(), ("box",), "kinds: expected of scrambled, turned, zoomed, spectral for images, got 'box'"),
        (torch.zeros(3, 2), ("turned",), "kinds: expected of box, wide for vectors, got 'turned'"),
        (images(), (), "kinds: expected at least one"),
        (images(4, 1, 1, 9), None, "data: expected images of at least 2 x 2 pixels"),
    ],
)
def test_kinds_that_do_not_fit_are_named(data, kinds, text):
    with pytest.raises(ValueError, match=text):
        ForeignInputs(data, kinds)
