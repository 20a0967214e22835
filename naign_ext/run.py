"""A run: its folder and what belongs to it; the one place that says which run a path is of."""

import errno
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from naign_ext.checkpoint import (
    Checkpoint,
    Tensors,
    Which,
    checkpoint_paths,
    find_checkpoint,
    load_checkpoint,
    remove_later_checkpoints,
    remove_old_checkpoints,
    run_folder,
    save_checkpoint,
)
from naign_ext.config import (
    RESUMABLE,
    ConfigError,
    TrainConfig,
    differing_fields,
    flattened,
    is_moved,
    load_config,
    save_config,
    shared_values,
    validate_config,
    with_absolute_paths,
    with_changes,
)
from naign_ext.data import (
    HASH_OF_CONTENT,
    Dataset,
    DataUnavailableError,
    data_identity,
    is_same_data,
    load_dataset,
)
from naign_ext.distributed.processes import (
    SINGLE_PROCESS,
    Processes,
    ProcessLostError,
    name_lost_processes,
)
from naign_ext.metrics_log import MetricsLog, Record, read_metrics, truncate_metrics
from naign_ext.projector import Projector
from naign_ext.run_lock import Start, exclusive, make_folder

CONFIG_FILE = "config.yaml"


class Run:
    """A run's folder, and all that is read from it or written to it.

        config.yaml      what was asked for, with the parameters and hashes of the data
        metrics.jsonl    what was measured while it trained, and by reports
        checkpoints/     its last two states and the best one
        samples/         pictures taken while it trained
        report/          tables and pictures of what its network does

    :meth:`create` begins one, :meth:`open` takes up one that is there::

        run = Run.open("runs/faces")            # or "runs/faces/checkpoints/step_00000500"
        run.path                                # the folder
        run.config                              # TrainConfig
        run.dataset                             # Dataset, all held-out rows; read once, when it is first asked for
        run.dataset.for_test()                  # with the held-out rows that chose nothing, for what is reported
        run.projector()                         # Projector of the best checkpoint, or of the one that was named
        run.checkpoint("last")                  # Checkpoint in memory
        run.metrics()                           # records of metrics.jsonl
        with run.log() as log: log.write(...)   # appends to them

    path: the run's folder. named: the checkpoint's folder that the run was opened by, which then stands for "best",
    "last" and any step; None where it was opened by its own folder.
    """

    def __init__(
        self,
        path: Path,
        config: TrainConfig,
        named: Path | None = None,
        processes: Processes = SINGLE_PROCESS,
        dataset: Dataset | None = None,
    ) -> None:
        self.path = path
        self.config = config
        self.named = named
        self.processes = processes
        self._dataset = dataset
        self._is_changed = False
        self._start: Start | None = None

    def __repr__(self) -> str:
        return f"Run({str(self.named or self.path)!r})"

    @classmethod
    def create(
        cls, config: TrainConfig, path: str | Path | Iterable[Path], processes: Processes = SINGLE_PROCESS
    ) -> "Run":
        """A new run: loads the data set, makes the folder and writes config.yaml with the data's parameters.

        path: the folder, or several, of which the first that is not there is taken. processes: those that share the
        run; all call this, the main one writes. Where it fails, or training does before the first update, nothing of
        the run is left in the folder.

        Raises:
            ConfigError: the folder already holds a run, or another process trains there. ValueError: processes of
            one job have other configurations or data. DataUnavailableError, ValueError: see load_configured.
        """
        folders = [Path(path)] if isinstance(path, str | Path) else list(path)
        with name_lost_processes(processes, folders[0]), ExitStack() as held:
            processes.agree({"command": "train", **shared_values(config)})
            start = processes.on_main(lambda: held.enter_context(_started(folders)))
            config = with_absolute_paths(config)
            dataset = processes.in_turn(lambda: load_configured(config))
            processes.agree(flattened({"data": data_identity(dataset.parameters)}))
            config = config.model_copy(update={"data_parameters": _plain(dataset.parameters)})
            run = cls(start.folder, config, None, processes, dataset)
            processes.on_main(run.save_config)
            run._start = start
            return run

    @classmethod
    def open(
        cls,
        path: str | Path,
        changes: Mapping[str, Any] | None = None,
        processes: Processes = SINGLE_PROCESS,
    ) -> "Run":
        """The run that a path belongs to: its folder, or that of one of its checkpoints.

        changes: new values for the fields of RESUMABLE, nested, and another place of the data as for
        :func:`with_changes`; config.yaml has them once training goes on.

        Raises:
            ConfigError: no run there, config.yaml cannot be read, or a change that may not be made.
        """
        given = Path(path)

        def read() -> tuple[Path, TrainConfig]:
            folder = run_folder(given)
            if not is_run(given):
                raise ConfigError(
                    f"run: expected a run folder with {CONFIG_FILE}, or one of its checkpoints, got {given}"
                )
            return folder, with_changes(load_config(folder / CONFIG_FILE), changes or {})

        with name_lost_processes(processes, run_folder(given)):
            shared = {
                key: value for key, value in (changes or {}).items() if key not in ("data_root", "dataset")
            }
            processes.agree({"command": "resume", **flattened(shared)})
            folder, config = processes.on_main(read)
        run = cls(folder, config, None if folder == given else given, processes)
        run._is_changed = bool(changes)
        return run

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """While it lasts, no other process can train this run. All processes that share it call this together.

        A new run that fails within it before :meth:`keep` is removed, except where another process was lost.

        Raises:
            ConfigError: another process trains it.
        """
        with ExitStack() as held:
            with name_lost_processes(self.processes, self.path):
                self.processes.on_main(lambda: held.enter_context(exclusive(self.path)))
            try:
                yield
            except ProcessLostError:
                raise
            except BaseException:
                if self._start is not None and self.processes.is_main:
                    self._start.undo()
                    held.close()
                    self._start.remove_folders()
                raise

    def keep(self) -> None:
        """Say that an update was done: from here on a failure leaves the folder as it is."""
        self._start = None

    @property
    def dataset(self) -> Dataset:
        """The data set that config names, read once. Where processes share the run, all must ask for it together.

        Raises:
            DataUnavailableError: it is not there. ConfigError: files with other contents than the run was begun on.
        """
        if self._dataset is None:
            self._dataset = self.processes.in_turn(self._read_dataset)
        return self._dataset

    def _read_dataset(self) -> Dataset:
        try:
            dataset = load_configured(self.config)
        except DataUnavailableError as error:
            raise DataUnavailableError(
                f"{error}; where the run's data have been moved, give their new place by --data-root"
            ) from None
        if HASH_OF_CONTENT in self.config.data_parameters:
            self._check_same(dataset)
        return dataset

    def check_dataset(self) -> None:
        """ConfigError where the data set is not the one that the run was begun on, wherever it lies now."""
        self._check_same(self.dataset)

    def _check_same(self, dataset: Dataset) -> None:
        if not is_same_data(_plain(dataset.parameters), self.config.data_parameters):
            raise ConfigError(
                f"data: {self.config.dataset} is not what {self.path} was trained on; see data_parameters in its "
                f"{CONFIG_FILE}, and give the place of those data by --data-root"
            )

    def checkpoint(self, which: Which = "best") -> Checkpoint:
        """A checkpoint in memory: "best" by validation, "last", or a step; see :func:`load_checkpoint`."""
        return load_checkpoint(self.named or self.path, which)

    def checkpoint_path(self, which: Which = "best") -> Path:
        """The folder of :meth:`checkpoint`, unread."""
        return find_checkpoint(self.named or self.path, which)

    def checkpoint_paths(self) -> list[Path]:
        """The folders of all checkpoints by step, whole or damaged."""
        return checkpoint_paths(self.path)

    def latest_state(self) -> Checkpoint | None:
        """The checkpoint from which training goes on, the last or the named one; None where there is none yet.

        Raises:
            CheckpointError: damaged or foreign; names the previous good one.
            ConfigError: config.yaml is not what the checkpoint was trained with, or asks for fewer steps.
        """
        if self.named is None and not self.checkpoint_paths():
            return None
        checkpoint = self.checkpoint("last")
        checkpoint.check_resumable()
        for key in sorted(differing_fields(self.config, self._with_own_place(checkpoint.config))):
            if key.split(".", maxsplit=1)[0] not in RESUMABLE:
                raise ConfigError(
                    f"{key}: {CONFIG_FILE} is not what {checkpoint.path} was trained with; restore it"
                )
        if self.config.steps < checkpoint.step:
            raise ConfigError(
                f"steps: expected at least the {checkpoint.step} that {checkpoint.path} has done, got "
                f"{self.config.steps}; resume an earlier checkpoint to go back"
            )
        return checkpoint

    def _with_own_place(self, saved: Mapping[str, Any]) -> TrainConfig:
        """A checkpoint's configuration with the place where this run finds its data, if they are the same data."""
        config, own = validate_config(saved), self.config
        if not is_moved(config.dataset, own.dataset):
            return config
        if not is_same_data(config.data_parameters, own.data_parameters):
            return config
        return config.model_copy(update={"dataset": own.dataset, "data_parameters": own.data_parameters})

    def check_folder(self) -> None:
        """FileNotFoundError where the run's folder has been removed, which writing into it would hide."""
        config = self.path / CONFIG_FILE
        if not config.is_file():
            raise FileNotFoundError(errno.ENOENT, "was removed while the run was trained", str(config))

    def save_checkpoint(self, step: int, tensors: dict[str, Tensors], info: dict[str, Any]) -> Path:
        """Write a checkpoint as :func:`naign_ext.checkpoint.save_checkpoint` does, and remove those not to be kept."""
        self.check_folder()
        path = save_checkpoint(self.path, step, tensors, info)
        remove_old_checkpoints(self.path)
        return path

    def projector(
        self,
        device: torch.device | str | None = None,
        weights: Literal["ema", "model"] = "ema",
        which: Which = "best",
    ) -> Projector:
        """The run's f; arguments as for :meth:`Projector.load`."""
        return Projector.load(self.named or self.path, device, weights, which)

    def metrics(self) -> list[Record]:
        """The records of metrics.jsonl, in order."""
        return read_metrics(self.path)

    def log(self, step: int = 0, *, tensorboard: bool = False) -> MetricsLog:
        """What appends records to metrics.jsonl, and to TensorBoard's events where asked; step: updates done so far."""
        return MetricsLog(self.path, step, tensorboard=tensorboard)

    def save_config(self) -> None:
        """Write config.yaml."""
        self.path.mkdir(parents=True, exist_ok=True)
        save_config(self.config, self.path / CONFIG_FILE)

    def go_on_from(self, step: int) -> None:
        """Give up the records and checkpoints after a step, and write config.yaml where it was changed.

        From here on the run's best and last checkpoints are meant again, also where it was opened by one of them.
        """
        # Where they are damaged, that is said before anything is changed.
        read_metrics(self.path)
        if self._is_changed:
            self.save_config()
        self.named = None
        remove_later_checkpoints(self.path, step)
        truncate_metrics(self.path, step)


@contextmanager
def _started(folders: list[Path]) -> Iterator[Start]:
    """The folder for a new run, in which no other process can begin one meanwhile; undone where that fails."""
    if len(folders) == 1:
        _check_free(folders[0])
    start = make_folder(folders)
    try:
        with exclusive(start.folder):
            _check_free(start.folder)
            try:
                yield start
            except BaseException:
                start.undo()
                raise
    except BaseException:
        start.remove_folders()
        raise


def _check_free(folder: Path) -> None:
    if (folder / CONFIG_FILE).exists() or checkpoint_paths(folder):
        raise ConfigError(f"out: {folder} already holds a run; choose another folder or resume it")


def is_run(path: str | Path) -> bool:
    """Whether a path is a run's folder, or belongs to one as its checkpoints do."""
    return (run_folder(Path(path)) / CONFIG_FILE).is_file()


def load_configured(config: TrainConfig) -> Dataset:
    """The data set of a configuration, drawn, split and cut down as it says; all held-out rows.

    Take :meth:`Dataset.for_validation` of it for any choice and :meth:`Dataset.for_test` for what is reported.

    Raises:
        DataUnavailableError: the data are not there. ValueError: the configuration does not fit them.
    """
    dataset = load_dataset(
        config.dataset,
        data_root=config.data_root,
        seed=config.data_seed,
        image_size=config.image_size,
        heldout_fraction=config.heldout_fraction,
    )
    if config.train_rows is None:
        return dataset
    return dataset.with_train_rows(config.train_rows, config.data_seed)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as they are after a way through JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain
