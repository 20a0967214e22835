"""What a run does beside its updates: records, validation, pictures, checkpoints, and telling who watches."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from naign_ext.latents import LatentPool
from naign_ext.seeds import derive_seed
from naign_ext.training.pictures import save_sample_picture
from naign_ext.training.progress import Progress, Step, TrainResult
from naign_ext.training.state import capture
from naign_ext.training.validation import validate

if TYPE_CHECKING:
    from naign_ext.training.trainer import Trainer

STAGES = ("data", "generation", "search", "merge", "forward", "loss", "backward", "update")
"""Where an update's time goes. merge: waiting for and hearing from other processes, but for their gradients."""

Written = Literal["samples", "checkpoint"]


class Callback:
    """Override what you need; in a run of several processes the main one alone has callbacks.

    They are called in their order and must not touch torch's random state.
    """

    def on_start(self, trainer: "Trainer") -> None:
        """Once, before the first update."""

    def on_update(self, trainer: "Trainer", step: Step) -> None:
        """After every update."""

    def on_interrupt(self, trainer: "Trainer") -> None:
        """Once, where a signal stops the run before its last update."""

    def on_end(self, trainer: "Trainer", result: TrainResult) -> None:
        """Once, at the end, also when interrupted; not after an error."""

    def on_validated(self, trainer: "Trainer", metrics: dict[str, float]) -> None:
        """After every validation."""

    def on_written(self, trainer: "Trainer", kind: Written, path: Path) -> None:
        """After a file or folder of the run was written."""


def default_callbacks(progress: Progress | None = None) -> list[Callback]:
    """Those of every run; progress is told of it."""
    # A checkpoint holds its validation's score.
    return [Record(), Tell(progress or Progress()), Pictures(), Validate(), Checkpoints()]


class Record(Callback):
    """Writes what an update has shown to metrics.jsonl, every ``log.every`` updates and after the last."""

    def on_start(self, trainer: "Trainer") -> None:
        """See :meth:`Callback.on_start`."""
        self._last = trainer.state.step

    def on_update(self, trainer: "Trainer", step: Step) -> None:
        """See :meth:`Callback.on_update`."""
        if step.metrics is None:
            return
        seconds = trainer.timer.take()
        updates, self._last = step.step - self._last, step.step
        trainer.record(
            "train",
            samples=step.step * trainer.run.config.batch_size,
            loss=step.loss,
            terms=step.terms,
            **step.metrics,
            lr=step.lr,
            grad_norm=step.grad_norm,
            images_per_s=round(step.images_per_s, 2),
            seconds=round(step.seconds, 3),
            cost={stage: round(seconds.get(stage, 0.0) / updates, 7) for stage in STAGES},
        )


class Tell(Callback):
    """Passes on to a :class:`Progress`, which knows no trainer, what happens."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_start(self, trainer: "Trainer") -> None:
        """See :meth:`Callback.on_start`."""
        self.progress.started(trainer.describe())

    def on_update(self, trainer: "Trainer", step: Step) -> None:
        """See :meth:`Callback.on_update`."""
        self.progress.stepped(step)

    def on_end(self, trainer: "Trainer", result: TrainResult) -> None:
        """See :meth:`Callback.on_end`."""
        self.progress.finished(result)

    def on_validated(self, trainer: "Trainer", metrics: dict[str, float]) -> None:
        """See :meth:`Callback.on_validated`."""
        self.progress.validated(trainer.state.step, metrics)

    def on_written(self, trainer: "Trainer", kind: Written, path: Path) -> None:
        """See :meth:`Callback.on_written`."""
        self.progress.wrote(kind, path)


class Pictures(Callback):
    """Draws samples before the first update, every ``log.samples_every`` updates and after the last."""

    def on_start(self, trainer: "Trainer") -> None:
        """See :meth:`Callback.on_start`."""
        if trainer.state.step == 0:
            self._draw(trainer)

    def on_update(self, trainer: "Trainer", step: Step) -> None:
        """See :meth:`Callback.on_update`."""
        if _is_due(step, trainer.run.config.log.samples_every):
            self._draw(trainer)

    def _draw(self, trainer: "Trainer") -> None:
        run, ema = trainer.run, trainer.state.ema
        run.check_folder()
        data = run.dataset.train.to(trainer.state.device)
        count = run.config.log.samples if data.dim() == 4 else 4096
        seed = derive_seed(run.config.seed, "pictures")
        pool = LatentPool(data.shape[1:], trainer.latent_scale, seed, device=data.device)
        with torch.no_grad():
            samples = ema(pool.chunk(0, count)).float()
        path = run.path / "samples" / f"step_{trainer.state.step:08d}.png"
        if save_sample_picture(samples, data, path):
            trainer.written("samples", path)


class Validate(Callback):
    """Judges the averaged weights every ``log.checkpoint_every`` updates and after the last."""

    def on_start(self, trainer: "Trainer") -> None:
        """See :meth:`Callback.on_start`."""
        dataset, device = trainer.run.dataset, trainer.state.device
        self._train = dataset.train.to(device)
        self._validation = dataset.for_validation().heldout.to(device)

    def on_update(self, trainer: "Trainer", step: Step) -> None:
        """See :meth:`Callback.on_update`."""
        run, state = trainer.run, trainer.state
        if not _is_due(step, run.config.log.checkpoint_every):
            return
        seed = derive_seed(run.config.seed, "validation")
        metrics = validate(state.ema, self._train, self._validation, trainer.latent_scale, seed)
        state.score = metrics["score"] if math.isfinite(metrics["score"]) else None
        trainer.record("validation", **metrics)
        trainer.validated(metrics)


class Checkpoints(Callback):
    """Saves the state every ``log.checkpoint_every`` updates, after the last, and where the run is interrupted."""

    def on_start(self, trainer: "Trainer") -> None:
        """See :meth:`Callback.on_start`."""
        self._saved = trainer.state.step

    def on_update(self, trainer: "Trainer", step: Step) -> None:
        """See :meth:`Callback.on_update`."""
        if _is_due(step, trainer.run.config.log.checkpoint_every):
            self._save(trainer)

    def on_interrupt(self, trainer: "Trainer") -> None:
        """See :meth:`Callback.on_interrupt`."""
        if self._saved != trainer.state.step:
            self._save(trainer)

    def _save(self, trainer: "Trainer") -> None:
        run, state = trainer.run, trainer.state
        config = run.config
        tensors, info = capture(state)
        info |= {
            "samples": state.step * config.batch_size,
            "score": state.score,
            "config": config.model_dump(mode="json"),
            "model": {"architecture": config.model.architecture, "options": config.model.build_options()},
            "sample_shape": list(run.dataset.sample_shape),
            "latent_scale": trainer.latent_scale,
        }
        path = run.save_checkpoint(state.step, tensors, info)
        self._saved = state.step
        trainer.written("checkpoint", path)


def _is_due(step: Step, every: int) -> bool:
    return step.step == step.steps or (every > 0 and step.step % every == 0)
