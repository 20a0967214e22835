"""A run on the screen: a bar where there is a terminal, plain lines where there is none."""

import contextlib
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from naign_ext.training.progress import Progress as RunProgress
from naign_ext.training.progress import Started, Step, TrainResult

PLAIN_SECONDS = 10.0


@contextlib.contextmanager
def watch(console: Console) -> Iterator[RunProgress]:
    """What to hand to the trainer; the bar is taken down at the end, also after an error."""
    if not console.is_terminal:
        yield Lines(console)
        return
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=None, style="grey37", complete_style="cyan", finished_style="green"),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("[cyan]{task.fields[speed]}"),
        TextColumn("[dim]{task.fields[left]}"),
    )
    with _TwoLines(*columns, console=console, expand=True) as bar:
        yield Bar(bar)


class _TwoLines(Progress):
    """The bar, and below it the loss terms, so that both fit a narrow terminal."""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            yield Text(task.fields["terms"], style="dim", no_wrap=True, overflow="ellipsis")


class Bar(RunProgress):
    """Loss terms, images per second and the time left beside a bar."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task: TaskID | None = None

    def started(self, run: Started) -> None:
        """Name the run and set up the bar."""
        self._bar.console.print(describe_run(run), soft_wrap=True, markup=False, highlight=False)
        self._task = self._bar.add_task(
            "training", total=run.steps, completed=run.step, terms="", speed="", left=""
        )

    def stepped(self, step: Step) -> None:
        """Move the bar; rich itself limits how often it draws."""
        if self._task is not None:
            self._bar.update(
                self._task,
                completed=step.step,
                terms=describe_terms(step),
                speed=f"{step.images_per_s:,.0f} images/s",
                left=f"{clock(step.seconds_left)} left",
            )

    def finished(self, result: TrainResult) -> None:
        """Say how long it took."""
        self._bar.console.print(describe_end(result), soft_wrap=True, markup=False, highlight=False)


class Lines(RunProgress):
    """A line every ten seconds, and one for each validation."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = time.monotonic()
        self._started = 0

    def _print(self, text: str) -> None:
        try:
            self._console.print(text, soft_wrap=True, markup=False)
        except BrokenPipeError:
            # As Ctrl-C does: the run stops after the current update with everything saved.
            signal.raise_signal(signal.SIGINT)

    def started(self, run: Started) -> None:
        """Name the run."""
        self._print(describe_run(run))
        self._started = run.step

    def stepped(self, step: Step) -> None:
        """Report when ten seconds have passed, and the first and last update."""
        now = time.monotonic()
        ends = step.step in (self._started + 1, step.steps)
        if ends or now - self._last >= PLAIN_SECONDS:
            self._last = now
            speed = f"{step.images_per_s:,.0f} images/s, {clock(step.seconds_left)} left"
            self._print(f"step {step.step}/{step.steps}: {describe_terms(step)}  ({speed})")

    def validated(self, step: int, metrics: Mapping[str, float]) -> None:
        """The validation's terms."""
        terms = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        self._print(f"step {step}: validation {terms}")

    def wrote(self, kind: Literal["samples", "checkpoint"], path: Path) -> None:
        """Checkpoints are named."""
        if kind == "checkpoint":
            self._print(f"wrote {path}")

    def finished(self, result: TrainResult) -> None:
        """Say how long it took."""
        self._print(describe_end(result))


def describe_run(run: Started) -> str:
    """What is about to be trained, in a line."""
    shape = "x".join(map(str, run.sample_shape))
    data = f"{run.config.dataset}: {run.rows} rows of {shape}, {run.heldout_rows} held out"
    network = f"{run.config.model.architecture} with {run.parameters:,} parameters"
    where = f"{run.device} {run.precision}"
    begin = f"from update {run.step}, " if run.step else ""
    return (
        f"{data}; {run.config.objective.name}, {run.config.preset}; {network}; {where}; {begin}into {run.run}"
    )


def describe_terms(step: Step) -> str:
    """The loss and its terms."""
    return "  ".join(f"{name} {value:.3g}" for name, value in {"loss": step.loss, **step.terms}.items())


def describe_end(result: TrainResult) -> str:
    """How the run ended, in a line."""
    return f"{result.status} {result.step} of {result.steps} updates in {clock(result.seconds)}"


def clock(seconds: float) -> str:
    """h:mm:ss, or m:ss below an hour."""
    whole = max(0, round(seconds))
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
