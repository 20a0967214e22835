"""What the architectures share: activations and the checks of their options."""

from collections.abc import Iterable, Sequence

from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU}


def check_choice(name: str, value: str, choices: Iterable[str]) -> str:
    """Return value, or raise ValueError naming the choices."""
    known = list(choices)
    if value not in known:
        raise ValueError(f"{name}: expected one of {', '.join(known)}; got {value!r}")
    return value


def check_positive(name: str, value: int) -> int:
    """Return value, or raise unless it is an int of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected whole numbers, got {value!r}")
    if value < 1:
        raise ValueError(f"{name}: expected 1 or more, got {value}")
    return value


def check_sample_shape(sample_shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of one point as a tuple, or raise unless it has 1 or more positive sizes."""
    if len(sample_shape) == 0:
        raise ValueError("sample_shape: expected (D,) or (C, H, W), got an empty shape")
    return tuple(check_positive("sample_shape", size) for size in sample_shape)
