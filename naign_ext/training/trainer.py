"""The training loop: updates, each a function of the state and of seeds made from its number."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from naign_ext.config import TrainConfig
from naign_ext.distributed.exchange import Exchanged, begin_exchange
from naign_ext.distributed.processes import MainProcessFailedError, join, name_lost_processes
from naign_ext.file_errors import in_words
from naign_ext.metrics_log import MetricsLog
from naign_ext.objectives import Loss, StepContext
from naign_ext.run import Run
from naign_ext.seeds import derive_seed
from naign_ext.timer import Timer
from naign_ext.training.batches import TrainingData, with_copies
from naign_ext.training.callbacks import Callback, Written, default_callbacks
from naign_ext.training.determinism import reproducible
from naign_ext.training.ema import update_ema
from naign_ext.training.footprint import check_memory
from naign_ext.training.pace import Pace
from naign_ext.training.progress import Progress, Started, Step, TrainResult
from naign_ext.training.schedule import learning_rate
from naign_ext.training.signals import SIGNALS, StopRequest
from naign_ext.training.state import TrainingState, build_state, choose_own_device, choose_precision, restore
from naign_ext.transforms.batch import Batch


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


class RunNotWrittenError(OSError):
    """A file of the run cannot be written: a full disk, a folder that was removed; earlier checkpoints are intact."""


def train(config: TrainConfig, out: str | Path, *, progress: Progress | None = None) -> TrainResult:
    """Train f as configured, into a new run folder.

    The folder gets config.yaml, metrics.jsonl, TensorBoard events, samples/ and checkpoints/. SIGINT and
    SIGTERM end the run after the current update with a checkpoint and status "interrupted".

    Called in every process that torchrun started, the run is theirs together: each does its shard of every step,
    the main one alone writes, and only its progress is told. All get the result.

    Raises:
        ConfigError: the folder already holds a run, or configuration and data do not fit.
        RunNotWrittenError (an OSError): a full disk, a folder that was removed; names the file and what is kept.
        NotEnoughMemoryError (a MemoryError): it takes more memory than is free, as far as that can be told before.
        NonFiniteLossError: a loss term or the gradient is not finite; names the step and the term.
        ProcessLostError: another process of the run is gone. MainProcessFailedError: the main one failed.
    """
    with join() as processes:
        return Trainer(Run.create(config, out, processes), default_callbacks(progress)).fit()


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
    with join() as processes:
        return Trainer(Run.open(path, changes, processes), default_callbacks(progress)).fit()


class Trainer:
    """Trains a run from where it stands: its last checkpoint or the one it was opened by, or the beginning.

    Callbacks are called in the main process alone; see :class:`naign_ext.training.callbacks.Callback`. They read
    ``run``, ``state`` (weights, optimiser, position), ``timer`` and ``latent_scale``, and write by :meth:`record`.
    """

    data: TrainingData
    state: TrainingState

    def __init__(self, run: Run, callbacks: Sequence[Callback] | None = None) -> None:
        self.run = run
        self.processes = run.processes
        chosen = default_callbacks() if callbacks is None else callbacks
        self.callbacks = tuple(chosen) if self.processes.is_main else ()
        self.latent_scale = float(getattr(run.config.objective, "latent_scale", 1.0))
        self.timer = Timer()
        self.signal: str | None = None
        self._stop = StopRequest()

    def fit(self) -> TrainResult:
        """Train to the last update, or until a signal asks to stop. Raises as :func:`train` and :func:`resume` do."""
        config, processes = self.run.config, self.processes
        with (
            self.run.exclusively(),
            name_lost_processes(processes, self.run.path),
            self._naming_what_is_kept(),
            self._stop,
            reproducible(deterministic=config.deterministic),
            self._begin() as self._log,
        ):
            for callback in self.callbacks:
                callback.on_start(self)
            while self.state.step < config.steps and self.signal is None:
                step = self.update()
                self.run.keep()
                for callback in self.callbacks:
                    callback.on_update(self, step)
                self.signal = self._heard_signal()
            if self.state.step < config.steps:
                for callback in self.callbacks:
                    callback.on_interrupt(self)
            result = processes.on_main(self._result)
        for callback in self.callbacks:
            callback.on_end(self, result)
        return result

    def update(self) -> Step:
        """One update of the weights."""
        number = self.state.step
        lr = self._set_learning_rate(number)
        batch = self._draw_batch(number)
        loss = self._compute_loss(batch, number)
        metrics = loss.metrics() if self._is_recorded(number + 1) else None
        exchange = self._begin_exchange({"loss": loss.total.detach(), **loss.terms, **(metrics or {})})
        self._backward(loss)
        self._told = self._finish_exchange(exchange)
        self._check_finite({name: self._told.means[name] for name in (*loss.terms, "loss")})
        grad_norm = self._descend()
        self._average(number)
        return self._finish(loss.terms, metrics, lr, grad_norm)

    def record(self, kind: str, **values: Any) -> None:
        """Append a record of this step to metrics.jsonl."""
        if self._log is not None:
            self._log.write({"kind": kind, "step": self.state.step, **values})

    def validated(self, metrics: dict[str, float]) -> None:
        """Tell all callbacks of a validation."""
        for callback in self.callbacks:
            callback.on_validated(self, metrics)

    def written(self, kind: Written, path: Path) -> None:
        """Tell all callbacks of a file or folder of the run."""
        for callback in self.callbacks:
            callback.on_written(self, kind, path)

    def describe(self) -> Started:
        """The run as it is about to train."""
        dataset, state = self.run.dataset, self.state
        return Started(
            run=self.run.path,
            config=self.run.config,
            step=state.step,
            steps=self.run.config.steps,
            rows=len(self.data.x),
            heldout_rows=len(dataset.heldout),
            sample_shape=dataset.sample_shape,
            parameters=sum(p.numel() for p in state.model.parameters()),
            device=str(state.device),
            precision=state.precision,
        )

    @contextmanager
    def _naming_what_is_kept(self) -> Iterator[None]:
        """An error of files after the first update says from where the run goes on."""
        try:
            yield
        except OSError as error:
            state = getattr(self, "state", None)
            if state is None or state.step == 0 or isinstance(error, BrokenPipeError):
                raise
            kept = self.run.checkpoint_paths()
            last = (
                f"the last checkpoint is {kept[-1]}, from which --resume {self.run.path} goes on"
                if kept
                else "there is no checkpoint"
            )
            raise RunNotWrittenError(
                f"{in_words(error)}; the run stops after {state.step} updates, {last}"
            ) from error

    def _begin(self) -> AbstractContextManager[MetricsLog | None]:
        """Build the state, put it where the run stands, and give up what came after; the log, in the main process."""
        run, config, processes = self.run, self.run.config, self.processes
        run.check_dataset()
        device = choose_own_device(config.device, processes)
        if config.log.exact_cost and device.type == "cuda":
            self.timer.wait = torch.cuda.synchronize
        precision = choose_precision(config, device)
        check_memory(config, run.dataset.train, device, precision, processes.world_size)
        self.data = TrainingData(
            with_copies(run.dataset.train, config).to(device),
            batch_size=config.batch_size,
            seed=config.seed,
            jitter=config.augment.jitter,
            shard=processes.shard,
        )
        context = StepContext(config.seed, processes.rank, processes.world_size, self.timer)
        self.state = build_state(config, self.data.x, context)
        checkpoint = processes.on_main(run.latest_state)
        if checkpoint is not None:
            restore(self.state, checkpoint)
        processes.on_main(lambda: run.go_on_from(self.state.step))
        self.pace = Pace(
            batch_size=config.batch_size,
            step=self.state.step,
            steps=config.steps,
            seconds=self.state.seconds,
        )
        if not processes.is_main:
            return nullcontext()
        return run.log(self.state.step, tensorboard=config.log.tensorboard)

    def _set_learning_rate(self, number: int) -> float:
        o = self.run.config.optimiser
        lr = learning_rate(number, self.run.config.steps, o.lr, o.warmup, o.schedule)
        for group in self.state.optimiser.param_groups:
            group["lr"] = lr
        return lr

    def _draw_batch(self, number: int) -> Batch:
        with self.timer("data"):
            torch.manual_seed(derive_seed(self.run.config.seed, "step", number))
            return self.data.batch(number)

    def _compute_loss(self, batch: Batch, number: int) -> Loss:
        state = self.state
        state.f.train()
        with self.timer("loss"), state.autocast():
            state.objective.prepare(state.f, number)
            return state.objective.loss(state.f, batch, number)

    def _begin_exchange(self, scalars: dict[str, Tensor]) -> Callable[[], Exchanged]:
        """Of several processes all learn the means of scalars, and whether one of them has had a signal."""
        signals = {name: name == self._stop.signal for name in SIGNALS}
        return begin_exchange(self.processes, scalars, signals)

    def _finish_exchange(self, exchange: Callable[[], Exchanged]) -> Exchanged:
        with self.timer("merge") if self.processes.is_distributed else nullcontext():
            return exchange()

    def _heard_signal(self) -> str | None:
        """The signal to stop for. Several processes stop for what they have exchanged, all after the same update."""
        if self.processes.is_distributed:
            return next(iter(self._told.requests), None)
        return self._stop.signal

    def _backward(self, loss: Loss) -> None:
        state = self.state
        with self.timer("backward"):
            state.optimiser.zero_grad(set_to_none=True)
            state.scaler.scale(loss.total).backward()  # type: ignore[no-untyped-call]

    def _descend(self) -> float:
        """One step of the optimiser; returns the norm of the gradient before clipping."""
        state = self.state
        with self.timer("update"):
            state.scaler.unscale_(state.optimiser)
            limit = self.run.config.optimiser.grad_clip or math.inf
            norm = float(torch.nn.utils.clip_grad_norm_(state.model.parameters(), limit))
            if not state.scaler.is_enabled():
                self._check_finite({"gradient": norm})
            state.scaler.step(state.optimiser)
            state.scaler.update()
        return norm

    def _average(self, number: int) -> None:
        with self.timer("update"):
            update_ema(self.state.ema, self.state.model, number, self.run.config.optimiser.ema_decay)

    def _finish(
        self, terms: Iterable[str], metrics: Iterable[str] | None, lr: float, grad_norm: float
    ) -> Step:
        state, means = self.state, self._told.means
        state.step += 1
        state.score = None
        now = self.pace.after(state.step, recorded=metrics is not None)
        state.seconds = now.seconds
        return Step(
            step=state.step,
            steps=self.run.config.steps,
            loss=means["loss"],
            terms={name: means[name] for name in terms},
            lr=lr,
            grad_norm=grad_norm,
            images_per_s=now.images_per_s,
            seconds=now.seconds,
            seconds_left=now.seconds_left,
            metrics=None if metrics is None else {name: means[name] for name in metrics},
        )

    def _check_finite(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if not math.isfinite(value):
                paths = self.run.checkpoint_paths()
                error = NonFiniteLossError(self.state.step + 1, name, value, paths[-1] if paths else None)
                # The value is the same in every process.
                raise error if self.processes.is_main else MainProcessFailedError(str(error))

    def _is_recorded(self, step: int) -> bool:
        """Whether metrics.jsonl gets a record once so many updates are done."""
        return step % self.run.config.log.every == 0 or step == self.run.config.steps

    def _result(self) -> TrainResult:
        done = self.state.step == self.run.config.steps
        return TrainResult(
            status="completed" if done else "interrupted",
            run=self.run.path,
            step=self.state.step,
            steps=self.run.config.steps,
            seconds=self.state.seconds,
            checkpoint=self.run.checkpoint_path("last"),
            best=self.run.checkpoint_path("best"),
            signal=None if done else self.signal,
        )
