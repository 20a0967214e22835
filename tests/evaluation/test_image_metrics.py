"""Projection errors, out-of-distribution scores, PSNR and SSIM, features: known answers."""

import math

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import nn

from naign_ext.evaluation import (
    auroc,
    fixed_point_error,
    idempotence_error,
    multiscale_residual,
    nearest_distance,
    non_identity,
    normalised_residual,
    psnr,
    residual,
    ssim,
)
from naign_ext.evaluation.baselines import best_filter, mean_image, pca_gaussian
from naign_ext.evaluation.classifier import class_coverage, fit_classifier
from naign_ext.evaluation.ood import nearest_row
from naign_ext.evaluation.projection import apply


def images(count, size, seed, channels=1):
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, size, size, generator=rng) * 2 - 1


def test_identity_and_clamp_as_projectors():
    z = torch.tensor([[3.0, -1.0], [0.5, 0.0]])
    assert fixed_point_error(lambda x: x, z) == 0.0
    assert idempotence_error(lambda x: x, z) == 0.0
    assert non_identity(lambda x: x, z) == 0.0
    clamp = lambda x: x.clamp(-1, 1)  # noqa: E731
    assert idempotence_error(clamp, z) == 0.0
    assert non_identity(clamp, z) == 4 / 4
    half = lambda x: x / 2  # noqa: E731
    assert idempotence_error(half, z) == pytest.approx((z / 4).square().mean().item())
    assert fixed_point_error(half, z) == pytest.approx((z / 2).square().mean().item())


def test_apply_repeats_in_batches_without_gradient():
    layer = nn.Linear(3, 3)
    x = torch.ones(7, 3)
    y = apply(layer, x, steps=2, batch_size=3)
    torch.testing.assert_close(y, layer(layer(x)).detach())
    assert not y.requires_grad
    assert apply(layer, x, steps=0) is x
    with pytest.raises(ValueError, match="f: expected it to keep the shape"):
        apply(lambda v: v[:, :2], x)
    with pytest.raises(ValueError, match="steps: expected 0 or more"):
        apply(layer, x, steps=-1)


def test_residuals():
    x = torch.tensor([[[[1.0, -1.0], [1.0, -1.0]]], [[[0.1, -0.1], [0.1, -0.1]]]])
    y = x + 0.5
    torch.testing.assert_close(residual(x, y), torch.tensor([1.0, 1.0]))
    found = normalised_residual(x, y)
    assert found[0].item() == pytest.approx(0.25, rel=1e-4)
    assert found[1].item() == pytest.approx(25, rel=1e-3)
    assert normalised_residual(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)).isfinite().all()


def test_multiscale_residual_by_hand():
    # A checkerboard vanishes under blurring: f that removes it errs at the finest scale alone.
    board = torch.ones(16, 16)
    board[::2, 1::2] = board[1::2, ::2] = -1
    ramp = torch.linspace(-0.5, 0.5, 16).expand(16, 16)
    x = (ramp + 0.3 * board)[None, None]
    fine, coarse = multiscale_residual(x, ramp[None, None]), multiscale_residual(x, x * 0)
    variance = x.double().var(unbiased=False)
    first = math.log(0.09 / variance.item())
    assert fine.item() < (first - 2 * 3) / 3
    # f = 0 errs by x itself: mean square over variance of a picture of mean 0, at all scales.
    assert coarse.item() == pytest.approx(0.0, abs=1e-3)
    assert multiscale_residual(x, x).item() < -10
    assert multiscale_residual(x * 0, x).isfinite().all()


def test_multiscale_residual_of_vectors_has_one_scale():
    x = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    assert multiscale_residual(x, x + 0.5).item() == pytest.approx(math.log(0.25), rel=1e-3)


def test_auroc_counts_pairs():
    assert auroc(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])) == 1.0
    assert auroc(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 2.0])) == 0.0
    assert auroc(torch.tensor([1.0, 1.0]), torch.tensor([1.0])) == 0.5
    assert auroc(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 3.0])) == (1 + 0 + 1 + 0.5) / 4
    assert auroc(torch.tensor([0.0]), torch.tensor([torch.inf])) == 1.0


def test_auroc_is_scikit_learns():
    from sklearn.metrics import roc_auc_score

    rng = torch.Generator().manual_seed(0)
    inside = torch.randint(0, 20, (200,), generator=rng).float()
    outside = torch.randint(5, 25, (150,), generator=rng).float()
    truth = [0] * 200 + [1] * 150
    expected = roc_auc_score(truth, torch.cat([inside, outside]).numpy())
    assert auroc(inside, outside) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ValueError, match="inside: expected no NaN"):
        auroc(torch.tensor([torch.nan]), outside)
    with pytest.raises(ValueError, match="outside: expected scores"):
        auroc(inside, torch.ones(0))


def test_nearest_distance():
    train = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    torch.testing.assert_close(nearest_distance(train, torch.tensor([[3.0, 4.0]])), torch.tensor([5.0]))
    assert torch.equal(nearest_row(train, torch.tensor([[7.0, 4.0], [1.0, 0.0]])), train.flip(0))
    with pytest.raises(ValueError, match="x: expected finite numbers"):
        nearest_row(train, torch.tensor([[7.0, torch.nan], [1.0, 0.0]]))


def test_psnr_of_known_noise_and_of_equal_images():
    clean = torch.zeros(2, 1, 8, 8)
    assert psnr(clean, clean + 0.2)[0].item() == pytest.approx(20.0)
    assert math.isinf(psnr(clean, clean)[0].item())
    with pytest.raises(ValueError, match=r"original \(2, 1, 8, 8\), other \(1, 1, 8, 8\)"):
        psnr(clean, clean[:1])


@pytest.mark.parametrize(("size", "channels", "window"), [(25, 1, 7), (8, 3, 7), (6, 1, 5), (3, 1, 3)])
def test_psnr_and_ssim_are_scikit_images(size, channels, window):
    a, b = images(2, size, 0, channels), images(2, size, 1, channels)
    for i in range(2):
        first, second = a[i].double().numpy(), b[i].double().numpy()
        expected = peak_signal_noise_ratio(first, second, data_range=2)
        assert psnr(a, b)[i].item() == pytest.approx(expected, rel=1e-9)
        expected = structural_similarity(first, second, win_size=window, channel_axis=0, data_range=2)
        assert ssim(a, b)[i].item() == pytest.approx(expected, rel=1e-9)
    assert ssim(a, a)[0].item() == pytest.approx(1.0)


def test_ssim_refuses_tiny_images():
    with pytest.raises(ValueError, match="H >= 3"):
        ssim(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2))


def blobs(count, seed):
    """Two classes of 4 x 4 images: bright left or bright right half, with noise."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (count,), generator=rng)
    picture = torch.full((count, 1, 4, 4), -1.0)
    picture[labels == 0, :, :, :2] = 1
    picture[labels == 1, :, :, 2:] = 1
    return picture + 0.3 * torch.randn(picture.shape, generator=rng), labels


def test_classifier_learns_is_reproducible_and_leaves_the_random_state_alone():
    train, labels = blobs(200, 0)
    test, truth = blobs(100, 1)
    state = torch.get_rng_state()
    with torch.no_grad():
        first = fit_classifier(train, labels, seed=3, steps=60)
        second = fit_classifier(train, labels, seed=3, steps=60)
    assert torch.equal(state, torch.get_rng_state())
    assert first.accuracy(test, truth) > 0.98
    torch.testing.assert_close(first.features(test), second.features(test), rtol=0, atol=0)
    assert class_coverage(first.probabilities(test)) == 2
    assert class_coverage(first.probabilities(test[truth == 1])) == 1


def test_classifier_refuses_bad_labels():
    train, labels = blobs(20, 0)
    with pytest.raises(ValueError, match="labels: expected int64"):
        fit_classifier(train, labels[:5])
    with pytest.raises(ValueError, match="labels: expected classes"):
        fit_classifier(train, torch.zeros(20, dtype=torch.int64))
    with pytest.raises(ValueError, match="images: expected"):
        fit_classifier(train.flatten(1), labels)


def test_pca_gaussian_has_the_moments_of_the_data():
    rng = torch.Generator().manual_seed(0)
    data = torch.randn(2000, 3, generator=rng) * torch.tensor([3.0, 1.0, 0.1]) + 5
    drawn = pca_gaussian(data, 20_000, 1, components=3)
    torch.testing.assert_close(drawn.mean(0), data.mean(0), rtol=0.02, atol=0.02)
    torch.testing.assert_close(drawn.std(0), data.std(0), rtol=0.05, atol=0)
    flat = pca_gaussian(data, 100, 1, components=1)
    assert torch.linalg.matrix_rank(flat - data.mean(0), atol=1e-3).item() == 1
    assert mean_image(data, 4).shape == (4, 3)


def test_best_filter_smooths_noise_and_leaves_clean_images():
    x = torch.linspace(-1, 1, 16)
    clean = (x[:, None] * x[None, :]).expand(8, 1, 16, 16)
    noisy = clean + 0.5 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    assert best_filter(clean, clean) == 0.0
    assert best_filter(clean, noisy) >= 1.0
