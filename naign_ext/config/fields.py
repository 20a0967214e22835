"""The fields of a run's configuration, each with its default, limits, description and group."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, SerializeAsAny, field_validator

from naign_ext.config.presets import Preset
from naign_ext.devices import EXPECTED, is_device_name
from naign_ext.models import MODELS, MlpOptions, NetworkOptions
from naign_ext.objectives import OBJECTIVES, NaignOptions, ObjectiveOptions
from naign_ext.options import MOST_ROWS, MOST_STEPS, Options, chosen_from, option
from naign_ext.registry import Registry

LARGEST_SEED = 2**64 - 1


class OptimiserOptions(Options):
    """AdamW, its learning-rate schedule, gradient clipping and the exponential moving average (ema) of the weights."""

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
    """Copies of the training images, made once and kept in memory; those for validation and test stay as they are."""

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

    every: int = option(
        25, "Steps between records in metrics.jsonl.", "Logging and checkpoints", ge=1, le=MOST_STEPS
    )
    samples_every: int = option(
        500,
        "Steps between sample pictures; 0: only at the end.",
        "Logging and checkpoints",
        ge=0,
        le=MOST_STEPS,
    )
    samples: int = option(64, "Samples in a picture.", "Logging and checkpoints", ge=1, le=4096)
    checkpoint_every: int = option(
        500, "Steps between checkpoints; 0: only at the end.", "Logging and checkpoints", ge=0, le=MOST_STEPS
    )
    exact_cost: bool = option(
        False,
        "Wait for CUDA at the end of each stage of an update, so that its cost is exact; slower.",
        "Logging and checkpoints",
    )
    tensorboard: bool = option(True, "Write TensorBoard events too.", "Logging and checkpoints")


CHOSEN: Mapping[str, tuple[Registry[Any], str, str]] = {
    "model": (MODELS, "architecture", "mlp"),
    "objective": (OBJECTIVES, "name", "naign"),
}
"""Sections whose fields are those of an entry of a registry: the registry, the field that names it, its default."""


class TrainConfig(Options):
    """Everything that determines a run. Saved as config.yaml in its folder."""

    dataset: str = option(
        "lfw100", "Data set by name, or folder:PATH; see naign data list.", "Data", min_length=1
    )
    data_root: str | None = option(None, "Folder or archive that holds the data, where needed.", "Data")
    image_size: int | None = option(None, "Resize and crop images to this side.", "Data", ge=4, le=1024)
    heldout_fraction: FiniteFloat | None = option(
        None,
        "Part of the data held out for validation and test; default: the data set's own.",
        "Data",
        ge=0,
        lt=1,
    )
    train_rows: int | None = option(
        None, "Train on so many of the training rows only.", "Data", ge=1, le=MOST_ROWS
    )
    data_seed: int = option(0, "Seed of the data set's draw or split.", "Data", ge=0, le=LARGEST_SEED)
    data_parameters: dict[str, Any] = Field(
        {}, description="Recorded by the run: the data's exact parameters and hashes."
    )
    preset: Preset = option("default", "Where the other values start from, chosen for the data set.", "Run")
    seed: int = option(
        0, "Seed of weights, latents, noise and the order of the data.", "Run", ge=0, le=LARGEST_SEED
    )
    steps: int = option(2000, "Updates of the weights.", "Run", ge=1, le=MOST_STEPS)
    batch_size: int = option(128, "Data points in an update.", "Run", ge=1, le=MOST_ROWS)
    device: str = option("auto", "auto, cpu, cuda or cuda:N.", "Run")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "auto",
        "Autocast: auto is bf16 on CUDA devices that have it and, for hybrid, on CPUs with AMX; else fp32.",
        "Run",
    )
    compile: bool = option(False, "Compile f with torch.compile.", "Run")
    memory_format: Literal["auto", "contiguous", "channels_last"] = option(
        "auto",
        "Layout of images and weights in f: auto is channels_last for conv on CUDA and for hybrid.",
        "Run",
    )
    deterministic: bool = option(
        True, "Deterministic algorithms, so that equal configurations give equal weights.", "Run"
    )
    # A configuration saved by an earlier release has the fields of all networks.
    model: Annotated[SerializeAsAny[NetworkOptions], chosen_from(*CHOSEN["model"], ignore_others=True)] = (
        option(MlpOptions(), "The network f.", "Model")
    )
    objective: Annotated[SerializeAsAny[ObjectiveOptions], chosen_from(*CHOSEN["objective"])] = option(
        NaignOptions(), "The objective.", "Objective"
    )
    optimiser: OptimiserOptions = option(OptimiserOptions(), "Optimiser and schedule.", "Optimiser")
    augment: AugmentOptions = option(AugmentOptions(), "Augmentation.", "Data")
    log: LogOptions = option(LogOptions(), "Logging.", "Logging and checkpoints")

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        if not is_device_name(device):
            raise ValueError(EXPECTED)
        return device


RESUMABLE = ("steps", "device", "data_root", "log")
"""What may differ when a run is resumed; other values of steps or device give up its bits, not its state."""


def section_options(section: str, values: Any) -> type[Options] | None:
    """The Options that a section's values are read by; None for a field that is no section, or an unknown choice."""
    if section in CHOSEN:
        registry, key, default = CHOSEN[section]
        name = values.get(key, default) if isinstance(values, Mapping) else default
        options: type[Options] | None = registry[name].Options if name in registry else None
        return options
    field = TrainConfig.model_fields.get(section)
    return type(field.default) if field is not None and isinstance(field.default, Options) else None
