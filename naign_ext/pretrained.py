"""The folder of a trained f: config.json and model.safetensors, read as what a stranger may have made."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from naign_ext.checkpoint import LARGEST_SIZE, CheckpointError
from naign_ext.memory import available_bytes
from naign_ext.models.described import misfit, not_finite, tensors_of
from naign_ext.models.registry import check_sample_shape
from naign_ext.options import in_a_line, shown
from naign_ext.untrusted import FileTooLargeError, StrictModel, parse_json, read_regular_file, wrong_fields

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
CONFIG_BYTES = 1 << 20
"""What a config.json may have."""
MOST_LAYERS = 4096
"""Entries of a list among the options in a config.json."""
FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def is_pretrained_folder(path: str | Path) -> bool:
    """True for a folder that save_pretrained wrote, whole or damaged."""
    folder = Path(path)
    is_run = (folder / "checkpoints").exists() or (folder / "state.json").exists()
    return (folder / CONFIG_FILE).exists() and not is_run


class PretrainedConfig(StrictModel):
    """What config.json of a folder may hold: the constructor's arguments, and nothing else."""

    model_config = ConfigDict(extra="forbid")

    architecture: str = Field(max_length=100)
    sample_shape: list[Annotated[int, Field(ge=1, le=LARGEST_SIZE)]] = Field(min_length=1, max_length=64)
    options: dict[str, Any] | None = None
    latent_scale: float = Field(1.0, gt=0)
    about: dict[str, Any] | None = None


def read_config(file: Path, where: str) -> dict[str, Any]:
    """The checked fields of a config.json; where: the folder or repository, for the text of a CheckpointError."""
    try:
        values = parse_json(read_regular_file(file, CONFIG_BYTES))
    except FileNotFoundError:
        raise damaged(where, CONFIG_FILE, " is missing or no file") from None
    except OSError as error:
        raise damaged(where, CONFIG_FILE, f" cannot be read: {error.strerror}") from None
    except FileTooLargeError:
        raise damaged(where, CONFIG_FILE, f": expected at most {CONFIG_BYTES} bytes") from None
    except ValueError as error:
        raise damaged(where, CONFIG_FILE, f" {error}") from None
    try:
        arguments = PretrainedConfig.model_validate(values).model_dump(exclude_none=True)
        options = json_able(arguments.get("options", {}), "options")
        json_able(arguments.get("about", {}), "about")
    except ValidationError as error:
        raise damaged(where, CONFIG_FILE, f": {wrong_fields(error)}") from None
    except ValueError as error:
        raise damaged(where, CONFIG_FILE, f": {error}") from None
    for name, value in options.items():
        if isinstance(value, list) and len(value) > MOST_LAYERS:
            raise damaged(
                where,
                CONFIG_FILE,
                f": options.{name}: expected at most {MOST_LAYERS} entries, got {len(value)}",
            )
    return arguments


def expected_tensors(arguments: Mapping[str, Any], where: str) -> dict[str, Tensor] | None:
    """Tensors without memory of the network that the arguments describe; None where it cannot be made so."""
    try:
        shape, options = plain_sizes(arguments["sample_shape"]), dict(arguments.get("options") or {})
        return tensors_of(arguments["architecture"], shape, options)
    except (ValueError, TypeError) as error:
        raise damaged(where, CONFIG_FILE, f": {str(error).splitlines()[0]}") from None


def read_weights(file: Path, where: str, expected: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """The tensors of a safetensors file, after its header is found to hold what is expected."""
    if not file.is_file():
        raise damaged(where, WEIGHTS_FILE, " cannot be used: it is missing or no file")
    if file.stat().st_size > available_bytes():
        raise damaged(
            where, WEIGHTS_FILE, f" cannot be used: {file.stat().st_size} bytes are more than is free"
        )
    try:
        with safe_open(file, framework="pt") as opened:
            names = list(opened.keys())
            if expected is not None:
                shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in names}
                if wrong := misfit(shapes, expected, CONFIG_FILE):
                    raise damaged(where, WEIGHTS_FILE, f": {wrong}")
            tensors = {name: opened.get_tensor(name).clone() for name in names}
    except (OSError, SafetensorError, RuntimeError) as error:
        raise damaged(where, WEIGHTS_FILE, f" cannot be used: {in_a_line(error)}") from None
    for name, tensor in tensors.items():
        wanted = tensor.dtype if expected is None else expected[name].dtype
        allowed = FLOATING if wanted.is_floating_point else (wanted,)
        if tensor.dtype not in allowed:
            raise damaged(
                where, WEIGHTS_FILE, f": {name}: expected a dtype like {wanted}, got {tensor.dtype}"
            )
    if bad := not_finite(tensors):
        raise damaged(where, WEIGHTS_FILE, f": {bad} has values that are not finite")
    return tensors


def damaged(where: str, file: str, text: str) -> CheckpointError:
    """The error of a file of the folder or repository ``where``; text begins with a space or a colon."""
    return CheckpointError(f"{where}: damaged: {file}{text}")


def json_able(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A copy of plain values that JSON holds as they are: numbers of numpy and torch as Python's, tuples as lists.

    Raises:
        TypeError, ValueError: an entry that JSON cannot hold; the text names its key under name.
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"{name}: expected a dict, got {type(values).__name__}")
    return {key: _json_able(value, f"{name}.{key}", key) for key, value in values.items()}


def _json_able(value: Any, name: str, key: Any = "") -> Any:
    if not isinstance(key, str):
        raise TypeError(f"{name}: expected a text as key, got {key!r}")
    value = _plain(value)
    if isinstance(value, Mapping):
        return json_able(value, name)
    if isinstance(value, list | tuple):
        return [_json_able(entry, f"{name}.{i}") for i, entry in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value}; JSON has no other")
    if value is not None and not isinstance(value, str | bool | int | float):
        raise TypeError(
            f"{name}: expected what JSON holds (texts, numbers, lists, dicts), got {type(value).__name__}; "
            "use str(...) or .tolist()"
        )
    return value


def _plain(value: Any) -> Any:
    """Scalars of numpy, arrays and tensors without dimensions as Python's own; all else as it is."""
    is_scalar = getattr(value, "ndim", None) == 0 and hasattr(value, "item")
    return value.item() if is_scalar else value


def plain_sizes(sample_shape: Sequence[int]) -> tuple[int, ...]:
    """A sample_shape of Python's ints; TypeError or ValueError where a size is no whole number from 1 on."""
    try:
        sizes = tuple(map(_plain, sample_shape))
    except TypeError:
        raise TypeError(f"sample_shape: expected (D,) or (C, H, W), got {sample_shape!r}") from None
    return check_sample_shape(sizes)


def plain_scale(latent_scale: Any) -> float:
    """A latent_scale as Python's float; TypeError or ValueError where it is no finite number > 0."""
    scale = _plain(latent_scale)
    if isinstance(scale, bool) or not isinstance(scale, Real):
        raise TypeError(f"latent_scale: expected a number, got {shown(latent_scale)}")
    try:
        number = float(scale)
    except OverflowError:
        number = math.inf
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"latent_scale: expected a finite number > 0, got {number}")
    return number
