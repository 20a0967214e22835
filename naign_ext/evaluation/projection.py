"""Is f a projector? Data stay where they are, images of f stay where they are, and noise does not."""

from collections.abc import Callable

import torch
from torch import Tensor

from naign_ext.evaluation.rows import same_shape
from naign_ext.transforms.corruptions import gaussian_blur

SCALES = (0.0, 1.0, 2.0)
ROUNDING_VARIANCE = (2 / 255) ** 2 / 12


def apply(f: Callable[[Tensor], Tensor], x: Tensor, *, steps: int = 1, batch_size: int = 512) -> Tensor:
    """f applied `steps` times to x (N, ...) in batches, without gradient. steps = 0 returns x.

    Raises:
        ValueError: steps < 0, or f changes the shape.
    """
    if steps < 0:
        raise ValueError(f"steps: expected 0 or more, got {steps}")
    if steps == 0 or len(x) == 0:
        return x
    with torch.no_grad():
        return torch.cat([_repeat(f, part, steps) for part in torch.split(x, batch_size)])


def _repeat(f: Callable[[Tensor], Tensor], x: Tensor, steps: int) -> Tensor:
    for _ in range(steps):
        y = f(x)
        if y.shape != x.shape:
            raise ValueError(f"f: expected it to keep the shape {tuple(x.shape)}, got {tuple(y.shape)}")
        x = y
    return x


def mean_square(difference: Tensor) -> float:
    """Mean over all elements of the square, summed in float64."""
    return float(difference.detach().double().square().mean())


def fixed_point_error(f: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """mean |f(x) - x|^2 over all elements: 0 when data are fixed points. The identity scores 0 too."""
    return mean_square(apply(f, x) - x)


def idempotence_error(f: Callable[[Tensor], Tensor], z: Tensor) -> float:
    """mean |f(f(z)) - f(z)|^2 over all elements: 0 when f is idempotent on z. The identity scores 0 too."""
    y = apply(f, z)
    return mean_square(apply(f, y) - y)


def non_identity(f: Callable[[Tensor], Tensor], z: Tensor) -> float:
    """mean |f(z) - z|^2 over all elements: 0 for the identity. Read the two errors above only beside this."""
    return mean_square(apply(f, z) - z)


def residual(x: Tensor, projected: Tensor) -> Tensor:
    """r(x) = |f(x) - x|, Euclidean over a row's elements, (N,): the distance that f moves x."""
    same_shape(x=x, projected=projected)
    distance: Tensor = torch.linalg.vector_norm((projected - x).flatten(1), dim=1)
    return distance


def normalised_residual(x: Tensor, projected: Tensor) -> Tensor:
    """mean |f(x) - x|^2 over the variance of x's own elements, (N,).

    A flat image is easy to reproduce whatever it shows; dividing by its variance takes that advantage away.
    """
    same_shape(x=x, projected=projected)
    rows = x.flatten(1).double()
    error = (projected - x).flatten(1).double().square().mean(dim=1)
    floor = 1e-12 + 1e-6 * float(rows.var(dim=1, unbiased=False).mean())
    return (error / (rows.var(dim=1, unbiased=False) + floor)).to(x.dtype)


def multiscale_residual(x: Tensor, projected: Tensor) -> Tensor:
    """How unlike data x is at several scales, (N,) float64: the normalised residual of images and of blurred images.

    Mean over Gaussian blurs G_s of s = 0, 1 and 2 pixels of log(mean |G_s (f(x) - x)|^2 / (var(G_s x) + q)), with q
    the variance of rounding to 8 bits. Fine texture that f smooths away in any image counts in one term only; what is
    wrong in the large counts in all. Vectors (N, D) have the first scale alone. Nothing is fitted.

    Args:
        x: (N, C, H, W) in [-1, 1], or (N, D); projected: f(x), of the same shape.
    """
    same_shape(x=x, projected=projected)
    scales = SCALES if x.dim() == 4 else SCALES[:1]
    terms = []
    for sigma in scales:
        seen, moved = (x, projected - x) if sigma == 0 else (_blur(x, sigma), _blur(projected - x, sigma))
        variance = seen.flatten(1).double().var(dim=1, unbiased=False)
        error = moved.flatten(1).double().square().mean(dim=1)
        terms.append(((error + 1e-12) / (variance + ROUNDING_VARIANCE)).log())
    return torch.stack(terms).mean(dim=0)


def _blur(images: Tensor, sigma: float) -> Tensor:
    return gaussian_blur(images.float(), sigma)
