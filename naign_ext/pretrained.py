"""The folder of a trained f: config.json and model.safetensors, read as what a stranger may have made."""

import json
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from naign_ext.checkpoint import CheckpointError
from naign_ext.memory import available_bytes
from naign_ext.models import build_model
from naign_ext.models.registry import check_sample_shape
from naign_ext.options import explain, shortened

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
CONFIG_BYTES = 1 << 20
"""What a config.json may have."""
LARGEST_SIZE = 1 << 24
"""Of a dimension of the points, in a config.json."""
MOST_LAYERS = 4096
"""Entries of a list among the options in a config.json."""
FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def is_pretrained_folder(path: str | Path) -> bool:
    """True for a folder that save_pretrained wrote, whole or damaged."""
    folder = Path(path)
    is_run = (folder / "checkpoints").exists() or (folder / "state.json").exists()
    return (folder / CONFIG_FILE).exists() and not is_run


class PretrainedConfig(BaseModel):
    """What config.json of a folder may hold: the constructor's arguments, of exactly these types."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    architecture: str = Field(max_length=100)
    sample_shape: list[Annotated[int, Field(ge=1, le=LARGEST_SIZE)]] = Field(min_length=1, max_length=64)
    options: dict[str, Any] | None = None
    latent_scale: float = Field(1.0, gt=0)
    about: dict[str, Any] | None = None


def read_config(file: Path, where: str) -> dict[str, Any]:
    """The checked fields of a config.json; where: the folder or repository, for the text of a CheckpointError."""
    if not file.is_file():
        raise damaged(where, CONFIG_FILE, " is missing or no file")
    try:
        with file.open("rb") as opened:
            contents = opened.read(CONFIG_BYTES + 1)
    except OSError as error:
        raise damaged(where, CONFIG_FILE, f" cannot be read: {error.strerror}") from None
    if len(contents) > CONFIG_BYTES:
        raise damaged(where, CONFIG_FILE, f": expected at most {CONFIG_BYTES} bytes")
    try:
        values = json.loads(contents)
    except (ValueError, RecursionError):
        raise damaged(where, CONFIG_FILE, " is not JSON") from None
    try:
        arguments = PretrainedConfig.model_validate(values).model_dump(exclude_none=True)
        options = json_able(arguments.get("options", {}), "options")
        json_able(arguments.get("about", {}), "about")
    except ValidationError as error:
        raise damaged(where, CONFIG_FILE, f": {_wrong_fields(error)}") from None
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


def _wrong_fields(error: ValidationError) -> str:
    missing = [".".join(map(str, wrong["loc"])) for wrong in error.errors() if wrong["type"] == "missing"]
    if missing:
        return f"lacks {', '.join(missing)}"
    wrong = error.errors()[0]
    return f"{'.'.join(map(str, wrong['loc'])) or 'the whole'}: {explain(wrong)}"


def expected_tensors(arguments: Mapping[str, Any], where: str) -> dict[str, Tensor] | None:
    """Tensors without memory of the network that the arguments describe; None where it cannot be made so."""
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            options, shape = dict(arguments.get("options") or {}), plain_sizes(arguments["sample_shape"])
            return dict(build_model(arguments["architecture"], shape, **options).state_dict())
    except (ValueError, TypeError) as error:
        raise damaged(where, CONFIG_FILE, f": {str(error).splitlines()[0]}") from None
    except RuntimeError as error:
        # A network that reads its weights while it is made cannot be made without them.
        if "meta" in str(error):
            return None
        raise damaged(
            where, CONFIG_FILE, f": no network of that size: {str(error).splitlines()[0]}"
        ) from None


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
                if wrong := _wrong_tensors(shapes, expected):
                    raise damaged(where, WEIGHTS_FILE, f": {wrong}")
            tensors = {name: opened.get_tensor(name).clone() for name in names}
    except (OSError, SafetensorError, RuntimeError) as error:
        raise damaged(where, WEIGHTS_FILE, f" cannot be used: {error}") from None
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


def _wrong_tensors(shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, Tensor]) -> str:
    """What is wrong with tensors of these shapes, or nothing."""
    if missing := [name for name in expected if name not in shapes]:
        return f"lacks {_some(missing)}"
    if extra := [name for name in shapes if name not in expected]:
        return f"has {_some(extra)}, which the network of {CONFIG_FILE} has not"
    for name, tensor in expected.items():
        if shapes[name] != tuple(tensor.shape):
            return f"{name}: expected shape {tuple(tensor.shape)} by {CONFIG_FILE}, got {shapes[name]}"
    return ""


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(shortened(name) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def damaged(where: str, file: str, text: str) -> CheckpointError:
    """The error of a file of the folder or repository ``where``; text begins with a space or a colon."""
    return CheckpointError(f"{where}: damaged: {file}{text}")


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The first tensor that holds NaN or an infinity."""
    return next(
        (name for name, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()), None
    )


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
        raise TypeError(f"latent_scale: expected a number, got {shortened(repr(latent_scale))}")
    try:
        number = float(scale)
    except OverflowError:
        number = math.inf
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"latent_scale: expected a finite number > 0, got {number}")
    return number
