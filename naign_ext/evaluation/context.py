"""What is judged, drawn and computed once: latents, f(z), f(f(z)), features; shared by all metrics and the report."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from naign_ext.data.dataset import Dataset
from naign_ext.evaluation import density, projection
from naign_ext.evaluation.features import SpaceName
from naign_ext.evaluation.field import FieldPoints, far_points, near_points
from naign_ext.evaluation.fld import FldScorer
from naign_ext.evaluation.judges import Judges, default_features
from naign_ext.evaluation.rows import cpu_generator
from naign_ext.memory import check_fits

LATENTS_AND_ANSWERS = 4
"""Tensors of all samples that are held: noise, latents, f(z) and f(f(z))."""

NEIGHBOURS = 5
"""Neighbours that set the balls of precision and recall; a set of samples has more rows than these."""

STEADY_BASELINE = 1000
"""Training images from which one halving makes FLD's baseline steady."""

_TRUTH_STRIDE = 7919
_GRID_CELLS = {1: 8192, 2: 384}

Map = Callable[[Tensor], Tensor]
S = TypeVar("S")


@contextlib.contextmanager
def eval_mode(f: Map) -> Iterator[None]:
    """f's modules in evaluation mode, each put back as it was."""
    training = [m for m in f.modules() if m.training] if isinstance(f, nn.Module) else []
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@dataclass(frozen=True, eq=False)
class EvalContext:
    """One network f on one data set, with what all metrics share.

    train, heldout: the data set's, on the device. latents: z (M, *sample_shape); once, twice: f(z), f(f(z)), float32.
    seed: of all that is drawn. batch_size: rows that f sees at a time.
    """

    f: Map
    dataset: Dataset
    judges: Judges
    seed: int
    batch_size: int
    train: Tensor
    heldout: Tensor
    latents: Tensor
    once: Tensor
    twice: Tensor
    _subjects: dict[Any, list[Any]] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def prepare(
        cls,
        f: Map,
        dataset: Dataset,
        *,
        seed: int = 0,
        samples: int | None = None,
        latent_scale: float = 1.0,
        batch_size: int = 512,
        device: torch.device | str | None = None,
        features: SpaceName | None = None,
        feature_weights: str | Path | None = None,
    ) -> "EvalContext":
        """Draw the latents and apply f once and twice; arguments and errors as for :func:`evaluate`."""
        where = _device_of(f, dataset, device)
        judges = Judges.of(dataset, features or default_features(dataset), feature_weights, where)
        count = min(max(len(dataset.train), 1000), 2000) if samples is None else samples
        if count < NEIGHBOURS + 1:
            raise ValueError(f"samples: expected at least {NEIGHBOURS + 1}, got {count}")
        bytes_each = LATENTS_AND_ANSWERS * 4 * math.prod(dataset.sample_shape)
        check_fits(f"judging {count} samples", count * bytes_each, "ask for fewer samples")
        noise = torch.randn(count, *dataset.sample_shape, generator=cpu_generator(seed))
        latents = (latent_scale * noise).to(where)
        with eval_mode(f):
            once = projection.apply(f, latents, batch_size=batch_size)
            twice = projection.apply(f, once, batch_size=batch_size)
        for name, values in (("f(z)", once), ("f(f(z))", twice)):
            if not bool(values.isfinite().all()):
                bad = int((~values.isfinite().flatten(1).all(dim=1)).sum())
                raise ValueError(f"f: expected finite answers, got NaN or Inf in {bad} of {count} {name}")
        data = (dataset.train.to(where), dataset.heldout.to(where))
        return cls(f, dataset, judges, seed, batch_size, *data, latents, once.float(), twice.float())

    @property
    def device(self) -> torch.device:
        """Where f computes."""
        return self.train.device

    def apply(self, x: Tensor) -> Tensor:
        """f(x), float32, in batches and evaluation mode, on f's device; the answer lies there."""
        with eval_mode(self.f):
            return projection.apply(self.f, x.to(self.device), batch_size=self.batch_size).float()

    def subjects(self, drawn: Callable[["EvalContext"], Iterable[S]]) -> list[S]:
        """What a kind of subject draws from this context (its `own` or `baselines`), drawn once."""
        if drawn not in self._subjects:
            self._subjects[drawn] = list(drawn(self))
        return self._subjects[drawn]

    def with_train(self, train: Tensor) -> "EvalContext":
        """The same samples, judged against other training data."""
        return dataclasses.replace(self, train=train)

    def truth(self, count: int, draw: int) -> Tensor:
        """Fresh true rows where the distribution is known, else the held-out ones; draw: an independent one."""
        if self.dataset.sample_truth is None:
            return self.heldout
        return self.dataset.sample_truth(count, self.seed + _TRUTH_STRIDE * (draw + 1)).to(self.device)

    def features(self, x: Tensor) -> Tensor:
        """What sets of images are compared by, (N, K)."""
        return self.judges.space(x)

    @cached_property
    def train_features(self) -> Tensor:
        """Features of the training images."""
        return self.features(self.train)

    @cached_property
    def fld(self) -> FldScorer | None:
        """FLD with its baseline, where there are enough held-out images that differ."""
        if min(len(self.train), len(self.heldout)) < 2:
            return None
        heldout = self.features(self.heldout)
        if float(heldout.std(dim=0).amax()) == 0:
            return None
        splits = 4 if len(self.train_features) < STEADY_BASELINE else 1
        return FldScorer(self.train_features, heldout, seed=self.seed, size=len(self.once), splits=splits)

    @cached_property
    def near(self) -> FieldPoints:
        """Points near a toy's support, with their true distances."""
        return near_points(self.dataset, self.seed)

    @cached_property
    def far(self) -> FieldPoints:
        """Points far from a toy's support, with their true distances."""
        return far_points(self.dataset, self.seed)

    @cached_property
    def grid(self) -> density.Grid | None:
        """Over the data's box, a quarter wider on each side; None beyond two dimensions or with too few points."""
        dimensions = math.prod(self.dataset.sample_shape)
        if self.dataset.kind != "vector" or dimensions not in _GRID_CELLS or len(self.heldout) < 2:
            return None
        rows = torch.cat([self.train, self.heldout]).double()
        low, high = rows.amin(dim=0), rows.amax(dim=0)
        margin = 0.25 * (high - low).clamp(min=1e-3)
        box = list(zip((low - margin).tolist(), (high + margin).tolist(), strict=True))
        return density.Grid.over(box, [_GRID_CELLS[dimensions]] * dimensions)

    @cached_property
    def true_shares(self) -> Tensor | None:
        """(cells,) of the grid: shares of the true distribution, where it is known."""
        return None if self.grid is None else density.true_shares(self.dataset, self.grid)

    @property
    def fitting_points(self) -> Tensor:
        """Every other held-out row: what temperatures and bandwidths are fitted to."""
        return self.heldout[0::2]

    @property
    def judged_points(self) -> Tensor:
        """The remaining held-out rows: what densities are judged on."""
        return self.heldout[1::2]


def _device_of(f: Map, dataset: Dataset, device: torch.device | str | None) -> torch.device:
    if device is not None:
        return torch.device(device)
    parameter = next(f.parameters(), None) if isinstance(f, nn.Module) else None
    return dataset.train.device if parameter is None else parameter.device
