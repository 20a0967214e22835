"""Networks by name: the one table behind the configuration, checkpoints and :func:`build_model`."""

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import ValidationError
from torch import nn

from naign_ext.options import Options, explain
from naign_ext.registry import Registry


class NetworkOptions(Options):
    """Base of every network's options; ``architecture`` is the name under which the network is registered."""

    architecture: str

    def build_options(self) -> dict[str, Any]:
        """What :func:`build_model` takes besides architecture and shape, JSON-able; without those that are None."""
        return self.model_dump(mode="json", exclude={"architecture"}, exclude_none=True)


class Network(nn.Module):
    """A network f that maps (B, *sample_shape) to the same shape; registered by name in ``MODELS``.

    Subclasses take (sample_shape, options) and draw their weights from torch's global generator.
    """

    Options: ClassVar[type[NetworkOptions]]
    channels_last: ClassVar[tuple[str, ...]] = ()
    """Types of devices on which images in the layout channels_last make it faster."""
    half_precision_on_amx: ClassVar[bool] = False
    """Whether bfloat16 makes it faster on CPUs that multiply matrices of it in tiles (AMX)."""

    def __init__(self, sample_shape: Sequence[int], options: Any) -> None:
        super().__init__()
        self.sample_shape = check_sample_shape(sample_shape)
        self.options = options


MODELS: Registry[type[Network]] = Registry("architecture")


def model_options(architecture: str) -> dict[str, Any]:
    """Names and defaults of the options that ``build_model`` takes for an architecture."""
    fields = MODELS.find(architecture).Options.model_fields
    return {name: field.default for name, field in fields.items() if name != "architecture"}


def build_model(architecture: str, sample_shape: Sequence[int], **options: Any) -> nn.Module:
    """A network mapping (B, *sample_shape) to the same shape, freshly initialised from torch's generator.

    Args:
        architecture: "mlp" (any shape) or "conv" (C, H, W), or another name in ``MODELS``.
        sample_shape: shape of one point, without the batch.
        options: fields of the network's ``Options``; ``model_options(architecture)`` lists them.

    Raises:
        ValueError, TypeError: an unknown architecture or option, or a value out of range; the text names it.
    """
    network = MODELS.find(architecture)
    try:
        chosen = network.Options.model_validate({**options, "architecture": architecture})
    except ValidationError as error:
        raise ValueError("\n".join(_explain(architecture, wrong) for wrong in error.errors())) from None
    return network(sample_shape, chosen)


def _explain(architecture: str, wrong: Any) -> str:
    name = ".".join(map(str, wrong["loc"]))
    if wrong["type"] == "extra_forbidden":
        known = ", ".join(model_options(architecture))
        return f"{name}: architecture {architecture!r} has no such option; it has {known}"
    return f"{name}: {explain(wrong)}"


def parameter_count(model: nn.Module, trainable_only: bool = True) -> int:
    """Number of scalars among the model's parameters (buffers such as running means do not count)."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable_only)


def check_sample_shape(sample_shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of one point as a tuple, or raise unless it has 1 or more positive sizes."""
    if len(sample_shape) == 0:
        raise ValueError("sample_shape: expected (D,) or (C, H, W), got an empty shape")
    for size in sample_shape:
        if isinstance(size, bool) or not isinstance(size, int):
            raise TypeError(f"sample_shape: expected whole numbers, got {size!r}")
        if size < 1:
            raise ValueError(f"sample_shape: expected 1 or more, got {size}")
    return tuple(sample_shape)
