"""What a run tells whoever watches it. The trainer prints nothing itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from naign_ext.config import TrainConfig


@dataclass(frozen=True)
class Started:
    """A run that is about to train from ``step`` (0, or where it is resumed) to ``steps``."""

    run: Path
    config: TrainConfig
    step: int
    steps: int
    rows: int
    heldout_rows: int
    sample_shape: tuple[int, ...]
    parameters: int
    device: str
    precision: str


@dataclass(frozen=True)
class Step:
    """One finished update; ``step`` counts the updates done. Terms are unweighted, times in seconds.

    metrics: further ones of this update's batch, computed where metrics.jsonl gets a record of it, else None.
    """

    step: int
    steps: int
    loss: float
    terms: dict[str, float]
    lr: float
    grad_norm: float
    images_per_s: float
    seconds: float
    seconds_left: float
    metrics: dict[str, float] | None = None


@dataclass(frozen=True)
class TrainResult:
    """How a run ended. signal: what interrupted it; checkpoint: the last one; best: the best one."""

    status: Literal["completed", "interrupted"]
    run: Path
    step: int
    steps: int
    seconds: float
    checkpoint: Path
    best: Path
    signal: str | None = None


class Progress:
    """Receives a run's events; override what you need. Methods must not touch torch's random state."""

    def started(self, run: Started) -> None:
        """Once, before the first update."""

    def stepped(self, step: Step) -> None:
        """After every update."""

    def validated(self, step: int, metrics: dict[str, float]) -> None:
        """After every validation: fixed_point, imle, projection and their sum, score; lower is better."""

    def wrote(self, kind: Literal["samples", "checkpoint"], path: Path) -> None:
        """After a file or folder of the run was written."""

    def finished(self, result: TrainResult) -> None:
        """Once, at the end, also when interrupted; not after an error."""
