"""What evaluate answers: rows of (metric, subject, condition, value), and how to look them up."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

MAP, BEST, ONCE, TWICE, DATA = "f", "f at its best", "f(z)", "f(f(z))", "data"
OWN = (MAP, BEST, ONCE, TWICE, DATA)
"""Subjects that are not baselines: the map f, f as it restores best, samples f(z), f(f(z)), and the data set itself."""


@dataclass(frozen=True)
class Condition:
    """How images were corrupted before they were restored.

    corruption: noise, mask, blur or downsample; strength: as :func:`naign_ext.transforms.corrupt` takes it, None is its
    default; known: what the corruption left of the original was put back.
    """

    corruption: str
    strength: float | None = None
    known: bool = False

    @property
    def words(self) -> str:
        """As in "noise 0.5" or "mask, known kept"."""
        strength = "" if self.strength is None else f" {self.strength}"
        return f"{self.corruption}{strength}{', known kept' if self.known else ''}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"corruption": self.corruption, "strength": self.strength, "known": self.known}

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> "Condition | None":
        """What :meth:`to_json` gave; None for None."""
        return None if value is None else cls(value["corruption"], value["strength"], value["known"])


@dataclass(frozen=True)
class Key:
    """What a number is of: a metric, what it judges (one of OWN, or a baseline's name), and under which condition."""

    metric: str
    subject: str
    condition: Condition | None = None

    def of(self, subject: str) -> "Key":
        """The same metric under the same condition of another subject."""
        return Key(self.metric, subject, self.condition)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        condition = None if self.condition is None else self.condition.to_json()
        return {"metric": self.metric, "subject": self.subject, "condition": condition}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Key":
        """What :meth:`to_json` gave; other entries of value do not matter."""
        return cls(value["metric"], value["subject"], Condition.from_json(value["condition"]))


@dataclass(frozen=True)
class Row:
    """One number: the value of a metric for a subject, for restoration under a condition."""

    metric: str
    subject: str
    value: float
    condition: Condition | None = None

    @property
    def key(self) -> Key:
        """All but the value."""
        return Key(self.metric, self.subject, self.condition)

    def to_json(self) -> dict[str, Any]:
        """Plain values; NaN and infinities, which JSON lacks, are None."""
        return {**self.key.to_json(), "value": self.value if math.isfinite(self.value) else None}


@dataclass(frozen=True)
class Results:
    """Rows, none of which has the key of another, and lookups among them."""

    rows: tuple[Row, ...] = ()

    def __post_init__(self) -> None:
        if len(self._values) != len(self.rows):
            raise ValueError("rows: expected one for each metric, subject and condition, got repeated ones")

    @cached_property
    def _values(self) -> dict[Key, float]:
        return {row.key: row.value for row in self.rows}

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, key: Key) -> bool:
        return key in self._values

    def __getitem__(self, key: Key) -> float:
        return self._values[key]

    def get(self, key: Key) -> float | None:
        """The value of a key; None where there is none."""
        return self._values.get(key)

    def find(self, metric: str, subject: str, condition: Condition | None = None) -> float | None:
        """The value of a metric for a subject; None where there is none."""
        return self._values.get(Key(metric, subject, condition))

    def own(self, metric: str, condition: Condition | None = None) -> float | None:
        """The value of a metric for f itself, for f(z) where samples are judged, or for the data; None without one."""
        found = (self.find(metric, subject, condition) for subject in (MAP, ONCE, DATA))
        return next((value for value in found if value is not None), None)

    def value(self, metric: str, subject: str | None = None, condition: Condition | None = None) -> float:
        """The value of a metric; without a subject as in :meth:`own`.

        Raises:
            KeyError: no such row; the text says which subjects the metric has.
        """
        found = self.own(metric, condition) if subject is None else self.find(metric, subject, condition)
        if found is not None:
            return found
        there = ", ".join(f"{row.subject} {row.condition or ''}".strip() for row in self.of(metric))
        wanted = f"{metric} of {subject or 'f'}" + (f" under {condition}" if condition else "")
        raise KeyError(f"{wanted}: expected one of the rows of {metric}: {there or 'there are none'}")

    def of(self, metric: str, condition: Condition | None = None) -> tuple[Row, ...]:
        """The rows of a metric; with a condition, under that one only."""
        found = (row for row in self.rows if row.metric == metric)
        return tuple(row for row in found if condition is None or row.condition == condition)

    def baselines(self, metric: str, condition: Condition | None = None) -> dict[str, float]:
        """By name, what has no network in it scores on a metric under exactly this condition."""
        return {
            row.subject: row.value
            for row in self.rows
            if row.metric == metric and row.condition == condition and row.subject not in OWN
        }

    @property
    def metrics(self) -> list[str]:
        """The metrics that were measured, in their order."""
        return list(dict.fromkeys(row.metric for row in self.rows))

    @property
    def conditions(self) -> list[Condition]:
        """The conditions under which anything was measured, in their order."""
        return list(dict.fromkeys(row.condition for row in self.rows if row.condition is not None))

    def finite(self) -> "Results":
        """The rows whose value is neither NaN nor infinite."""
        return Results(tuple(row for row in self.rows if math.isfinite(row.value)))

    def with_rows(self, rows: Iterable[Row]) -> "Results":
        """These rows and further ones."""
        return Results((*self.rows, *rows))

    def to_json(self) -> list[dict[str, Any]]:
        """A list of {metric, subject, condition, value}."""
        return [row.to_json() for row in self.rows]

    @classmethod
    def from_json(cls, rows: Sequence[Mapping[str, Any]]) -> "Results":
        """What :meth:`to_json` gave; None among the values becomes NaN."""
        keys = [Key.from_json(row) for row in rows]
        values = [math.nan if row["value"] is None else float(row["value"]) for row in rows]
        return cls(tuple(Row(k.metric, k.subject, v, k.condition) for k, v in zip(keys, values, strict=True)))
