"""Checkpoints of safetensors and JSON: complete or absent, checked when read, never executable.

A run keeps them in ``checkpoints/step_00000500/``:

    model.safetensors, ema.safetensors   weights and their running average
    optimizer.safetensors                AdamW's moments, by parameter name
    state.safetensors                    states of the random generators and of the objective
    state.json                           format, position, validation score, configuration, file hashes

Each is written to a temporary folder, flushed to the disk with the folder, and renamed into place. What else lies in
``checkpoints/``, or in a checkpoint's folder, is not theirs and stays.
"""

import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from naign_ext.file_errors import naming
from naign_ext.memory import available_bytes
from naign_ext.models import build_model
from naign_ext.models.described import misfit, tensors_of
from naign_ext.options import MOST_STEPS, in_a_line, shown
from naign_ext.untrusted import FileTooLargeError, StrictModel, checked, parse_json, read_regular_file

FORMAT = "naign-checkpoint"
VERSION = 3
"""Of what is written. In 3, state.json ends with its own hash. In 2, latents and the noise on data are the numbers of
:func:`naign_ext.ops.randn`; in 1 they are others."""
RESUMABLE_VERSIONS = (2, 3)
"""Versions that a run goes on from."""
READABLE = (1, 2, 3)
"""Versions whose weights can be used."""
_FIRST_SEALED = 3
LARGEST_SIZE = 1 << 24
"""Of a dimension of the points."""
TENSOR_FILES = ("model", "ema", "optimizer", "state")
_FILES = frozenset(("state.json", *(f"{name}.safetensors" for name in TENSOR_FILES)))
_TEMPORARY = re.compile(r"\.(?:writing|replaced|removing)-step_[0-9]{8}")
"""Names of folders on their way in or out."""
_KEPT = 2

Tensors = dict[str, Tensor]
Which = Literal["best", "last"] | int


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged or foreign; ``previous`` is the run's newest good one before it."""

    def __init__(self, message: str, previous: Path | None = None) -> None:
        if previous is not None:
            message += (
                f"\nThe previous good checkpoint is {previous}; resume from it with --resume {previous}"
            )
        super().__init__(message)
        self.previous = previous


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory, on the CPU."""

    path: Path
    step: int
    tensors: dict[str, Tensors]
    info: dict[str, Any]

    @property
    def model(self) -> Tensors:
        """Weights of f."""
        return self.tensors["model"]

    @property
    def ema(self) -> Tensors:
        """Running average of the weights of f."""
        return self.tensors["ema"]

    @property
    def config(self) -> dict[str, Any]:
        """The run's configuration as nested plain values."""
        config: dict[str, Any] = self.info["config"]
        return config

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one data point, which is the shape of a latent."""
        return tuple(self.info["sample_shape"])

    @property
    def latent_scale(self) -> float:
        """Standard deviation of the latents f was trained on."""
        return float(self.info["latent_scale"])

    def check_resumable(self) -> None:
        """CheckpointError where a run that went on from here would draw other latents and noise than it began with."""
        version = self.info["version"]
        if version not in RESUMABLE_VERSIONS:
            raise CheckpointError(
                f"{self.path}: format version {version} cannot be resumed, expected one of "
                f"{RESUMABLE_VERSIONS}: the run began with other latents and noise than would be drawn here; go on "
                "with the naign that began it, or train anew. Its weights can be used"
            )

    def build(self, weights: Literal["ema", "model"] = "ema") -> nn.Module:
        """f with its weights, on the CPU in evaluation mode. Torch's global generator is left as it was."""
        spec, tensors = self.info["model"], self.tensors[weights]
        try:
            expected = tensors_of(spec["architecture"], self.sample_shape, spec["options"])
        except (ValueError, TypeError) as error:
            text = str(error).splitlines()[0]
            raise CheckpointError(f"{self.path}: damaged: state.json: model: {text}") from None
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        wrong = "" if expected is None else misfit(shapes, expected, "state.json")
        if wrong:
            raise CheckpointError(f"{self.path}: {weights}.safetensors does not fit its model: {wrong}")
        with torch.random.fork_rng(devices=[]):
            f = build_model(spec["architecture"], self.sample_shape, **spec["options"])
        try:
            f.load_state_dict(tensors)
        except RuntimeError as error:
            raise CheckpointError(
                f"{self.path}: {weights}.safetensors does not fit its model: {error}"
            ) from None
        return f.eval()


def checkpoint_name(step: int) -> str:
    """Folder name of a step's checkpoint."""
    return f"step_{step:08d}"


def run_folder(path: Path) -> Path:
    """The run that a path belongs to: RUN for RUN/checkpoints/step_..., whole or damaged, else the path itself."""
    name = path.name.removeprefix("step_")
    is_checkpoint = (path / "state.json").is_file() or (
        path.parent.name == "checkpoints" and name != path.name and name.isdigit()
    )
    if not is_checkpoint:
        return path
    return (path if path.parent.name == "checkpoints" else path.absolute()).parent.parent


def save_checkpoint(run: Path, step: int, tensors: dict[str, Tensors], info: dict[str, Any]) -> Path:
    """Write a checkpoint of a run so that a crash at any moment leaves it complete or absent.

    tensors: one dict of tensors for each name of TENSOR_FILES. info: JSON-able; at least config, model
    (architecture, options), sample_shape, latent_scale, and score (validation, lower is better) or None.

    Raises:
        OSError: it cannot be written; what was written of it is removed.
    """
    folder = run / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    temporary = folder / f".writing-{checkpoint_name(step)}"
    try:
        _write_files(temporary, step, tensors, info)
    except OSError:
        _discard(temporary)
        raise
    target = folder / checkpoint_name(step)
    replaced = folder / f".replaced-{target.name}"
    if os.path.lexists(target):
        target.rename(replaced)
    temporary.rename(target)
    _flush_folder(folder)
    if os.path.lexists(replaced):
        _discard(replaced)
    return target


def _write_files(folder: Path, step: int, tensors: dict[str, Tensors], info: dict[str, Any]) -> None:
    folder.mkdir()
    files = {}
    for name in TENSOR_FILES:
        contents = save_tensors({k: v.detach().cpu().contiguous() for k, v in tensors[name].items()})
        files[f"{name}.safetensors"] = {
            "bytes": len(contents),
            "sha256": hashlib.sha256(contents).hexdigest(),
        }
        _write_durably(folder / f"{name}.safetensors", contents)
    state = {"format": FORMAT, "version": VERSION, "step": step, "files": files, **info}
    _write_durably(folder / "state.json", _sealed(json.dumps(state, indent=1, allow_nan=False).encode()[:-2]))
    _flush_folder(folder)


def remove_old_checkpoints(run: Path) -> None:
    """Keep the last two checkpoints and the one with the best validation score."""
    paths = checkpoint_paths(run)
    best = _best_path(paths)
    for path in paths[:-_KEPT]:
        if path != best:
            _remove(path)


def remove_later_checkpoints(run: Path, step: int) -> None:
    """Remove what lies after a step, which resuming from an earlier one gives up, and what kills have left."""
    _remove_leftovers(run / "checkpoints")
    for path in checkpoint_paths(run):
        if _step_of(path) > step:
            _remove(path)


def checkpoint_paths(run: Path) -> list[Path]:
    """A run's checkpoint folders by step, whole or damaged."""
    return sorted(filter(_is_ours, (run / "checkpoints").glob("step_" + "[0-9]" * 8)), key=_step_of)


def _is_ours(path: Path) -> bool:
    """Whether a path with the name of a checkpoint is the folder of one, even if damaged: it has files of ours, or none
    at all."""
    if not path.is_dir():
        return False
    names = {entry.name for entry in path.iterdir()}
    return not names or bool(names & _FILES)


def load_checkpoint(run: str | Path, which: Which = "best") -> Checkpoint:
    """Read a checkpoint of a run folder and check every byte of it.

    run: a run folder, or one checkpoint's own folder (then ``which`` does not matter).
    which: "best" by validation score (the last where none has one), "last", or a step.

    Raises:
        CheckpointError: none there, damaged, or not of this program; names the previous good one.
    """
    path = find_checkpoint(Path(run), which)
    try:
        return _read(path)
    except CheckpointError as error:
        raise CheckpointError(str(error), _previous_good(path)) from None


def find_checkpoint(run: Path, which: Which) -> Path:
    """The folder :func:`load_checkpoint` reads; not yet checked."""
    if run_folder(run) != run:
        return run
    paths = checkpoint_paths(run)
    if not paths:
        raise CheckpointError(f"{run}: no checkpoint there; expected a run folder with checkpoints/step_*")
    if which == "last":
        return paths[-1]
    if which == "best":
        return _best_path(paths) or paths[-1]
    if isinstance(which, int) and not isinstance(which, bool):
        path = run / "checkpoints" / checkpoint_name(which)
        if path in paths:
            return path
        raise CheckpointError(f"{run}: no checkpoint of step {which}; there are {_steps_in_words(paths)}")
    raise CheckpointError(f"which: expected 'best', 'last' or a step, got {which!r}")


def _read(path: Path) -> Checkpoint:
    info = _read_info(path)
    tensors = {name: _read_tensors(path / f"{name}.safetensors", info) for name in TENSOR_FILES}
    return Checkpoint(path, info["step"], tensors, info)


def _sealed(contents: bytes) -> bytes:
    """An indented JSON object, given without its end, with the hash of all that is given as its last field."""
    return contents + b',\n "sha256": "%s"\n}' % hashlib.sha256(contents).hexdigest().encode()


_SEAL_LENGTH = len(_sealed(b""))


def _read_info(path: Path) -> dict[str, Any]:
    """The fields of a checkpoint's state.json, after its hash and their types are found to be right."""
    try:
        contents = read_regular_file(path / "state.json", _LARGEST_STATE)
        info = parse_json(contents)
    except OSError as error:
        raise CheckpointError(f"{path}: damaged: state.json cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged: state.json {error}") from None
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        raise CheckpointError(f"{path}: foreign: state.json is not of a {FORMAT}")
    version = info.get("version")
    if type(version) is not int or version not in READABLE:
        raise CheckpointError(f"{path}: foreign: format version {shown(version)}, expected one of {READABLE}")
    # Either sign asks for the hash, so that no single flipped bit can make a file pass for one without.
    is_sealed = version >= _FIRST_SEALED or "sha256" in info
    if is_sealed and contents != _sealed(contents[:-_SEAL_LENGTH]):
        raise CheckpointError(f"{path}: damaged: state.json does not have the hash that was written")
    try:
        checked(_State, info)
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged: state.json: {error}") from None
    return info


_LARGEST_STATE = 16 << 20
"""Bytes of a state.json."""


class _File(StrictModel):
    """A file of tensors, as state.json records it."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class _Model(StrictModel):
    architecture: str = Field(max_length=100)
    options: dict[str, Any]


class _Scheduler(StrictModel):
    lr: float
    last_step: int


class _State(StrictModel):
    """What state.json must hold, and the types of what it may hold besides."""

    step: int = Field(ge=0, le=MOST_STEPS)
    files: dict[str, _File]
    config: dict[str, Any]
    model: _Model
    sample_shape: list[Annotated[int, Field(ge=1, le=LARGEST_SIZE)]] = Field(min_length=1, max_length=64)
    latent_scale: float = Field(gt=0)
    score: float | None = None
    seconds: float = Field(0.0, ge=0)
    samples: int = Field(0, ge=0)
    scheduler: _Scheduler | None = None
    scaler: dict[str, float | int] = Field({})

    @field_validator("files")
    @classmethod
    def _all_there(cls, files: dict[str, _File]) -> dict[str, _File]:
        if missing := [f"{name}.safetensors" for name in TENSOR_FILES if f"{name}.safetensors" not in files]:
            raise ValueError(f"lacks {', '.join(missing)}")
        return files


def _read_tensors(file: Path, info: dict[str, Any]) -> Tensors:
    size, digest = info["files"][file.name]["bytes"], info["files"][file.name]["sha256"]
    try:
        found = file.stat().st_size
        if size > available_bytes():
            raise CheckpointError(
                f"{file.parent}: {file.name}: its {size} bytes are more than memory has free"
            )
        contents = read_regular_file(file, size)
    except OSError as error:
        raise CheckpointError(
            f"{file.parent}: damaged: {file.name} cannot be read: {error.strerror}"
        ) from None
    except FileTooLargeError:
        raise CheckpointError(
            f"{file.parent}: damaged: {file.name} has {found} bytes, expected {size}"
        ) from None
    if len(contents) != size:
        raise CheckpointError(
            f"{file.parent}: damaged: {file.name} has {len(contents)} bytes, expected {size}"
        )
    if hashlib.sha256(contents).hexdigest() != digest:
        raise CheckpointError(f"{file.parent}: damaged: {file.name} does not have the hash that was written")
    try:
        return load_tensors(contents)
    except (SafetensorError, ValueError, TypeError, RuntimeError, KeyError) as error:
        raise CheckpointError(f"{file.parent}: foreign: {file.name}: {in_a_line(error)}") from None


def _previous_good(path: Path) -> Path | None:
    earlier = [p for p in checkpoint_paths(run_folder(path)) if p.name < path.name]
    for candidate in reversed(earlier):
        try:
            _read(candidate)
        except CheckpointError:
            continue
        return candidate
    return None


def _best_path(paths: list[Path]) -> Path | None:
    scored = list(_scores(paths))
    return min(scored)[1] if scored else None


def _scores(paths: list[Path]) -> Iterator[tuple[float, Path]]:
    for path in paths:
        try:
            score = _read_info(path).get("score")
        except CheckpointError:
            continue
        if isinstance(score, int | float) and math.isfinite(score):
            yield float(score), path


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step_"))


def _steps_in_words(paths: list[Path]) -> str:
    return ", ".join(str(_step_of(p)) for p in paths)


def _remove_leftovers(folder: Path) -> None:
    """Remove what a process that was killed had begun to write or to remove; all else that is hidden is not ours."""
    for leftover in folder.iterdir() if folder.is_dir() else ():
        if _TEMPORARY.fullmatch(leftover.name):
            _discard(leftover)


def _remove(path: Path) -> None:
    # Renamed first, so that a crash midway does not leave a checkpoint that looks whole but is not.
    doomed = path.with_name(f".removing-{path.name}")
    path.rename(doomed)
    _discard(doomed)


def _discard(path: Path) -> None:
    """Remove a folder of _TEMPORARY's name with our files in it; what else it holds is kept under a name to be seen."""
    with suppress(OSError):
        if path.is_symlink():
            path.unlink()
            return
        if path.is_dir():
            for name in _FILES:
                (path / name).unlink(missing_ok=True)
            if not any(path.iterdir()):
                path.rmdir()
                return
        path.rename(_free_name(path))


def _free_name(path: Path) -> Path:
    """Beside a folder of _TEMPORARY's name, a name that says whose rest it is and is free."""
    of = path.name.partition("-")[2]
    names = (path.with_name(f"{of}.kept" + (f"-{number}" if number else "")) for number in itertools.count())
    return next(name for name in names if not os.path.lexists(name))


def _write_durably(path: Path, contents: bytes) -> None:
    with naming(path), path.open("wb") as file:
        file.write(contents)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
