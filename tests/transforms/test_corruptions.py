"""Corruptions: deterministic, of the stated strength, and what they destroy is what they say."""

import math

import pytest
import torch

from naign_ext.transforms.corruptions import (
    KINDS,
    corrupt,
    default_strength,
    degrade,
    downsample,
    gaussian_blur,
    keep_known,
    mask_like,
)


def images(count=6, channels=1, height=25, width=25):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, channels, height, width, generator=generator) * 2 - 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(6, 1, 25, 25), (2, 3, 8, 13), (1, 1, 2, 2)])
def test_shape_dtype_and_determinism(kind, shape):
    x = images(*shape)
    before = x.clone()
    first, mask = corrupt(x, kind, seed=3)
    again, mask_again = corrupt(x, kind, seed=3)
    assert torch.equal(x, before)
    assert first.shape == x.shape
    assert first.dtype == x.dtype
    assert torch.equal(first, again)
    assert (mask is None) == (kind != "mask") == (mask_again is None)
    if kind == "mask":
        assert torch.equal(mask, mask_again)


@pytest.mark.parametrize("kind", ["noise", "mask"])
def test_another_seed_gives_another_result(kind):
    x = images(40)
    assert not torch.equal(corrupt(x, kind, seed=0)[0], corrupt(x, kind, seed=1)[0])


@pytest.mark.parametrize("sigma", [None, 0.1, 1.0])
def test_noise_has_its_sigma_and_is_not_clipped(sigma):
    x = images(200)
    noise = corrupt(x, "noise", seed=0, strength=sigma)[0] - x
    expected = 0.5 if sigma is None else sigma
    assert noise.std().item() == pytest.approx(expected, rel=0.02)
    assert abs(noise.mean().item()) < 0.01
    assert noise.max() > 3 * expected


def test_noise_is_the_same_in_every_precision():
    x = images()
    full, half = corrupt(x, "noise", seed=0)[0], corrupt(x.half(), "noise", seed=0)[0]
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), full, atol=4e-3, rtol=0)


@pytest.mark.parametrize("fraction", [0.25, 0.5])
def test_masks_are_grey_boxes_of_the_fraction(fraction):
    x = images(200, channels=3, height=20, width=24)
    corrupted, mask = corrupt(x, "mask", seed=0, strength=fraction)
    assert mask.dtype == torch.bool
    assert mask.shape == (200, 1, 20, 24)
    everywhere = mask.expand_as(x)
    assert (corrupted[everywhere] == 0).all()
    assert torch.equal(corrupted[~everywhere], x[~everywhere])
    assert (mask.float().mean((1, 2, 3)) - fraction).abs().max() < 0.03
    rows, columns = mask.any(3), mask.any(2)
    # A box: the mask is the product of its shadows.
    assert torch.equal(mask, rows.unsqueeze(3) & columns.unsqueeze(2))


def test_masks_use_all_five_layouts():
    mask = mask_like(images(200), 0.5, seed=0)
    layouts = {row.numpy().tobytes() for row in mask}
    assert len(layouts) == 5
    assert mask[:, 0].float().mean(0).min() > 0.1


def test_vectors_lose_a_fraction_of_their_coordinates():
    x = torch.randn(100, 10, generator=torch.Generator().manual_seed(0))
    corrupted, mask = corrupt(x, "mask", seed=0, strength=0.3)
    assert (mask.sum(1) == 3).all()
    assert (corrupted[mask] == 0).all()
    assert torch.equal(corrupted[~mask], x[~mask])
    assert mask.sum(0).min() > 10


def test_blur_keeps_constants_and_the_mean_and_lowers_variance():
    flat = torch.full((2, 3, 9, 11), 0.3)
    torch.testing.assert_close(gaussian_blur(flat, 2.0), flat)
    x = images()
    blurred = corrupt(x, "blur", seed=0)[0]
    assert blurred.var() < 0.3 * x.var()
    assert blurred.mean().item() == pytest.approx(x.mean().item(), abs=0.02)
    assert blurred.abs().max() <= 1


def test_blur_of_a_point_has_the_stated_width():
    x = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    x[0, 0, 20, 20] = 1
    blurred = gaussian_blur(x, 2.0)[0, 0]
    positions = torch.arange(41, dtype=torch.float64) - 20
    assert blurred.sum().item() == pytest.approx(1)
    assert (blurred.sum(0) * positions.square()).sum().sqrt().item() == pytest.approx(2.0, rel=0.01)
    torch.testing.assert_close(blurred, blurred.T)


def test_blur_of_nothing_is_a_copy():
    x = images()
    result = corrupt(x, "blur", seed=0, strength=0)[0]
    assert torch.equal(result, x)
    assert result.data_ptr() != x.data_ptr()


def test_nearest_downsampling_replaces_blocks_by_their_mean():
    x = images(height=8, width=8)
    result = corrupt(x, "downsample", seed=0, strength=4, resample="nearest")[0]
    blocks = x.reshape(6, 1, 2, 4, 2, 4).mean((3, 5))
    expected = blocks.repeat_interleave(4, 2).repeat_interleave(4, 3)
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("resample", ["bilinear", "nearest"])
def test_downsampling_keeps_constants_and_odd_sizes(resample):
    flat = torch.full((1, 1, 25, 13), -0.7)
    torch.testing.assert_close(downsample(flat, 2, resample), flat)
    x = images()
    assert torch.equal(downsample(x, 1, resample), x)
    assert downsample(x, 2, resample).var() < x.var()


def test_default_strengths_are_as_documented():
    assert default_strength("noise", (1, 1, 25, 25)) == 0.5
    assert default_strength("mask", (1, 1, 25, 25)) == 0.5
    assert default_strength("downsample", (1, 1, 25, 25)) == 2
    assert default_strength("blur", (1, 1, 25, 25)) == 1
    assert default_strength("blur", (1, 1, 8, 8)) == 0.7


@pytest.mark.parametrize(
    ("kind", "options", "fragment"),
    [
        ("fog", {}, "kind: expected one of noise, mask, blur, downsample; got 'fog'"),
        ("noise", {"strength": -1}, "strength: expected a finite number"),
        ("noise", {"strength": math.nan}, "strength: expected a finite number"),
        ("mask", {"strength": 1.5}, "expected 0 to 1"),
        ("downsample", {"strength": 1.5}, "whole factor"),
        ("downsample", {"strength": 99}, "whole factor"),
        ("blur", {"strength": 1e30}, "strength: a blur's sigma is at most the image's side"),
        ("downsample", {"resample": "cubic"}, "resample: expected bilinear or nearest"),
    ],
)
def test_wrong_arguments_are_named(kind, options, fragment):
    with pytest.raises(ValueError, match=fragment):
        corrupt(images(), kind, seed=0, **options)


@pytest.mark.parametrize("kind", ["blur", "downsample"])
def test_vectors_cannot_be_blurred(kind):
    with pytest.raises(ValueError, match="is for images"):
        corrupt(torch.zeros(3, 2), kind, seed=0)


def test_integers_and_other_ranks_are_refused():
    for wrong in (torch.zeros(3, 1, 4, 4, dtype=torch.int64), torch.zeros(3, 4, 4)):
        with pytest.raises(ValueError, match="images: expected floating-point"):
            corrupt(wrong, "noise", seed=0)


def test_an_empty_batch_stays_empty():
    for kind in KINDS:
        assert corrupt(torch.zeros(0, 1, 8, 8), kind, seed=0)[0].shape == (0, 1, 8, 8)


def test_known_parts_are_put_back():
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    lost = mask_like(x, 0.5, 3)
    assert torch.equal(keep_known(y, x, lost=lost), torch.where(lost, y, x))
    assert keep_known(y, x) is y
    for kind in ("blur", "downsample"):
        low = degrade(x, kind)
        assert torch.equal(low, corrupt(x, kind, seed=0)[0])
        # The map is linear, so the original itself is a fixed point, and a shift of it returns.
        torch.testing.assert_close(keep_known(x, low, degrade=lambda v, k=kind: degrade(v, k)), x)
        torch.testing.assert_close(keep_known(x + 0.3, low, degrade=lambda v, k=kind: degrade(v, k)), x)
    with pytest.raises(ValueError, match="kind: expected blur or downsample"):
        degrade(x, "noise")


@pytest.mark.parametrize("kind", ["mask", "blur"])
def test_what_inference_mode_has_made_serves_training(kind):
    """Boxes and kernels are kept; tensors of inference mode could not be saved for a backward pass."""
    with torch.inference_mode():
        corrupt(torch.rand(3, 1, 11, 13), kind, seed=1)
    images = torch.rand(3, 1, 11, 13, requires_grad=True)
    corrupted, _ = corrupt(images, kind, seed=1)
    corrupted.square().sum().backward()
    assert images.grad is not None and torch.isfinite(images.grad).all()
