"""A claim as plain data, with how its runs are collected and its figure drawn."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from naign_ext.evaluation import Key
from naign_ext.reproduce.study import Evidence, Statement, Study

Result = Mapping[str, Any]
"""What :func:`naign_ext.reproduce.study.summarise` made of the evidence."""


def train_on_each(study: Study, claim: "Claim") -> Evidence:
    """Every method on each of the claim's data sets."""
    return Evidence({dataset: study.runs(dataset) for dataset in claim.datasets})


@dataclass(frozen=True)
class Claim(Statement):
    """A statement and how it is tested, on datasets.

    compared: metrics that are compared between methods, on each data set that has them; shown: those only reported.
    caption: what the figure shows. draw: writes the figure to a path, in the format of its
    ending.
    """

    datasets: tuple[str, ...]
    compared: tuple[Key, ...]
    caption: str
    draw: Callable[[Study, Evidence, Result, Path], None]
    shown: tuple[Key, ...] = ()
    collect: Callable[[Study, "Claim"], Evidence] = train_on_each
