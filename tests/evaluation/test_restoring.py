"""Ways to restore: what a recipe does, and that the one that is best on validation images is found."""

from functools import partial

import pytest
import torch

from naign_ext.evaluation import restoring
from naign_ext.evaluation.restoration import gain
from naign_ext.evaluation.restoring import NOTHING_KNOWN, ONE_PASS, Corruption, Known, Recipe, choose
from naign_ext.transforms import degrade
from naign_ext.transforms.corruptions import gaussian_blur


def images(count=6, channels=1, side=12, seed=0):
    """Smooth images in [-1, 1]."""
    noise = torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(seed))
    return gaussian_blur(4 * noise, 2.0).clamp(-1, 1)


def smooth(x):
    return gaussian_blur(x, 1.0)


def test_a_plain_recipe_is_f_and_none_is_the_image():
    x = images()
    assert torch.equal(ONE_PASS.apply(smooth, x), smooth(x))
    assert torch.equal(Recipe(steps=2).apply(smooth, x), smooth(smooth(x)))
    assert torch.equal(Recipe(steps=0).apply(smooth, x), x)
    torch.testing.assert_close(Recipe(share=0.25).apply(smooth, x), 0.25 * smooth(x) + 0.75 * x)


@pytest.mark.parametrize(
    ("shift", "flip", "views"), [(0, False, 1), (1, False, 9), (0, True, 2), (1, True, 18)]
)
def test_the_mean_is_over_all_shifts_and_flips(shift, flip, views):
    seen = []
    inner = images(side=14)

    def f(x):
        seen.append(x.clone())
        return x * 2

    made = Recipe(shift=shift, flip=flip).apply(f, inner)
    assert len(seen) == views
    assert len({view.numpy().tobytes() for view in seen}) == views
    # A map of single pixels commutes with shifts and flips, but for the edges that a shift repeats.
    torch.testing.assert_close(made[..., 1:-1, 1:-1], 2 * inner[..., 1:-1, 1:-1])
    assert str(views) in Recipe(shift=shift, flip=flip).words or views == 1


def test_what_is_known_is_put_back_after_every_step():
    x, lost = images(), torch.zeros(1, 1, 12, 12, dtype=torch.bool)
    lost[..., 4:8] = True
    restored = Recipe(steps=3, shift=1).apply(smooth, x, Known(lost=lost))
    assert torch.equal(restored[..., :4], x[..., :4])
    assert not torch.equal(restored[..., 4:8], x[..., 4:8])
    blur = partial(degrade, kind="blur", strength=1.0)
    once = Recipe(steps=1).apply(smooth, x, Known(degrade=blur))
    torch.testing.assert_close(once, smooth(x) + x - blur(smooth(x)))


@pytest.mark.parametrize("kind", ["noise", "mask", "blur", "downsample"])
def test_a_corruption_says_what_it_leaves(kind):
    x = images(side=16)
    spoilt, known = Corruption(kind).spoil(x, 3)
    assert spoilt.shape == x.shape
    if kind == "noise":
        assert known == NOTHING_KNOWN
    elif kind == "mask":
        assert torch.equal(torch.where(known.lost, 0.0, x), spoilt)
    else:
        torch.testing.assert_close(known.degrade(x), spoilt)
    assert Corruption(kind, known=False).spoil(x, 3)[1] == NOTHING_KNOWN


def test_the_best_recipe_is_never_worse_than_the_image():
    validation, test = images(20, side=16), images(20, side=16, seed=1)
    for kind, f in [("noise", smooth), ("blur", smooth), ("noise", torch.neg), ("mask", torch.zeros_like)]:
        choice = choose(f, validation, Corruption(kind, 0.5 if kind != "blur" else 1.0), 5)
        spoilt, known = Corruption(kind, 0.5 if kind != "blur" else 1.0).spoil(validation, 5)
        assert choice.gain == pytest.approx(gain(validation, spoilt, choice.recipe.apply(f, spoilt, known)))
        assert choice.gain_of_one_pass == pytest.approx(
            gain(validation, spoilt, ONE_PASS.apply(f, spoilt, known))
        )
        assert choice.gain >= 0.0
        if choice.recipe == ONE_PASS:
            assert choice.gain == choice.gain_of_one_pass
        assert choice.images == 20
    noisy, _ = Corruption("noise", 0.5).spoil(test, 6)
    weak = partial(gaussian_blur, sigma=0.6)
    best = choose(weak, validation, Corruption("noise", 0.5), 5).recipe
    assert best.steps > 1
    assert gain(test, noisy, best.apply(weak, noisy)) > gain(test, noisy, weak(noisy)) + 1


def test_the_plainest_of_those_that_are_not_clearly_worse_is_chosen():
    def chosen(*gains):
        tried = {
            Recipe(steps=steps): torch.tensor(found) for steps, found in zip((1, 2, 4), gains, strict=True)
        }
        return restoring._plainest_of_the_best(tried).steps

    assert chosen([1.0, 1.0, 1.0], [1.1, 1.1, 1.1], [0.5, 0.5, 0.5]) == 2
    assert chosen([1.0, 1.0, 1.0], [3.0, 0.5, 0.4], [0.5, 0.5, 0.5]) == 1
    assert chosen([-1.0, -1.0, 2.5], [-0.5, -0.5, 1.6], [-9.0, -9.0, 1.0]) == 1
    assert chosen([-1.0, -1.0, -1.0], [-0.1, -0.1, 0.1], [-9.0, -9.0, 1.0]) == 0
    assert chosen([0.5], [0.9], [0.7]) == 1
    assert chosen([-0.5], [0.9], [0.7]) == 2


def test_where_f_cannot_help_images_are_left_as_they_are():
    choice = choose(torch.neg, images(), Corruption("blur", 1.0), 0)
    assert not choice.helps
    assert choice.recipe.words == "left as they are"
    assert choice.gain == 0


def test_a_part_of_f_is_taken_where_that_is_best():
    def overshoots(x):
        return 3 * smooth(x) - 2 * x

    choice = choose(overshoots, images(), Corruption("noise", 0.5), 0)
    assert choice.recipe.share < 1
    assert "of the image" in choice.recipe.words


def test_without_validation_images_f_is_applied_once():
    choice = choose(smooth, images()[:0], Corruption("noise"), 0)
    assert (choice.recipe, choice.images) == (ONE_PASS, 0)


def test_images_of_two_pixels_are_not_shifted():
    assert {recipe.shift for recipe in restoring.recipes((1, 2, 9))} == {0}
