"""How much is trained and with which seeds, as plain data."""

from dataclasses import dataclass

FINAL_SEED = 1000
"""First seed whose metrics are reported; no setting was ever chosen on these."""

TUNING_SEED = 500
"""First seed on which IGN's settings are searched."""


@dataclass(frozen=True)
class Effort:
    """How thorough a reproduction is.

    seeds: runs of every method, reported. tuning_seeds: runs of every candidate of IGN. steps_share: part of the
    preset's updates that is trained. candidates: of IGN, at most. sizes, rates: how many training set sizes and
    learning rates the claims few-shot and stability try, at most. curve_points: checkpoints of a run. timing_rounds:
    short runs of each method whose updates are timed.
    """

    name: str
    seeds: int
    tuning_seeds: int = 2
    steps_share: float = 1.0
    candidates: int = 99
    sizes: int = 99
    rates: int = 99
    curve_points: int = 12
    timing_rounds: int = 4

    @property
    def final_seeds(self) -> list[int]:
        """Seeds of the reported runs; also those of their data's draw or split."""
        return [FINAL_SEED + i for i in range(self.seeds)]

    @property
    def search_seeds(self) -> list[int]:
        """Seeds of the search for IGN's settings."""
        return [TUNING_SEED + i for i in range(self.tuning_seeds)]

    @property
    def in_words(self) -> str:
        """For outputs: what was cut short, if anything."""
        if self.steps_share == 1.0:
            return f"{self.seeds} seeds, full training"
        return (
            f"{self.seeds} seeds, {100 * self.steps_share:.3g} % of the full training, IGN searched over "
            f"{self.candidates} settings x {self.tuning_seeds} seeds: a trial of the commands, not evidence"
        )


FULL = Effort("full", seeds=5)
QUICK = Effort(
    "quick",
    seeds=2,
    tuning_seeds=1,
    steps_share=0.1,
    candidates=3,
    sizes=3,
    rates=3,
    curve_points=5,
    timing_rounds=1,
)
