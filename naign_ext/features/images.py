"""Images as networks trained on ImageNet take them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ImageNetInput(nn.Module):
    """(B, 1 or 3, H, W) around [-1, 1] to (B, 3, height, width), scaled as for ImageNet; differentiable.

    One channel is repeated. The size is changed bilinearly, antialiased where it shrinks, as two matrix products:
    interpolate's gradient is not deterministic on CUDA. Values beyond [-1, 1] stay, so that a gradient brings them
    back.
    """

    down: Tensor
    across: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, sample_shape: Sequence[int], size: tuple[int, int]) -> None:
        super().__init__()
        _, height, width = sample_shape
        self.resized = (height, width) != size
        buffers = {
            "down": _resampling(height, size[0]),
            "across": _resampling(width, size[1]).T.contiguous(),
            "mean": torch.tensor(IMAGENET_MEAN)[:, None, None],
            "deviation": torch.tensor(IMAGENET_STD)[:, None, None],
        }
        for name, value in buffers.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        images = self.down @ x @ self.across if self.resized else x
        return ((images + 1) / 2 - self.mean) / self.deviation


def check_images(name: str, sample_shape: Sequence[int]) -> None:
    """ValueError where data of a shape are not images that the named network takes."""
    if len(sample_shape) != 3 or sample_shape[0] not in (1, 3):
        raise ValueError(
            f"features: {name} is for images (1 or 3, H, W), got data of shape {tuple(sample_shape)}; use none"
        )


def _resampling(old: int, new: int) -> Tensor:
    """The matrix (new, old) that resizes one side."""
    identity = torch.eye(old)[None, None]
    resized = F.interpolate(identity, (new, old), mode="bilinear", antialias=True, align_corners=False)
    return resized[0, 0]
