"""The plain record every data set is loaded into, and the seeded helpers all loaders share."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from naign_ext.seeds import data_generator

Kind = Literal["vector", "image"]

HELDOUT_FRACTION = 0.2
"""Part of an image set that is held out unless another is asked for."""

VALIDATION_FRACTION = 0.25
"""Part of the held-out rows that may choose checkpoints and settings; metrics are reported on the rest."""


class DataUnavailableError(ValueError):
    """The data are not on this machine, or unusable; the text says what is missing and how to get it."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory.

    Attributes:
        name: the name it was loaded by.
        kind: ``"vector"`` for rows (N, D), ``"image"`` for (N, C, H, W) in [-1, 1] (-1 black, 0 grey).
        train, heldout: float32, disjoint; ``heldout`` may have N = 0 where the caller asked for that.
        ood: float32 points of the same shape that are not of this distribution, or None.
        validation: the held-out rows that choose settings, where ``heldout`` has those for test alone; else None.
        train_labels, heldout_labels: int64 (N,), or None where the data have no classes.
        parameters: JSON-able; the exact parameters of toys, sources and hashes of real data.
        modes: (K, D) centres of a mixture, or None. mode_std: their common standard deviation.
        sample_truth: ``sample_truth(n, seed)`` draws n fresh rows of a toy's true distribution, from another
            random stream than ``train`` and ``heldout``; or None.
        support_distance: ``support_distance(x)`` is the distance (N,) of rows (N, D) to a toy's noise-free
            support (its modes, curve or region) in the data's unit; or None.
        noise_std: standard deviation of a toy's noise about that support, or None.
        licence: under which licence the data may be used, or None for generated points.
    """

    name: str
    kind: Kind
    train: Tensor
    heldout: Tensor
    ood: Tensor | None = None
    validation: Tensor | None = None
    train_labels: Tensor | None = None
    heldout_labels: Tensor | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    modes: Tensor | None = None
    mode_std: float | None = None
    sample_truth: Callable[[int, int], Tensor] | None = None
    support_distance: Callable[[Tensor], Tensor] | None = None
    noise_std: float | None = None
    licence: str | None = None

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one point: (D,) or (C, H, W)."""
        return tuple(self.train.shape[1:])

    def for_validation(self) -> "Dataset":
        """The same with the held-out rows that choose checkpoints and settings; see :meth:`for_test`."""
        return self._with_heldout(_split_heldout(self)[0])

    def for_test(self) -> "Dataset":
        """The same with the held-out rows on which metrics are reported, which no choice has seen.

        The held-out rows are split once and for all: a quarter (VALIDATION_FRACTION), of each class where there are
        labels, is for validation and the rest for test. The split depends on their number and labels alone; of
        one or two rows all are for test.
        """
        validation, test = _split_heldout(self)
        return replace(self._with_heldout(test), validation=self.heldout[validation])

    def with_train_rows(self, count: int, seed: int) -> "Dataset":
        """The same with count of the training rows: the first of a seeded order, so smaller sets lie in larger.

        With labels the order takes one row of each class in turn.

        Raises:
            ValueError: fewer training rows than that, or count < 1.
        """
        if not 1 <= count <= len(self.train):
            raise ValueError(f"train_rows: expected 1 to {len(self.train)} for {self.name}, got {count}")
        order = torch.randperm(len(self.train), generator=data_generator(seed, "train_rows"))
        if self.train_labels is not None:
            labels = self.train_labels[order]
            turn = torch.zeros(len(order), dtype=torch.int64)
            for label in torch.unique(labels):
                of_class = (labels == label).nonzero().flatten()
                turn[of_class] = torch.arange(len(of_class))
            order = order[turn.argsort(stable=True)]
        kept = order[:count].sort().values
        return replace(
            self,
            train=self.train[kept],
            train_labels=None if self.train_labels is None else self.train_labels[kept],
            parameters={**self.parameters, "train_rows": count},
        )

    def _with_heldout(self, rows: Tensor) -> "Dataset":
        labels = self.heldout_labels
        return replace(
            self, heldout=self.heldout[rows], heldout_labels=None if labels is None else labels[rows]
        )


HASH_OF_CONTENT = "sha256_of_hashes"
"""The parameter of data from files that tells their content: of the SHA-256 of each that is used, in order."""

_WHERE_FOUND = ("source", "found", "selection", "damaged", "left_out", "sha256")


def is_same_data(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether the parameters of two data sets are those of the same rows.

    Data from files are known by their content: the folder or archive may be another one, of any name.
    """
    return data_identity(a) == data_identity(b)


def data_identity(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Of a data set's parameters those that say which rows it has; of data from files not where they were found."""
    without = _WHERE_FOUND if HASH_OF_CONTENT in parameters else ()
    return {key: value for key, value in parameters.items() if key not in without}


def _split_heldout(dataset: Dataset) -> tuple[Tensor, Tensor]:
    """Rows (validation, test) of the held-out data."""
    generator = data_generator(0, "validation")
    test, validation = split_indices(
        len(dataset.heldout), VALIDATION_FRACTION, generator, dataset.heldout_labels
    )
    return validation, test


def check_fraction(heldout_fraction: float) -> float:
    """Return the fraction, or raise ValueError unless 0 <= fraction < 1."""
    if not 0.0 <= heldout_fraction < 1.0:
        raise ValueError(
            f"heldout_fraction: expected 0 <= fraction < 1, got {heldout_fraction}; "
            "0 trains on everything and holds nothing out"
        )
    return float(heldout_fraction)


def split_indices(
    count: int, heldout_fraction: float, generator: torch.Generator, labels: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Disjoint (train, heldout) rows of 0..count-1, both sorted; with labels, that fraction of each class.

    The held-out part of a group of n rows has round(n * fraction) rows, but never all of them.
    """
    check_fraction(heldout_fraction)
    groups = [torch.arange(count)]
    if labels is not None:
        groups = [torch.nonzero(labels == value).flatten() for value in torch.unique(labels)]
    train, heldout = [], []
    for group in groups:
        shuffled = group[torch.randperm(len(group), generator=generator)]
        held = min(round(len(group) * heldout_fraction), max(len(group) - 1, 0))
        heldout.append(shuffled[:held])
        train.append(shuffled[held:])
    return torch.cat(train).sort().values, torch.cat(heldout).sort().values


def tensor_sha256(values: Tensor) -> str:
    """SHA-256 (hex) of a tensor's bytes in row-major order."""
    return hashlib.sha256(values.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
