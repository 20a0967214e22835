"""How likely held-out points are under exp(-E/T)/Z in one or two dimensions, and how near that is to the truth."""

from naign_ext.evaluation.density import total_variation
from naign_ext.evaluation.registry import metric
from naign_ext.evaluation.subjects import Density


@metric(
    "temperature",
    "-",
    "likelihood",
    of=Density,
    needs=("one or two dimensions",),
    baselines=(),
    title="temperature T",
    text="fitted to every other held-out point",
)
def _temperature(density: Density) -> float | None:
    return density.temperature


@metric(
    "log_likelihood",
    "higher",
    "likelihood",
    of=Density,
    needs=("one or two dimensions",),
    title="log-likelihood",
    text="mean log density of the other held-out points, nats",
)
def _log_likelihood(density: Density) -> float:
    return float(density.log_densities.mean())


@metric(
    "total_variation",
    "lower",
    "likelihood",
    of=Density,
    needs=("one or two dimensions", "a known distribution"),
    baselines=("kde", "gaussian"),
    title="total variation",
    text="half the integral of |density - truth|, in [0, 1]",
)
def _total_variation(density: Density) -> float | None:
    truth = density.context.true_shares
    return None if truth is None else total_variation(density.shares, truth)
