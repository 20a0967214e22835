"""Pictures of samples during training."""

import math
from pathlib import Path

import torch
from torch import Tensor

from naign_ext.data.images import save_image_grid

_SIDE = 160


def save_sample_picture(samples: Tensor, data: Tensor, path: Path) -> bool:
    """Write a picture of samples; False, and no file, for vectors of more than 2 dimensions.

    Images (n, C, H, W) as a grid. Vectors (n, 1 or 2) as two histograms side by side, data left, samples
    right, over the range of the data.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if samples.dim() == 4:
        save_image_grid(samples.cpu(), path, math.ceil(math.sqrt(len(samples))))
        return True
    if samples.dim() != 2 or samples.shape[1] > 2:
        return False
    lower, upper = data.amin(0).cpu(), data.amax(0).cpu()
    margin = 0.1 * (upper - lower).clamp(min=1e-6)
    panels = [_histogram(x.cpu(), lower - margin, upper + margin) for x in (data, samples)]
    save_image_grid(torch.stack(panels), path, 2)
    return True


def _histogram(points: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Density of points as an image (1, side, side) in [-1, 1]: bars for 1-D, grey values for 2-D."""
    unit = (points.nan_to_num(nan=torch.inf) - lower) / (upper - lower)
    inside = unit[((unit >= 0) & (unit < 1)).all(dim=1)]
    if points.shape[1] == 1:
        counts = torch.histc(inside[:, 0], _SIDE, 0.0, 1.0)
        heights = counts / counts.max().clamp(min=1) * _SIDE
        return (torch.arange(_SIDE, 0, -1)[None, :, None] <= heights[None, None]).float() * 2 - 1
    cells = (inside * _SIDE).long()
    counts = torch.zeros(_SIDE * _SIDE)
    counts.index_add_(0, (_SIDE - 1 - cells[:, 1]) * _SIDE + cells[:, 0], torch.ones(len(cells)))
    return (counts / counts.max().clamp(min=1)).sqrt().view(1, _SIDE, _SIDE) * 2 - 1
