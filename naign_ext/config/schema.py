"""The one validated configuration of a run, from preset, YAML file, flags and ``--set key=value``."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, Field, FiniteFloat, ValidationError, field_validator
from pydantic.fields import FieldInfo

from naign_ext.config.presets import PRESETS, Tree, merge, preset_values
from naign_ext.objectives import OBJECTIVES, NaignOptions, ObjectiveOptions
from naign_ext.options import Options, option


class ConfigError(ValueError):
    """A configuration is wrong; the text names each field, what was expected and what came."""


class ModelOptions(Options):
    """The network f; what its architecture does not use is ignored."""

    architecture: Literal["mlp", "conv"] = option(
        "mlp", "mlp: for vectors and small images; conv: encoder-decoder for images of any size.", "Model"
    )
    widths: tuple[int, ...] = option(
        (256, 64, 256, 256), "mlp: hidden widths; a small one in the middle is a bottleneck.", "Model"
    )
    activation: Literal["relu", "silu"] = option("silu", "Activation function.", "Model")
    normalisation: Literal["none", "batch", "layer"] = option("none", "Normalisation.", "Model")
    input_gain: FiniteFloat = option(1.0, "mlp: factor on the input.", "Model", gt=0)
    base_channels: int = option(32, "conv: channels of the first stage, doubled in each.", "Model", ge=1)
    depth: int | None = option(
        None, "conv: stages that halve the image; default: chosen by its size.", "Model", ge=1
    )
    latent_dim: int = option(128, "conv: width of the bottleneck.", "Model", ge=1)

    @field_validator("widths")
    @classmethod
    def _positive(cls, widths: tuple[int, ...]) -> tuple[int, ...]:
        if not widths or min(widths) < 1:
            raise ValueError("expected at least one width, all >= 1")
        return widths

    def build_options(self) -> dict[str, Any]:
        """What build_model takes for this architecture besides the sample's shape."""
        if self.architecture == "mlp":
            names = ["activation", "normalisation", "input_gain"]
            return {"widths": list(self.widths), **{name: getattr(self, name) for name in names}}
        names = ["base_channels", "depth", "latent_dim", "activation", "normalisation"]
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


class OptimiserOptions(Options):
    """AdamW, its learning-rate schedule, gradient clipping and the running average of the weights."""

    lr: FiniteFloat = option(1e-3, "Highest learning rate.", "Optimiser", gt=0)
    schedule: Literal["cosine", "constant"] = option(
        "cosine", "Learning rate after the warm-up: down to 0 along a cosine, or constant.", "Optimiser"
    )
    warmup: FiniteFloat = option(
        0.02, "Part of the steps over which the learning rate rises from 0.", "Optimiser", ge=0, lt=1
    )
    betas: tuple[FiniteFloat, FiniteFloat] = option((0.9, 0.99), "AdamW's betas.", "Optimiser")
    weight_decay: FiniteFloat = option(0.01, "AdamW's decoupled weight decay.", "Optimiser", ge=0)
    grad_clip: FiniteFloat = option(5.0, "Largest norm of the gradient; 0 does not clip.", "Optimiser", ge=0)
    ema_decay: FiniteFloat = option(
        0.995, "Decay of the running average of the weights, which is what samples.", "Optimiser", ge=0, lt=1
    )

    @field_validator("betas")
    @classmethod
    def _below_one(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError("expected two numbers in [0, 1)")
        return betas


class AugmentOptions(Options):
    """Copies of the training images, made once and kept in memory; held-out images stay as they are."""

    flip: bool = option(False, "Add every training image mirrored left to right.", "Data")
    shift: int = option(
        0,
        "Add every training image shifted by up to this many pixels each way, edges repeated.",
        "Data",
        ge=0,
        le=8,
    )
    jitter: int = option(
        0,
        "Shift what the reconstruction terms see by up to this many pixels, anew in each batch; the match "
        "stays with the images as they are.",
        "Data",
        ge=0,
        le=8,
    )


class LogOptions(Options):
    """What a run writes, and how often; none of it changes the training."""

    every: int = option(25, "Steps between records in metrics.jsonl.", "Logging and checkpoints", ge=1)
    samples_every: int = option(
        500, "Steps between sample pictures; 0: only at the end.", "Logging and checkpoints", ge=0
    )
    samples: int = option(64, "Samples in a picture.", "Logging and checkpoints", ge=1, le=4096)
    checkpoint_every: int = option(
        500, "Steps between checkpoints; 0: only at the end.", "Logging and checkpoints", ge=0
    )
    exact_cost: bool = option(
        False,
        "Wait for CUDA at the end of each stage of an update, so that its cost is exact; slower.",
        "Logging and checkpoints",
    )
    tensorboard: bool = option(True, "Write TensorBoard events too.", "Logging and checkpoints")


class TrainConfig(Options):
    """Everything that determines a run. Saved as config.yaml in its folder."""

    dataset: str = option("lfw100", "Data set by name, or folder:PATH.", "Data", min_length=1)
    data_root: str | None = option(None, "Folder or archive that holds the data, where needed.", "Data")
    image_size: int | None = option(None, "Resize and crop images to this side.", "Data", ge=4, le=1024)
    heldout_fraction: FiniteFloat | None = option(
        None, "Part of the data held out; default: the data set's own.", "Data", ge=0, lt=1
    )
    train_rows: int | None = option(None, "Train on so many of the training rows only.", "Data", ge=1)
    data_seed: int = option(0, "Seed of the data set's draw or split.", "Data", ge=0)
    data_parameters: dict[str, Any] = Field(
        {}, description="Recorded by the run: the data's exact parameters and hashes."
    )
    preset: Literal["quick", "default", "paper"] = option(
        "default", "Where the other values start from.", "Run"
    )
    seed: int = option(0, "Seed of weights, latents, noise and the order of the data.", "Run", ge=0)
    steps: int = option(2000, "Updates of the weights.", "Run", ge=1, le=99_999_999)
    batch_size: int = option(128, "Data points in an update.", "Run", ge=1)
    device: str = option("auto", "auto, cpu, cuda or cuda:N.", "Run", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "auto", "Autocast: auto is bf16 on CUDA devices that have it, else fp32.", "Run"
    )
    compile: bool = option(False, "Compile f with torch.compile.", "Run")
    memory_format: Literal["auto", "contiguous", "channels_last"] = option(
        "auto", "Layout of images and weights in f: auto is channels_last for conv on CUDA.", "Run"
    )
    deterministic: bool = option(
        True, "Deterministic algorithms, so that equal configurations give equal weights.", "Run"
    )
    model: ModelOptions = option(ModelOptions(), "The network f.", "Model")
    objective: ObjectiveOptions = option(NaignOptions(), "The objective.", "Objective")
    optimiser: OptimiserOptions = option(OptimiserOptions(), "Optimiser and schedule.", "Optimiser")
    augment: AugmentOptions = option(AugmentOptions(), "Augmentation.", "Data")
    log: LogOptions = option(LogOptions(), "Logging.", "Logging and checkpoints")


RESUMABLE = ("steps", "device", "data_root", "log")
"""What may differ when a run is resumed; other values of steps or device give up its bits, not its state."""


@dataclass(frozen=True)
class FieldHelp:
    """A field of the configuration for help texts: its dotted key, type in words, default and description."""

    key: str
    type: str
    default: Any
    description: str
    group: str


def resolve_config(
    dataset: str | None = None,
    preset: str | None = None,
    *,
    file: str | Path | None = None,
    flags: Mapping[str, Any] | None = None,
    settings: Sequence[str] = (),
) -> TrainConfig:
    """The configuration of a run. Later wins: defaults, preset for the data set, YAML file, flags, settings.

    Args:
        dataset, preset: as on the command line; None leaves them to settings, file, or lfw100 and default.
        file: YAML with the fields of TrainConfig, nested.
        flags: dotted key -> value; None values are left out. ``objective`` alone names the objective.
        settings: texts ``key=value``, dotted keys, values in YAML: ``optimiser.lr=1e-3``.

    Raises:
        ConfigError: an unknown key or a wrong value; every one is named.
    """
    user = _read_yaml(Path(file)) if file is not None else {}
    given = {"dataset": dataset, "preset": preset, **(flags or {})}
    for key, value in [*given.items(), *map(_parse_setting, settings)]:
        if value is not None:
            user = merge(user, _nest("objective.name" if key == "objective" else key, value))
    chosen = user.get("preset", "default")
    if chosen not in PRESETS:
        raise ConfigError(f"preset: expected one of {', '.join(PRESETS)}, got {chosen!r}")
    name = user.get("dataset", TrainConfig.model_fields["dataset"].default)
    if not isinstance(name, str):
        raise ConfigError(f"dataset: expected a name, got {name!r}")
    base = merge({"dataset": name, "preset": chosen}, preset_values(chosen, name))
    return validate_config(merge(_fit_objective(base, user), user))


def validate_config(values: Mapping[str, Any]) -> TrainConfig:
    """TrainConfig from nested values, or ConfigError that names every wrong field."""
    values = merge({}, values)
    if isinstance(values.get("objective"), Mapping):
        values["objective"] = {"name": "naign", **values["objective"]}
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        lines = [_explain(e["loc"], e["msg"], e["type"], e.get("input")) for e in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def save_config(config: TrainConfig, path: Path) -> None:
    """Write YAML that :func:`load_config` reads back to an equal configuration."""
    path.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="ascii")


def load_config(path: str | Path) -> TrainConfig:
    """Read a configuration saved by :func:`save_config`; nothing is added from presets."""
    return validate_config(_read_yaml(Path(path)))


def describe_fields() -> list[FieldHelp]:
    """Every field that a user may set, by its dotted key, sections unfolded, in the order of the groups."""
    fields = list(_walk(TrainConfig, ""))
    objective = {name: cls.Options for name, cls in OBJECTIVES.items()}
    seen: dict[str, FieldHelp] = {}
    for name, options in objective.items():
        found = [f for f in _walk(options, "objective.") if f.key not in seen]
        only = "" if name == "naign" else f" Only with objective {name}."
        seen |= {f.key: replace(f, description=f.description + only) for f in found}
    which = seen["objective.name"]
    kinds = " | ".join(objective)
    seen["objective.name"] = FieldHelp(which.key, kinds, "naign", "Which objective.", which.group)
    fields += seen.values()
    groups = list(dict.fromkeys(f.group for f in fields))
    return sorted(fields, key=lambda f: groups.index(f.group))


def differing_fields(a: TrainConfig, b: TrainConfig) -> list[str]:
    """Dotted keys on which two configurations differ."""
    left, right = (_flatten(c.model_dump(mode="json")) for c in (a, b))
    return [key for key in left | right if left.get(key) != right.get(key)]


def _fit_objective(base: Tree, user: Tree) -> Tree:
    """base without those objective options of the preset that the chosen objective does not have."""
    section = user.get("objective")
    name = section.get("name", "naign") if isinstance(section, Mapping) else "naign"
    if name not in OBJECTIVES:
        raise ConfigError(f"objective.name: expected one of {', '.join(OBJECTIVES)}, got {name!r}")
    options = OBJECTIVES[name].Options
    known = set(options.model_fields) - set(options.not_from_preset)
    kept = {key: value for key, value in base.get("objective", {}).items() if key in known}
    return {**base, "objective": {**kept, "name": name}}


def _read_yaml(path: Path) -> Tree:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected fields 'key: value', got {type(values).__name__}")
    return values


def _parse_setting(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set: expected key=value, got {text!r}")
    try:
        return key.strip(), _Null if (parsed := yaml.safe_load(value)) is None else parsed
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {key}: the value is not YAML: {error}") from None


class _Null:
    """An explicit null in --set, apart from a flag that was not given."""


def _nest(key: str, value: Any) -> Tree:
    result: Any = None if value is _Null else value
    for part in reversed(key.split(".")):
        result = {part: result}
    return result  # type: ignore[no-any-return]


def _explain(location: Sequence[Any], message: str, kind: str, value: Any) -> str:
    parts = [str(part) for part in location]
    if parts and parts[0] == "objective":
        parts = [parts[0], *[p for p in parts[1:] if p not in OBJECTIVES]]
    key = ".".join(parts)
    if kind == "extra_forbidden":
        known = [f.key for f in describe_fields()]
        close = difflib.get_close_matches(key, known, n=1)
        return f"{key}: no such field" + (f"; did you mean {close[0]}?" if close else "")
    text = message.removeprefix("Value error, ")
    shown = "" if isinstance(value, BaseModel | Mapping) else f", got {value!r}"
    return f"{key}: {text}{shown}"


def _walk(model: type[BaseModel], prefix: str) -> Iterable[FieldHelp]:
    for name, info in model.model_fields.items():
        section = info.default
        if isinstance(section, Options):
            if name != "objective":
                yield from _walk(type(section), f"{prefix}{name}.")
            continue
        extra = info.json_schema_extra
        if not isinstance(extra, dict):
            continue
        group = str(extra["group"])
        yield FieldHelp(f"{prefix}{name}", _type_words(info), info.default, info.description or "", group)


def _type_words(info: FieldInfo) -> str:
    return _annotation_words(info.annotation)


def _annotation_words(annotation: Any) -> str:
    arguments = get_args(annotation)
    if isinstance(annotation, type) and not arguments:
        return {"NoneType": "none"}.get(annotation.__name__, annotation.__name__)
    if arguments and all(isinstance(a, str) for a in arguments):
        return " | ".join(arguments)
    if getattr(annotation, "__origin__", None) is tuple:
        inner = [_annotation_words(a) for a in arguments if a is not Ellipsis]
        return f"list of {inner[0]}" if Ellipsis in arguments else f"[{', '.join(inner)}]"
    if hasattr(annotation, "__metadata__"):
        return _annotation_words(arguments[0])
    return " | ".join(_annotation_words(a) for a in arguments) or str(annotation)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Tree:
    result: Tree = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            result |= _flatten(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value
    return result
