"""Small helpers that every metric shares: rows of numbers, seeded generators, seeded subsets."""

import torch
from torch import Tensor


def as_rows(name: str, value: Tensor, *, at_least: int = 1) -> Tensor:
    """value as finite float32 rows (N, D) without gradient, images flattened.

    Raises:
        TypeError: not a tensor of floating dtype.
        ValueError: fewer than `at_least` rows, no columns, or NaN/Inf among the values.
    """
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name}: expected a torch.Tensor, got {type(value).__name__}; use torch.as_tensor({name})"
        )
    if not value.is_floating_point():
        raise TypeError(f"{name}: expected a floating dtype, got {value.dtype}; use {name}.float()")
    if value.dim() < 2 or value[:1].numel() == 0 or len(value) < at_least:
        raise ValueError(
            f"{name}: expected at least {at_least} rows (N, ...), got shape {tuple(value.shape)}"
        )
    rows = value.detach().flatten(1).to(torch.float32)
    if not bool(rows.isfinite().all()):
        bad = int((~rows.isfinite().all(dim=1)).sum())
        raise ValueError(f"{name}: expected finite numbers, got NaN or Inf in {bad} of {len(rows)} rows")
    return rows


def same_width(**named: Tensor) -> None:
    """Raise unless all the given (N, D) tensors have the same D."""
    widths = {name: tensor.shape[1] for name, tensor in named.items()}
    if len(set(widths.values())) > 1:
        found = ", ".join(f"{name} D = {width}" for name, width in widths.items())
        raise ValueError(f"expected the same number of columns everywhere, got {found}")


def same_shape(**named: Tensor) -> None:
    """Raise unless all the given tensors have the same shape."""
    shapes = {name: tuple(tensor.shape) for name, tensor in named.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError("expected equal shapes, got " + ", ".join(f"{n} {s}" for n, s in shapes.items()))


def cpu_generator(seed: int) -> torch.Generator:
    """A CPU generator: what metrics draw is the same on every device."""
    return torch.Generator().manual_seed(seed)


def subset(rows: Tensor, count: int, seed: int) -> Tensor:
    """`count` rows drawn without replacement, all of them (in order) where there are no more."""
    if len(rows) <= count:
        return rows
    chosen = torch.randperm(len(rows), generator=cpu_generator(seed))[:count]
    return rows[chosen.to(rows.device)]
