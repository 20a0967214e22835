"""Low-dimensional distributions whose truth is known exactly.

Every toy is a noise-free support (points, curves or squares) plus isotropic Gaussian noise:
x = s + noise * e, s uniform on the support, e ~ N(0, I). 2000 training and 2000 held-out rows by default.

============= =============================================================================== =====
name          support                                                                         noise
============= =============================================================================== =====
trimodal1d    the points -4, 0, 4 (D = 1)                                                     .2
8gaussians    8 points on the circle of radius 2, at angles 2 pi k / 8                        .1
grid25        25 points (i, j), i, j in {-2, -1, 0, 1, 2}                                     .05
moons         (cos t, sin t) - (.5, .25) and (1 - cos t, .5 - sin t) - (.5, .25),
              t in [0, pi], half the points each                                              .05
rings         circles of radius 1 and 2 about the origin, half the points each                .05
spirals       r (cos a, sin a) and its mirror through the origin, a in [pi/4, 3 pi],
              r = 2 a / (3 pi), a uniform; half the points each                               .05
checkerboard  the 8 unit squares [i, i+1) x [j, j+1) of [-2, 2)^2 with i + j even             0
swissroll     r (cos a, sin a), a in [1.5 pi, 4.5 pi], r = 2 a / (4.5 pi), a uniform          .05
============= =============================================================================== =====

All two-dimensional sets lie within about [-2, 2]^2: a prior N(0, 2^2 I) is wider than the data, and one set
of training settings serves all. Neighbouring modes are at least 15 noise standard deviations apart (1.53 / .1
on the circle, 1 / .05 on the grid, 4 / .2 in one dimension), so 'within 3 (or 4) sigma of a mode' counts
every point for one mode at most.
"""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from naign_ext.data.dataset import Dataset, check_fraction
from naign_ext.data.presets import LOW_DIMENSION, Presets
from naign_ext.data.registry import dataset
from naign_ext.memory import check_fits
from naign_ext.seeds import data_generator

TRAIN_ROWS = 2000
_CURVE_POINTS = 4096
_DISTANCE_CHUNK = 1024


@dataclass(frozen=True, eq=False)
class Toy:
    """Noise-free draws, their noise, and the distance to the support."""

    support: Callable[[int, torch.Generator], Tensor]
    distance: Callable[[Tensor], Tensor]
    noise: float
    ood_margin: float
    parameters: dict[str, Any] = field(default_factory=dict)
    modes: Tensor | None = None


def _draw_points(modes: Tensor, n: int, generator: torch.Generator) -> Tensor:
    return modes[torch.randint(len(modes), (n,), generator=generator)]


def nearest_distance(points: Tensor, x: Tensor) -> Tensor:
    """Euclidean distance (N,) of each row of x (N, D) to the nearest of points (K, D), in chunks of rows."""
    points = points.to(x)
    chunks = [
        torch.cdist(part, points, compute_mode="donot_use_mm_for_euclid_dist").amin(1)
        for part in torch.split(x, _DISTANCE_CHUNK)
    ]
    return torch.cat(chunks) if chunks else x.new_zeros(0)


def _mixture(modes: Tensor, noise: float, **parameters: Any) -> Toy:
    return Toy(
        support=functools.partial(_draw_points, modes),
        distance=functools.partial(nearest_distance, modes),
        noise=noise,
        ood_margin=5 * noise,
        parameters={"modes": modes.tolist(), **parameters},
        modes=modes,
    )


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=generator)


def _circle(radius: Tensor, angle: Tensor) -> Tensor:
    return torch.stack((radius * angle.cos(), radius * angle.sin()), dim=1)


def _moons_curve(t: Tensor, second: Tensor) -> Tensor:
    upper = torch.stack((t.cos(), t.sin()), dim=1)
    lower = torch.stack((1 - t.cos(), 0.5 - t.sin()), dim=1)
    return torch.where(second[:, None], lower, upper) - torch.tensor([0.5, 0.25])


def _spirals_curve(angle: Tensor, second: Tensor) -> Tensor:
    arm = _circle(2 * angle / (3 * math.pi), angle)
    return torch.where(second[:, None], -arm, arm)


def _swissroll_curve(angle: Tensor, second: Tensor) -> Tensor:
    return _circle(2 * angle / (4.5 * math.pi), angle)


def _rings_curve(angle: Tensor, second: Tensor) -> Tensor:
    return _circle(1 + second.to(angle.dtype), angle)


Curve = Callable[[Tensor, Tensor], Tensor]


def _draw_curve(curve: Curve, low: float, high: float, n: int, generator: torch.Generator) -> Tensor:
    t = _uniform(n, low, high, generator)
    return curve(t, torch.rand(n, generator=generator) < 0.5)


def _curve_distance(curve: Curve, low: float, high: float, x: Tensor) -> Tensor:
    """Distance to the curve, from 4096 points on each branch: high by at most (spacing)^2 / (8 distance)."""
    t = torch.linspace(low, high, _CURVE_POINTS)
    branches = [curve(t, torch.full_like(t, side, dtype=torch.bool)) for side in (False, True)]
    return nearest_distance(torch.cat(branches), x)


def _rings_distance(x: Tensor) -> Tensor:
    radius = torch.linalg.vector_norm(x, dim=1)
    return torch.minimum((radius - 1).abs(), (radius - 2).abs())


def _curve_toy(
    curve: Curve,
    low: float,
    high: float,
    *,
    distance: Callable[[Tensor], Tensor] | None = None,
    noise: float = 0.05,
    **parameters: Any,
) -> Toy:
    return Toy(
        support=functools.partial(_draw_curve, curve, low, high),
        distance=distance or functools.partial(_curve_distance, curve, low, high),
        noise=noise,
        ood_margin=5 * noise,
        parameters={"angle_range": [low, high], **parameters},
    )


def _squares() -> Tensor:
    corners = [(i, j) for i in range(-2, 2) for j in range(-2, 2) if (i + j) % 2 == 0]
    return torch.tensor(corners, dtype=torch.float32)


def _draw_checkerboard(n: int, generator: torch.Generator) -> Tensor:
    return _draw_points(_squares(), n, generator) + torch.rand(n, 2, generator=generator)


def _checkerboard_distance(x: Tensor) -> Tensor:
    corners = _squares().to(x)[None]
    offset = x[:, None] - corners
    outside = torch.maximum(-offset, offset - 1).clamp_min(0)
    distance: Tensor = torch.linalg.vector_norm(outside, dim=2).amin(1)
    return distance


def _build_toys() -> dict[str, Toy]:
    angles = torch.arange(8) * (2 * math.pi / 8)
    axis = torch.arange(-2.0, 3.0)
    return {
        "trimodal1d": _mixture(torch.tensor([[-4.0], [0.0], [4.0]]), 0.2),
        "8gaussians": _mixture(_circle(torch.full((8,), 2.0), angles), 0.1, radius=2.0),
        "grid25": _mixture(torch.cartesian_prod(axis, axis), 0.05, spacing=1.0),
        "moons": _curve_toy(_moons_curve, 0.0, math.pi, centre=[0.5, 0.25]),
        "rings": _curve_toy(_rings_curve, 0.0, 2 * math.pi, distance=_rings_distance, radii=[1.0, 2.0]),
        "spirals": _curve_toy(_spirals_curve, math.pi / 4, 3 * math.pi, arms=2, outer_radius=2.0),
        "checkerboard": Toy(
            _draw_checkerboard,
            _checkerboard_distance,
            0.0,
            0.1,
            {"squares": _squares().tolist(), "side": 1.0},
        ),
        "swissroll": _curve_toy(_swissroll_curve, 1.5 * math.pi, 4.5 * math.pi, outer_radius=2.0),
    }


TOYS = _build_toys()


def _draw(toy: Toy, n: int, generator: torch.Generator) -> Tensor:
    clean = toy.support(n, generator)
    return clean + toy.noise * torch.randn(clean.shape, generator=generator)


def sample_toy(name: str, n: int, seed: int, purpose: str = "truth") -> Tensor:
    """n rows (n, D), float32, of the toy's true distribution; another purpose is another random stream."""
    if n < 0:
        raise ValueError(f"n: expected the number of rows, 0 or more, got {n}")
    return _draw(TOYS[name], n, data_generator(seed, name, purpose))


def _off_support(name: str, n: int, seed: int) -> Tensor:
    """Rows uniform in the data's box enlarged by half its size, at least the toy's margin off the support."""
    toy, generator = TOYS[name], data_generator(seed, name, "ood")
    box = toy.support(_CURVE_POINTS, data_generator(0, name, "box"))
    low, high = box.amin(0), box.amax(0)
    centre, half = (low + high) / 2, 0.75 * (high - low)
    kept = torch.empty(0, box.shape[1])
    while len(kept) < n:
        proposal = centre + half * (2 * torch.rand(4 * n, box.shape[1], generator=generator) - 1)
        kept = torch.cat((kept, proposal[toy.distance(proposal) >= toy.ood_margin]))
    return kept[:n]


def load_toy(name: str, *, seed: int = 0, heldout_fraction: float | None = None) -> Dataset:
    """2000 training rows; held-out rows are fresh draws, 2000 of them or that fraction of both together.

    The out-of-distribution rows are uniform in 1.5 times the data's box, without those nearer to the support
    than 5 noise standard deviations (.1 for the checkerboard).
    """
    toy = TOYS[name]
    fraction = check_fraction(0.5 if heldout_fraction is None else heldout_fraction)
    heldout_rows = round(TRAIN_ROWS * fraction / (1 - fraction))
    check_fits(f"heldout_fraction {fraction:g}, {heldout_rows} rows,", 8 * heldout_rows, "take a smaller one")
    parameters = {
        **toy.parameters,
        "noise_std": toy.noise,
        "train_rows": TRAIN_ROWS,
        "heldout_rows": heldout_rows,
        "seed": seed,
        "ood": f"uniform in 1.5 x the data's box, at least {toy.ood_margin:g} off the support",
    }
    return Dataset(
        name=name,
        kind="vector",
        train=sample_toy(name, TRAIN_ROWS, seed, "train"),
        heldout=sample_toy(name, heldout_rows, seed, "heldout"),
        ood=_off_support(name, TRAIN_ROWS, seed),
        parameters=parameters,
        modes=None if toy.modes is None else toy.modes.clone(),
        mode_std=None if toy.modes is None else toy.noise,
        sample_truth=functools.partial(sample_toy, name),
        support_distance=toy.distance,
        noise_std=toy.noise,
    )


# A pool much smaller than the batch: then a mode needs its share of the latents to be matched closely.
_LINE: Presets = {
    "default": {
        "steps": 5000,
        "batch_size": 128,
        "model": {"architecture": "mlp", "widths": [128, 128, 128], "activation": "relu"},
        "optimiser": {"lr": 3e-3},
        "objective": {"pool_size": 16, "latent_scale": 2.0, "projection_weight": 1.0},
    },
    "paper": {"objective": {"pool_size": 128, "latent_scale": 1.0}},
}
# Reconstruction from noise makes the residual follow the distance near the data, and sharpens these sets' samples.
# On rings and in one dimension it fills the gaps between the data instead.
_DENOISED = {"denoise_weight": 0.5, "denoise_sigma": 0.3}
# The larger pool and the stronger projection drive samples out of the gaps between modes; the smaller and the weaker
# keep the modes' shares of the samples even. docs/presets.md has what was tried.
_OBJECTIVES: Mapping[str, Mapping[str, Any]] = {
    "8gaussians": {**_DENOISED, "pool_size": 256, "projection_samples": 256, "projection_weight": 1.0},
    "grid25": _DENOISED,
    "moons": {**_DENOISED, "pool_size": 64},
    "rings": {"latent_scale": 1.5},
}


def _presets(name: str) -> Presets:
    """The presets of low dimension with the toy's own options of the objective."""
    default = LOW_DIMENSION["default"]
    objective = {**default["objective"], **_OBJECTIVES.get(name, {})}
    return {**LOW_DIMENSION, "default": {**default, "objective": objective}}


for _name in TOYS:
    dataset(
        _name,
        kind="vector",
        sample_shape=(1,) if _name == "trimodal1d" else (2,),
        rows=(TRAIN_ROWS, TRAIN_ROWS),
        source="generated; exact parameters in naign_ext.data.toys",
        ood="uniform, off the support",
        presets=_LINE if _name == "trimodal1d" else _presets(_name),
    )(functools.partial(load_toy, _name))
