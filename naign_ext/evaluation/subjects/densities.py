"""Densities in one and two dimensions: exp(-E/T)/Z of f, and estimates without a network."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from naign_ext.evaluation import baselines, density, projection
from naign_ext.evaluation.context import EvalContext
from naign_ext.evaluation.results import MAP
from naign_ext.evaluation.rows import as_rows
from naign_ext.evaluation.subjects.base import Subject

LEAST_LOG_DENSITY = -50
"""Stands in where a grid estimate says 0, as JSON has no infinity."""


@dataclass(frozen=True, eq=False)
class Density(Subject):
    """A density in one or two dimensions.

    log_densities: (N,) at the context's judged points. shares: (cells,) of the context's grid. temperature: T of
    exp(-E/T), of f's alone.
    """

    log_densities: Tensor
    shares: Tensor
    temperature: float | None = None

    @classmethod
    def own(cls, context: EvalContext) -> Iterator[Self]:
        """exp(-E/T)/Z with E = |f(x) - x|^2, T from every other held-out point."""

        def energy(x: Tensor) -> Tensor:
            x = x.to(context.device, torch.float32)
            return projection.residual(x, context.apply(x)).double().square().cpu()

        grid = context.grid
        if grid is None:
            return
        energies = torch.cat([energy(part) for part in torch.split(grid.points, 1 << 15)])
        temperature = density.fit_temperature(energies, energy(context.fitting_points), grid)
        log_z = density.log_partition(energies, temperature, grid)
        at_points = -energy(context.judged_points) / temperature - log_z
        yield cls(MAP, context, at_points, density.density_shares(energies, temperature), temperature)

    @classmethod
    def baselines(cls, context: EvalContext) -> Iterator[Self]:
        """A kernel estimate, its bandwidth fitted as T is; the Gaussian of the data; and the truth."""
        grid = context.grid
        if grid is None:
            return
        train, fit_to = context.train.cpu(), context.fitting_points.cpu()
        bandwidth = density.fit_bandwidth(grid, train, fit_to)
        rows = as_rows("train", train, at_least=2).double()
        estimates = {
            "kde": grid.blurred(grid.histogram(train), bandwidth),
            "gaussian": baselines.log_normal(rows, grid.points).softmax(dim=0),
            "truth": context.true_shares,
        }
        for name, shares in estimates.items():
            if shares is not None:
                at_points = grid.log_density(shares, context.judged_points.cpu()).clamp(min=LEAST_LOG_DENSITY)
                yield cls(name, context, at_points, shares)
