"""The training loop: updates, each a function of the state and of seeds made from its number."""

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from naign_ext.checkpoint import (
    Checkpoint,
    checkpoint_paths,
    find_checkpoint,
    load_checkpoint,
    remove_later_checkpoints,
    remove_old_checkpoints,
    run_folder,
    save_checkpoint,
)
from naign_ext.config.presets import merge
from naign_ext.config.schema import (
    RESUMABLE,
    ConfigError,
    TrainConfig,
    differing_fields,
    load_config,
    save_config,
    validate_config,
)
from naign_ext.data import Dataset
from naign_ext.distributed.processes import MainProcessFailedError, Processes, join, name_lost_processes
from naign_ext.latents import LatentPool
from naign_ext.metrics_log import MetricsLog, Record, truncate_metrics
from naign_ext.objectives import Timer
from naign_ext.run import load_configured
from naign_ext.seeds import derive_seed
from naign_ext.training.batches import BatchOrder
from naign_ext.training.ema import update_ema
from naign_ext.training.pictures import save_sample_picture
from naign_ext.training.progress import Progress, Started, Step, TrainResult
from naign_ext.training.schedule import learning_rate
from naign_ext.training.signals import SIGNALS, StopRequest
from naign_ext.training.state import TrainingState, build_state, capture, restore
from naign_ext.training.validation import validate
from naign_ext.transforms import expand_with_flips, expand_with_shifts

# Its one attribute is made at run time.
_FILLING: Any = torch.utils.deterministic

STAGES = ("data", "generation", "search", "merge", "forward", "loss", "backward", "update")
"""Where an update's time goes. merge: waiting for and hearing from other processes, but for their gradients."""


class NonFiniteLossError(RuntimeError):
    """A loss term or the gradient became NaN or infinite; the weights of the last checkpoint are intact."""

    def __init__(self, step: int, term: str, value: float, checkpoint: Path | None) -> None:
        last = f"the last checkpoint is {checkpoint}" if checkpoint else "there is no checkpoint yet"
        super().__init__(
            f"{term} is {value} at step {step}; {last}. Try a smaller optimiser.lr or precision=fp32"
        )
        self.step = step
        self.term = term
        self.checkpoint = checkpoint


def train(config: TrainConfig, out: str | Path, *, progress: Progress | None = None) -> TrainResult:
    """Train f as configured, into a new run folder.

    The folder gets config.yaml, metrics.jsonl, TensorBoard events, samples/ and checkpoints/. SIGINT and
    SIGTERM end the run after the current update with a checkpoint and status "interrupted".

    Called in every process that torchrun started, the run is theirs together: each does its share of every step,
    the first alone writes, and only its progress is told. All get the result.

    Raises:
        ConfigError: the folder already holds a run, or configuration and data do not fit.
        NonFiniteLossError: a loss term or the gradient is not finite; names the step and the term.
        ProcessLostError: another process of the run is gone. FirstProcessFailedError: the first one failed.
    """
    run = Path(out)

    def begin() -> None:
        if (run / "config.yaml").exists() or checkpoint_paths(run):
            raise ConfigError(f"out: {run} already holds a run; choose another folder or resume it")

    def write() -> None:
        run.mkdir(parents=True, exist_ok=True)
        save_config(config, run / "config.yaml")

    with join() as processes, name_lost_processes(processes, run):
        processes.on_main(begin)
        dataset = processes.in_turn(lambda: load_configured(config))
        config = config.model_copy(update={"data_parameters": _plain(dataset.parameters)})
        processes.on_main(write)
        return _run(config, run, dataset, None, progress or Progress(), processes)


def resume(
    path: str | Path, *, changes: Mapping[str, Any] | None = None, progress: Progress | None = None
) -> TrainResult:
    """Continue a run from its last checkpoint, or the one whose folder is given, as if it had never stopped.

    Records and checkpoints after that checkpoint are removed. A run without any checkpoint starts again.

    path: run folder, or RUN/checkpoints/step_00000500.
    changes: new values for the fields of RESUMABLE, nested; a config.yaml with them is written.

    Raises:
        CheckpointError: damaged or foreign; names the previous good one.
        ConfigError: no run there, a change that may not be made, or data that are not those of the run.
    """
    path = Path(path)
    run = run_folder(path)

    def find() -> tuple[TrainConfig, Path | None]:
        if not (run / "config.yaml").is_file():
            raise ConfigError(f"resume: expected a run folder with config.yaml, got {path}")
        config = _changed(load_config(run / "config.yaml"), changes or {})
        start = find_checkpoint(path, "last") if path != run or checkpoint_paths(run) else None
        return config, start

    with join() as processes, name_lost_processes(processes, run):
        config, start = processes.on_main(find)
        dataset = processes.in_turn(lambda: load_configured(config))
        if _plain(dataset.parameters) != config.data_parameters:
            raise ConfigError(
                f"data: {config.dataset} is not what {run} was trained on; see data_parameters in it"
            )
        return _run(config, run, dataset, start, progress or Progress(), processes, changed=bool(changes))


def augmented(images: Tensor, config: TrainConfig) -> Tensor:
    """The training images and their configured copies, the originals first; vectors have none."""
    wanted = config.augment
    if images.dim() != 4:
        if wanted.flip or wanted.shift or wanted.jitter:
            raise ConfigError(f"augment: {config.dataset} has vectors, not images; switch it off")
        return images
    images = expand_with_flips(images) if wanted.flip else images
    return expand_with_shifts(images, wanted.shift) if wanted.shift else images


def _run(
    config: TrainConfig,
    run: Path,
    dataset: Dataset,
    start: Path | None,
    progress: Progress,
    processes: Processes,
    *,
    changed: bool = False,
) -> TrainResult:
    data = augmented(dataset.train, config)
    progress = progress if processes.is_main else Progress()
    step = 0

    def read(start: Path) -> Checkpoint:
        checkpoint = load_checkpoint(start)
        checkpoint.check_resumable()
        _check_unchanged(config, checkpoint)
        return checkpoint

    def tidy() -> None:
        if changed:
            save_config(config, run / "config.yaml")
        remove_later_checkpoints(run, step)
        truncate_metrics(run, step)

    cuda = list(range(torch.cuda.device_count()))
    with StopRequest() as stop, torch.random.fork_rng(devices=cuda), _Determinism(config):
        state = build_state(config, data, processes)
        if start is not None:
            restore(state, processes.on_main(partial(read, start)))
            step = state.step
        processes.on_main(tidy)
        log = MetricsLog(run, step, tensorboard=config.log.tensorboard) if processes.is_main else None
        with log or nullcontext():
            trainer = _Trainer(
                config=config,
                run=run,
                dataset=dataset,
                state=state,
                log=log,
                progress=progress,
                stop=stop,
                processes=processes,
            )
            progress.started(trainer.describe())
            trainer.loop()
        result = processes.on_main(trainer.result)
    progress.finished(result)
    return result


@dataclass
class _Window:
    """Time and updates since the last record, for images per second."""

    began: float
    step: int


class _Trainer:
    def __init__(
        self,
        *,
        config: TrainConfig,
        run: Path,
        dataset: Dataset,
        state: TrainingState,
        log: MetricsLog | None,
        progress: Progress,
        stop: StopRequest,
        processes: Processes,
    ) -> None:
        self.config = config
        self.run = run
        self.state = state
        self.log = log
        self.progress = progress
        self.stop = stop
        self.processes = processes
        self.signal: str | None = None
        self.heldout_rows = len(dataset.heldout)
        self.validation = dataset.for_validation().heldout.to(state.device)
        self.originals = dataset.train.to(state.device)
        self.order = BatchOrder(len(state.objective.data), config.seed)
        self.latent_scale = float(getattr(config.objective, "latent_scale", 1.0))
        self.began = time.perf_counter()
        self.seconds_before = state.seconds
        self.first_step = state.step
        self.images_per_s = 0.0
        self.timer = Timer()
        if config.log.exact_cost and state.device.type == "cuda":
            self.timer.wait = state.objective.timer.wait = torch.cuda.synchronize
        self.window = _Window(self.began, state.step)

    def describe(self) -> Started:
        state = self.state
        return Started(
            run=self.run,
            config=self.config,
            step=state.step,
            steps=self.config.steps,
            rows=self.order.count,
            heldout_rows=self.heldout_rows,
            sample_shape=tuple(self.originals.shape[1:]),
            parameters=sum(p.numel() for p in state.model.parameters()),
            device=str(state.device),
            precision=state.precision,
        )

    def loop(self) -> None:
        config, state = self.config, self.state
        if state.step == 0 and self.processes.is_main:
            self.save_samples()
        while state.step < config.steps:
            self.update()
            if not self.processes.is_distributed:
                self.signal = self.stop.signal
            if self.processes.is_main:
                self.save_what_is_due()
            if self.signal is not None:
                break

    def save_what_is_due(self) -> None:
        config, state = self.config, self.state
        last = state.step == config.steps
        if last or _due(state.step, config.log.samples_every):
            self.save_samples()
        if last or _due(state.step, config.log.checkpoint_every):
            self.save_checkpoint(score=self.validate())
        elif self.signal is not None:
            self.save_checkpoint(score=None)

    def update(self) -> None:
        config, state = self.config, self.state
        number = state.step
        lr = learning_rate(
            number, config.steps, config.optimiser.lr, config.optimiser.warmup, config.optimiser.schedule
        )
        for group in state.optimiser.param_groups:
            group["lr"] = lr
        with self.timer("data"):
            torch.manual_seed(derive_seed(config.seed, "step", number))
            rows = self.order.rows(number * config.batch_size, config.batch_size).to(state.device)
        state.f.train()
        with self.timer("loss"), state.autocast():
            state.objective.prepare(state.f, number)
            loss = state.objective.loss(state.f, rows, number)
        figures = loss.figures() if self.is_recorded(number + 1) else {}
        means = self.over_all_processes({"loss": loss.total.detach(), **loss.terms, **figures})
        with self.timer("backward"):
            state.optimiser.zero_grad(set_to_none=True)
            state.scaler.scale(loss.total).backward()  # type: ignore[no-untyped-call]
        values = means()
        terms = {name: values[name] for name in loss.terms}
        for name, value in {**terms, "loss": values["loss"]}.items():
            self.check_finite(name, value)
        grad_norm = self.descend()
        with self.timer("update"):
            update_ema(state.ema, state.model, number, config.optimiser.ema_decay)
        state.step += 1
        self.report(values["loss"], terms, {name: values[name] for name in figures}, lr, grad_norm)

    def over_all_processes(self, scalars: dict[str, Tensor]) -> Callable[[], dict[str, float]]:
        """What gives the means of scalars, which are exchanged meanwhile.

        Of several processes all learn with them whether one has had a signal.
        """
        stacked = torch.stack(list(scalars.values()))
        if not self.processes.is_distributed:
            return lambda: dict(zip(scalars, stacked.tolist(), strict=True))
        noted = stacked.new_tensor([name == self.stop.signal for name in SIGNALS])
        mean = self.processes.begin_mean(torch.cat([stacked, noted]))

        def means() -> dict[str, float]:
            with self.timer("merge"):
                found = mean().tolist()
            heard = zip(SIGNALS, found[len(scalars) :], strict=True)
            self.signal = next((name for name, shard in heard if shard > 0), None)
            return dict(zip(scalars, found, strict=False))

        return means

    def descend(self) -> float:
        """One step of the optimiser; returns the norm of the gradient before clipping."""
        state = self.state
        with self.timer("update"):
            state.scaler.unscale_(state.optimiser)
            limit = self.config.optimiser.grad_clip or math.inf
            norm = float(torch.nn.utils.clip_grad_norm_(state.model.parameters(), limit))
            if not state.scaler.is_enabled():
                self.check_finite("gradient", norm)
            state.scaler.step(state.optimiser)
            state.scaler.update()
        return norm

    def cost(self, updates: int) -> dict[str, float]:
        """Seconds of an update by stage, means over the given number of updates since the last call."""
        inside, around = self.state.objective.timer.take(), self.timer.take()
        around["loss"] = around.get("loss", 0.0) - sum(inside.values())
        for stage, seconds in inside.items():
            around[stage] = around.get(stage, 0.0) + seconds
        stages = {stage: around.get(stage, 0.0) for stage in STAGES}
        return {stage: round(seconds / max(updates, 1), 7) for stage, seconds in stages.items()}

    def check_finite(self, name: str, value: float) -> None:
        if math.isfinite(value):
            return
        paths = checkpoint_paths(self.run)
        error = NonFiniteLossError(self.state.step + 1, name, value, paths[-1] if paths else None)
        # The value is the same in every process.
        raise error if self.processes.is_main else MainProcessFailedError(str(error))

    def is_recorded(self, step: int) -> bool:
        """Whether metrics.jsonl gets a record once so many updates are done."""
        return step % self.config.log.every == 0 or step == self.config.steps

    def report(
        self, loss: float, terms: dict[str, float], figures: dict[str, float], lr: float, grad_norm: float
    ) -> None:
        config, step = self.config, self.state.step
        now = time.perf_counter()
        self.state.seconds = self.seconds_before + now - self.began
        record_due = self.is_recorded(step)
        if record_due or not self.images_per_s:
            images = (step - self.window.step) * config.batch_size
            self.images_per_s = images / max(now - self.window.began, 1e-9)
        if record_due:
            cost = self.cost(step - self.window.step)
            self.window = _Window(now, step)
            self.write(
                "train",
                samples=step * config.batch_size,
                loss=loss,
                terms=terms,
                **figures,
                lr=lr,
                grad_norm=grad_norm,
                images_per_s=round(self.images_per_s, 2),
                seconds=round(self.state.seconds, 3),
                cost=cost,
            )
        pace = (now - self.began) / (step - self.first_step)
        self.progress.stepped(
            Step(
                step=step,
                steps=config.steps,
                loss=loss,
                terms=terms,
                lr=lr,
                grad_norm=grad_norm,
                images_per_s=self.images_per_s,
                seconds=self.state.seconds,
                seconds_left=pace * (config.steps - step),
            )
        )

    def write(self, kind: str, **values: Any) -> None:
        record: Record = {"kind": kind, "step": self.state.step, **values}
        if self.log is not None:
            self.log.write(record)

    def validate(self) -> float | None:
        seed = derive_seed(self.config.seed, "validation")
        figures = validate(self.state.ema, self.originals, self.validation, self.latent_scale, seed)
        self.write("validation", **figures)
        self.progress.validated(self.state.step, figures)
        return figures["score"] if math.isfinite(figures["score"]) else None

    def save_samples(self) -> None:
        seed = derive_seed(self.config.seed, "pictures")
        count = self.config.log.samples if self.originals.dim() == 4 else 4096
        pool = LatentPool(self.originals.shape[1:], self.latent_scale, seed, device=self.state.device)
        with torch.no_grad():
            samples = self.state.ema(pool.chunk(0, count)).float()
        path = self.run / "samples" / f"step_{self.state.step:08d}.png"
        if save_sample_picture(samples, self.originals, path):
            self.progress.wrote("samples", path)

    def save_checkpoint(self, *, score: float | None) -> None:
        config = self.config
        tensors, info = capture(self.state)
        model = {"architecture": config.model.architecture, "options": config.model.build_options()}
        info |= {
            "samples": self.state.step * config.batch_size,
            "score": score,
            "config": config.model_dump(mode="json"),
            "model": model,
            "sample_shape": list(self.originals.shape[1:]),
            "latent_scale": self.latent_scale,
        }
        path = save_checkpoint(self.run, self.state.step, tensors, info)
        remove_old_checkpoints(self.run)
        self.progress.wrote("checkpoint", path)

    def result(self) -> TrainResult:
        done = self.state.step == self.config.steps
        return TrainResult(
            status="completed" if done else "interrupted",
            run=self.run,
            step=self.state.step,
            steps=self.config.steps,
            seconds=self.state.seconds,
            checkpoint=find_checkpoint(self.run, "last"),
            best=find_checkpoint(self.run, "best"),
            signal=None if done else self.signal,
        )


class _Determinism:
    """Deterministic algorithms on CUDA within the context; the CPU's are deterministic as they are."""

    def __init__(self, config: TrainConfig) -> None:
        self._wanted = config.deterministic and torch.cuda.is_available()

    def __enter__(self) -> None:
        self._before = (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            _FILLING.fill_uninitialized_memory,
        )
        if self._wanted:
            # cuBLAS reads it once, at its first product: a workspace of fixed size for each stream.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)
            # Nothing here reads memory that it has not written; filling it would cost a pass over each new tensor.
            _FILLING.fill_uninitialized_memory = False

    def __exit__(self, *_: object) -> None:
        enabled, warn_only, fill = self._before
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        _FILLING.fill_uninitialized_memory = fill


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _changed(config: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    for key in changes:
        if key not in RESUMABLE:
            raise ConfigError(f"{key}: cannot change when a run is resumed; only {', '.join(RESUMABLE)} can")
    return validate_config(merge(config.model_dump(mode="json"), changes))


def _check_unchanged(config: TrainConfig, checkpoint: Checkpoint) -> None:
    differing = differing_fields(config, validate_config(checkpoint.config))
    for key in sorted(differing):
        if key.split(".", maxsplit=1)[0] not in RESUMABLE:
            raise ConfigError(
                f"{key}: config.yaml is not what {checkpoint.path} was trained with; restore it"
            )


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain
