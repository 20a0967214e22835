"""FID and KID: Gaussians with known distance, other implementations' figures, shifts and copies."""

import json
from pathlib import Path

import pytest
import torch
from reference.feature_sets import feature_sets

from naign_ext.evaluation import fid, kid, prdc

REFERENCE = json.loads((Path(__file__).parent / "reference" / "figures.json").read_text())
SETS = feature_sets()


def normal(rows, columns, seed, scale=1.0):
    return scale * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def whitened(rows):
    """Rows with mean 0 and covariance I exactly."""
    centred = rows.double() - rows.double().mean(0)
    return torch.linalg.qr(centred).Q * (len(rows) - 1) ** 0.5


@pytest.mark.parametrize("name", ["gaussian", "digits", "faces"])
def test_agree_with_other_implementations(name):
    expected, rows = REFERENCE["sets"][name], SETS[name]
    train, samples = torch.from_numpy(rows.train), torch.from_numpy(rows.samples)
    assert fid(train, samples) == pytest.approx(expected["fid"], rel=1e-4, abs=1e-4)
    equal = min(len(train), len(samples))
    assert kid(train[:equal], samples[:equal]) == pytest.approx(expected["kid"], rel=1e-5, abs=1e-7)
    found = prdc(train, samples, k=REFERENCE["neighbours"])
    for key, value in expected["prdc"].items():
        assert getattr(found, key) == pytest.approx(value, abs=1e-9)


def test_fid_of_gaussians_has_its_closed_form():
    white = whitened(normal(300, 3, 0))
    first = white * torch.tensor([1.0, 2.0, 3.0]) + 1
    second = white[torch.randperm(300, generator=torch.Generator().manual_seed(1))] * torch.tensor(
        [2.0, 2.0, 1.0]
    )
    # |mean difference|^2 + sum over dimensions of (deviation difference)^2, for diagonal covariances.
    assert fid(first, second) == pytest.approx(3 + 1 + 0 + 4, rel=1e-5)


def test_fid_of_correlated_gaussians():
    white = whitened(normal(200, 2, 0))
    mix = torch.tensor([[2.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    covariance = mix.T @ mix
    # Against the identity: tr C + 2 - 2 tr C^(1/2).
    root = torch.linalg.eigvalsh(covariance).sqrt().sum()
    expected = float(covariance.trace() + 2 - 2 * root)
    assert fid(white, white @ mix) == pytest.approx(expected, rel=1e-5)


def test_shifts_copies_and_constants():
    x = normal(100, 4, 0)
    assert fid(x, x.clone()) == pytest.approx(0, abs=1e-5)
    assert fid(x, x + 2) == pytest.approx(16, rel=1e-5)
    assert fid(torch.zeros(5, 3), torch.ones(7, 3)) == pytest.approx(3)
    few = normal(5, 50, 1)
    assert fid(few, few + 1) == pytest.approx(50, rel=1e-4)


def test_kid_by_hand():
    # Kernel (x y + 1)^3: within x 1, within y 8 and 27's cross pair, between 1 each.
    x, y = torch.zeros(2, 1), torch.tensor([[1.0], [2.0]])
    assert kid(x, y) == pytest.approx(1 + (1 * 2 + 1) ** 3 - 2 * 1)


def test_kid_is_unbiased_and_grows_with_the_shift():
    same = [kid(normal(200, 5, 2 * i), normal(200, 5, 2 * i + 1)) for i in range(20)]
    mean, spread = torch.tensor(same).mean().item(), torch.tensor(same).std().item()
    assert abs(mean) < 3 * spread / 20**0.5
    assert min(same) < 0
    near, far = (kid(normal(200, 5, 0), normal(200, 5, 1) + shift) for shift in (0.5, 1.0))
    assert 0 < near < far


@pytest.mark.parametrize("measure", [fid, kid])
def test_errors_name_the_argument(measure):
    with pytest.raises(ValueError, match="real D = 2, samples D = 3"):
        measure(torch.ones(4, 2), torch.ones(4, 3))
    with pytest.raises(ValueError, match="samples: expected at least 2 rows"):
        measure(torch.ones(4, 2), torch.ones(1, 2))
    with pytest.raises(ValueError, match="real: expected finite"):
        measure(torch.full((4, 2), torch.nan), torch.ones(4, 2))
