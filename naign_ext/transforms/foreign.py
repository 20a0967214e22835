"""Inputs that are not data, made from the data alone: each kind keeps some of what data have and breaks the rest."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST_SIDE = 2
"""Pixels of an image's shorter side from which the kinds for images are defined."""
_CELLS_A_SIDE = 5
_SMALLEST_PART, _LARGEST_PART = 0.25, 0.65
_BOX = 1.5
_WIDTH = 2.0


@dataclass(frozen=True)
class Spectrum:
    """Mean and standard deviations, over a set of images (N, C, H, W), of each coefficient of their Fourier transform.

    mean: complex (C, H, W // 2 + 1); real, imaginary: their parts' deviations, of the same shape.
    """

    mean: Tensor
    real: Tensor
    imaginary: Tensor

    @classmethod
    def of(cls, images: Tensor) -> "Spectrum":
        """That of images (N, C, H, W), float32."""
        transformed = torch.fft.rfft2(images)
        return cls(
            transformed.mean(dim=0),
            transformed.real.std(dim=0, correction=0),
            transformed.imag.std(dim=0, correction=0),
        )


def scramble(images: Tensor, random: torch.Generator) -> Tensor:
    """Images (N, C, H, W) cut into cells of a fifth of the shorter side, in a random order.

    What the cells leave at the right and lower edges stays.
    """
    height, width = images.shape[-2:]
    side = max(1, min(height, width) // _CELLS_A_SIDE)
    rows, columns = height // side * side, width // side * side
    cells = F.unfold(images[..., :rows, :columns], side, stride=side)
    order = torch.rand(len(images), cells.shape[2], generator=random).argsort(dim=1).to(images.device)
    shuffled = cells.gather(2, order[:, None].expand_as(cells))
    result = images.clone()
    result[..., :rows, :columns] = F.fold(shuffled, (rows, columns), side, stride=side)
    return result


def turn(images: Tensor, random: torch.Generator) -> Tensor:
    """Images (N, C, H, W) upside down or turned by 90 degrees either way; those that are not square, upside down."""
    upside_down = images.flip(2)
    if images.shape[2] != images.shape[3]:
        return upside_down
    turned = torch.stack([upside_down, images.rot90(1, (2, 3)), images.rot90(-1, (2, 3))])
    which = torch.randint(len(turned), (len(images),), generator=random).to(images.device)
    return turned[which, torch.arange(len(images), device=images.device)]


def zoom(images: Tensor, random: torch.Generator) -> Tensor:
    """A random part of each image (N, C, H, W), of .25 to .65 of its sides, enlarged and turned as by :func:`turn`."""
    count = len(images)
    part = _SMALLEST_PART + (_LARGEST_PART - _SMALLEST_PART) * torch.rand(count, 1, generator=random)
    centre = (2 * torch.rand(count, 2, generator=random) - 1) * (1 - part)
    affine = torch.cat([torch.diag_embed(part.expand(-1, 2)), centre[:, :, None]], dim=2).to(images)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    return turn(F.grid_sample(images, grid, padding_mode="border", align_corners=False), random)


def shape_noise(noise: Tensor, spectrum: Spectrum) -> Tensor:
    """White noise (N, C, H, W) given a set's mean and its deviation at each frequency, as IGN's latents have them
    (arXiv 2311.01462).
    """
    white = torch.fft.rfft2(noise, norm="ortho")
    # The real and imaginary parts of transformed white noise have variance 1/2 each, and where a frequency is its own
    # negative the real part has all of it.
    white = white * (2 - _is_own_negative(*noise.shape[-2:]).to(noise)).sqrt()
    shaped = torch.complex(white.real * spectrum.real, white.imag * spectrum.imaginary)
    made: Tensor = torch.fft.irfft2(spectrum.mean + shaped, s=noise.shape[-2:])
    return made


def _is_own_negative(height: int, width: int) -> Tensor:
    """bool (H, W // 2 + 1): frequencies of 0 or half a cycle a pixel in both directions."""
    rows, columns = torch.arange(height)[:, None], torch.arange(width // 2 + 1)
    return (2 * rows % height == 0) & (2 * columns % width == 0)


def fill_box(rows: Tensor, data: Tensor, random: torch.Generator) -> Tensor:
    """As many points as rows (n, D), uniform in the box of data (N, D), enlarged 1.5 times about its centre."""
    low, high = data.amin(dim=0), data.amax(dim=0)
    uniform = torch.rand(rows.shape, generator=random).to(rows) - 0.5
    return (low + high) / 2 + _BOX * (high - low) * uniform


def widen(rows: Tensor, data: Tensor, random: torch.Generator) -> Tensor:
    """Rows (n, D) and normal noise of up to twice the deviation that each coordinate has in data (N, D)."""
    amount = _WIDTH * torch.rand(len(rows), 1, generator=random)
    noise = torch.randn(rows.shape, generator=random)
    return rows + (amount * noise).to(rows) * data.std(dim=0, correction=0)


ImageMaker = Callable[[Tensor, torch.Generator], Tensor]
VectorMaker = Callable[[Tensor, Tensor, torch.Generator], Tensor]

OF_IMAGES: dict[str, ImageMaker] = {"scrambled": scramble, "turned": turn, "zoomed": zoom}
SPECTRAL = "spectral"
OF_VECTORS: dict[str, VectorMaker] = {"box": fill_box, "wide": widen}


class ForeignInputs:
    """Draws inputs that are not data for a data set (N, *shape), images (C, H, W) or vectors (D,).

    Kinds for images: "scrambled", "turned", "zoomed", "spectral" (see :func:`scramble`, :func:`turn`, :func:`zoom`,
    :func:`shape_noise`); for vectors: "box", "wide" (:func:`fill_box`, :func:`widen`).

    kinds: of these; None: all that fit the data.

    Raises:
        ValueError: no kinds, or one that is unknown or does not fit the data.
    """

    def __init__(self, data: Tensor, kinds: tuple[str, ...] | None = None) -> None:
        self.data = data
        known = (*OF_IMAGES, SPECTRAL) if data.dim() == 4 else tuple(OF_VECTORS)
        self.kinds = known if kinds is None else tuple(kinds)
        what = "images" if data.dim() == 4 else "vectors"
        for kind in self.kinds:
            if kind not in known:
                raise ValueError(f"kinds: expected of {', '.join(known)} for {what}, got {kind!r}")
        if not self.kinds:
            raise ValueError(f"kinds: expected at least one of {', '.join(known)}, got none")
        if data.dim() == 4 and min(data.shape[2:]) < SMALLEST_SIDE:
            raise ValueError(f"data: expected images of at least 2 x 2 pixels, got {tuple(data.shape)}")
        self._spectrum = Spectrum.of(data) if SPECTRAL in self.kinds else None

    def draw(self, count: int, random: torch.Generator) -> Tensor:
        """(count, *shape), the kinds in turns; random: on the CPU, so that every device gets the same inputs."""
        chosen = torch.randint(len(self.data), (count,), generator=random).to(self.data.device)
        drawn = self.data[chosen]
        for k, kind in enumerate(self.kinds):
            mine = slice(k, None, len(self.kinds))
            if count > k:
                drawn[mine] = self._make(kind, drawn[mine], random)
        return drawn

    def _make(self, kind: str, rows: Tensor, random: torch.Generator) -> Tensor:
        if kind in OF_VECTORS:
            return OF_VECTORS[kind](rows, self.data, random)
        if kind in OF_IMAGES:
            return OF_IMAGES[kind](rows, random)
        assert self._spectrum is not None
        return shape_noise(torch.randn(rows.shape, generator=random).to(rows), self._spectrum)
