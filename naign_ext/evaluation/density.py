"""The density exp(-E(x)/T)/Z in one and two dimensions: its integral, its temperature, its distance to the truth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from naign_ext.data.dataset import Dataset
from naign_ext.data.toys import TOYS

Box = Sequence[tuple[float, float]]

_CELLS_A_WIDTH = 2.0


@dataclass(frozen=True)
class Grid:
    """Equal cells that fill a box of D dimensions, in row-major order.

    points: (cells, D) float64, their centres. counts: cells along each axis. widths: their sides.
    """

    points: Tensor
    low: tuple[float, ...]
    counts: tuple[int, ...]
    widths: tuple[float, ...]

    @classmethod
    def over(cls, box: Box, counts: Sequence[int]) -> "Grid":
        """Grid of counts[d] cells along axis d of box, pairs (lowest, highest)."""
        widths = tuple((high - low) / n for (low, high), n in zip(box, counts, strict=True))
        axes = [
            low + width * (torch.arange(n, dtype=torch.float64) + 0.5)
            for (low, _), width, n in zip(box, widths, counts, strict=True)
        ]
        points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)
        return cls(points, tuple(low for low, _ in box), tuple(counts), widths)

    @property
    def log_cell(self) -> float:
        """log of a cell's volume."""
        return sum(math.log(width) for width in self.widths)

    def cells_of(self, x: Tensor) -> Tensor:
        """(N,) the cell that holds each row of x (N, D); rows outside the box get -1."""
        index = torch.zeros(len(x), dtype=torch.int64)
        inside = torch.ones(len(x), dtype=torch.bool)
        for d, (low, width, count) in enumerate(zip(self.low, self.widths, self.counts, strict=True)):
            along = ((x[:, d].double().cpu() - low) / width).floor().long()
            inside &= (along >= 0) & (along < count)
            index = index * count + along.clamp(0, count - 1)
        return torch.where(inside, index, -1)

    def histogram(self, x: Tensor) -> Tensor:
        """(cells,) float64 shares of the rows x (N, D) that lie in the box."""
        cells = self.cells_of(x)
        counts = torch.bincount(cells[cells >= 0], minlength=math.prod(self.counts)).double()
        return counts / counts.sum().clamp(min=1)

    def blurred(self, shares: Tensor, deviation: float) -> Tensor:
        """shares convolved with the isotropic Gaussian of that standard deviation, renormalised in the box."""
        from scipy.ndimage import gaussian_filter

        sigmas = [deviation / width for width in self.widths]
        values = gaussian_filter(shares.view(self.counts).numpy(), sigmas, mode="constant", truncate=6.0)
        spread = torch.from_numpy(values).flatten()
        return spread / spread.sum()

    def log_density(self, shares: Tensor, x: Tensor) -> Tensor:
        """(N,) log of the density that is constant in each cell, at x (N, D); -inf outside the box."""
        cells = self.cells_of(x)
        found = shares.log()[cells.clamp(min=0)] - self.log_cell
        return torch.where(cells >= 0, found, -math.inf)


def log_partition(energy: Tensor, temperature: float, grid: Grid) -> float:
    """log Z, Z = integral over the box of exp(-E/T) by the midpoint rule; energy (cells,) at the grid's points."""
    return float((-energy / temperature).logsumexp(dim=0)) + grid.log_cell


def density_shares(energy: Tensor, temperature: float) -> Tensor:
    """(cells,) float64: the share of exp(-E/T)/Z in each cell, energy (cells,) at the grid's points."""
    return (-energy / temperature).softmax(dim=0)


def fit_temperature(energy: Tensor, heldout_energy: Tensor, grid: Grid) -> float:
    """The T > 0 under which held-out points are most likely: maximises mean -E(x)/T - log Z(T).

    In 1/T this is concave, with the derivative (mean of E over the density) - (mean of E over the held-out
    points): the sign change is found by bisection. T is at least (2 cell widths)^2, below which the grid cannot
    resolve the density, and at most 1e6 times that.

    Args:
        energy: (cells,) E at the grid's points. heldout_energy: (N,) E at points not trained on.

    Raises:
        ValueError: no held-out points, or an energy is not finite.
    """
    if len(heldout_energy) == 0:
        raise ValueError("heldout_energy: expected at least 1 point, got 0")
    for name, values in (("energy", energy), ("heldout_energy", heldout_energy)):
        if not bool(values.isfinite().all()):
            raise ValueError(f"{name}: expected finite numbers, got NaN or Inf")
    target = float(heldout_energy.double().mean())
    low = 2 * math.log(_CELLS_A_WIDTH * max(grid.widths))
    high = low + math.log(1e6)
    for _ in range(60):
        middle = (low + high) / 2
        expected = float(density_shares(energy.double(), math.exp(middle)) @ energy.double())
        low, high = (middle, high) if expected < target else (low, middle)
    return math.exp((low + high) / 2)


def total_variation(p: Tensor, q: Tensor) -> float:
    """Half the sum of |p - q| over cells, in [0, 1]: 0 for equal shares, 1 for disjoint ones."""
    if p.shape != q.shape:
        raise ValueError(f"p, q: expected equal shapes, got {tuple(p.shape)} and {tuple(q.shape)}")
    return 0.5 * float((p.double() - q.double()).abs().sum())


def fit_bandwidth(grid: Grid, train: Tensor, heldout: Tensor, *, candidates: int = 12) -> float:
    """The standard deviation, of `candidates` from one cell to a tenth of the box in equal ratios, whose Gaussian
    kernel estimate from train (N, D) makes heldout (H, D) most likely."""
    least, most = max(grid.widths), 0.1 * max(w * n for w, n in zip(grid.widths, grid.counts, strict=True))
    shares = grid.histogram(train)
    tried = torch.logspace(math.log10(least), math.log10(most), candidates).tolist()
    scores = [float(grid.log_density(grid.blurred(shares, h), heldout).clamp(min=-50).mean()) for h in tried]
    best: float = tried[scores.index(max(scores))]
    return best


def true_shares(dataset: Dataset, grid: Grid, *, draws: int = 1 << 20) -> Tensor | None:
    """(cells,) shares of a toy's true distribution, None where it is not known.

    Mixtures by their density at the cells' centres; curves by binning `draws` noise-free points and convolving
    with the noise; regions without noise as uniform over the cells whose centre lies inside.
    """
    if dataset.modes is not None and dataset.mode_std is not None:
        modes, deviation = dataset.modes.double(), dataset.mode_std
        logits = [
            (torch.cdist(part, modes).square() / (-2 * deviation**2)).logsumexp(dim=1)
            for part in torch.split(grid.points, 1 << 16)
        ]
        return torch.cat(logits).softmax(dim=0)
    toy = TOYS.get(dataset.name)
    if toy is None:
        return None
    if toy.noise > 0:
        support = toy.support(draws, torch.Generator().manual_seed(0))
        return grid.blurred(grid.histogram(support), toy.noise)
    parts = torch.split(grid.points.float(), 1 << 16)
    inside = torch.cat([toy.distance(part) == 0 for part in parts]).double()
    return inside / inside.sum()
