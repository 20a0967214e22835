"""The distance field: where the points are, and perfect, useless and reversed scores."""

import pytest
import torch
from scipy import stats

from naign_ext.data import load_dataset
from naign_ext.evaluation import METRICS, EvalContext, pearson
from naign_ext.evaluation.field import REACH, far_points, near_points, noise_of
from naign_ext.evaluation.subjects import Detector


@pytest.mark.parametrize("name", ["trimodal1d", "moons", "checkerboard"])
def test_points_lie_where_they_should(name):
    dataset = load_dataset(name)
    reach = REACH * noise_of(dataset)
    near, far = near_points(dataset, 0), far_points(dataset, 0)
    for field in (near, far):
        torch.testing.assert_close(field.distance, dataset.support_distance(field.points))
        assert len(field.points) > 200
    assert near.distance.max() <= reach < far.distance.min()
    centre = (dataset.train.amax(0) + dataset.train.amin(0)) / 2
    half = 0.75 * (dataset.train.amax(0) - dataset.train.amin(0))
    assert ((far.points - centre).abs() <= half + 1e-6).all()


def correlations(score, dataset):
    """Of a score (N, D) -> (N,) as if it were a residual: spearman and pearson near the support and far from it."""
    context = EvalContext.prepare(lambda x: x, dataset, samples=10)

    def moved(x):
        away = torch.zeros_like(x)
        away[:, 0] = score(x)
        return x + away

    detector = Detector("f", context, moved)
    names = ("residual_spearman", "residual_pearson", "residual_spearman_far", "residual_pearson_far")
    return {name.removeprefix("residual_"): METRICS[name].measure(detector) for name in names}


def test_the_distance_itself_is_perfect():
    dataset = load_dataset("rings")
    found = correlations(dataset.support_distance, dataset)
    assert found == pytest.approx(dict.fromkeys(("spearman", "pearson", "spearman_far", "pearson_far"), 1.0))
    squared = correlations(lambda x: dataset.support_distance(x).square(), dataset)
    assert squared["spearman"] == pytest.approx(1.0)
    assert squared["pearson"] < 0.99
    # A residual has no sign: nearness to what is far off.
    reverse = correlations(lambda x: 100 - dataset.support_distance(x), dataset)
    assert reverse["spearman_far"] == pytest.approx(-1.0)
    nothing = correlations(lambda x: torch.zeros(len(x)), dataset)
    assert set(nothing.values()) == {0.0}


def test_pearson_is_scipys():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(100, generator=rng)
    y = 0.3 * x + torch.randn(100, generator=rng)
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x.numpy(), y.numpy()).statistic, abs=1e-6)
    assert pearson(torch.ones(3), torch.arange(3.0)) == 0.0
    with pytest.raises(ValueError, match="equal length"):
        pearson(torch.ones(3), torch.ones(2))
