"""Maps from data to features by name, and what is computed with one."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from naign_ext.features.weights import WeightsSource, chosen_weights
from naign_ext.memory import automatic_chunk, bytes_per_row, check_fits
from naign_ext.registry import Registry
from naign_ext.seeds import derive_seed

FeatureBuilder = Callable[[Sequence[int], Path | None], Callable[[Tensor], Tensor]]
"""From the shape of a data point and the path of weights, if one is given, to phi: float32 (B, *shape) to (B, ...).

Weights that it draws from torch's global generator depend on the run's seed."""

FEATURES: Registry[FeatureBuilder] = Registry("features")
"""Every feature space for training by its name, besides "none"."""

_FLOAT = 4


def source_of(weights: Path | None) -> WeightsSource:
    """Where the maps of training look for weights."""
    return WeightsSource(
        weights, "objective.feature_weights or $NAIGN_FEATURE_WEIGHTS", "objective.features=none needs none"
    )


def build_feature_map(
    name: str, sample_shape: Sequence[int], *, weights: str | Path | None = None, seed: int = 0
) -> "FeatureMap":
    """The registered map of a name for data points of this shape, on the CPU; torch's generators stay as they are.

    Raises:
        ValueError: an unknown name, or data that the map is not for.
        FeaturesUnavailableError (a ValueError): the network's weights are not on this machine.
    """
    build = FEATURES.find(name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "features"))
        phi = build(tuple(sample_shape), chosen_weights(weights))
    return FeatureMap(name, phi, sample_shape)


class FeatureMap(nn.Module):
    """phi: (B, *shape) to float32 (B, K), in evaluation mode, its weights frozen.

    In float32 under autocast too, so that features of data and of samples are of one function. ``size`` is K,
    ``row_bytes`` what a row leaves behind on its way.
    """

    def __init__(self, name: str, phi: Callable[[Tensor], Tensor], sample_shape: Sequence[int]) -> None:
        super().__init__()
        self.name = name
        self.phi = phi
        self.eval().requires_grad_(False)
        self.sample_shape = tuple(sample_shape)
        with torch.inference_mode():
            rows = self(torch.zeros(2, *self.sample_shape))
        self.size = rows.shape[1]
        self.row_bytes = bytes_per_row(self, self.sample_shape, "cpu") + _FLOAT * self.size

    def forward(self, x: Tensor) -> Tensor:
        """See the class; differentiable in x."""
        with torch.autocast(x.device.type, enabled=False):
            found = self.phi(x.float())
        if not isinstance(found, Tensor) or found.dim() < 2 or len(found) != len(x):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"features: {self.name}: expected features (B, ...) of {len(x)} rows, got {shape}"
            )
        return found.flatten(1).float()

    @torch.no_grad()
    def of_all(self, data: Tensor) -> Tensor:
        """Features (N, K) of data (N, *shape), chunk by chunk, without gradient.

        Raises:
            NotEnoughMemoryError: they do not fit beside the copy that a search makes of them.
        """
        check_fits(
            f"the search in {self.name} features ({len(data)} rows of {self.size} numbers)",
            2 * _FLOAT * len(data) * self.size,
            "take fewer rows (train_rows), a smaller image_size, or objective.features=none",
            data.device,
        )
        features = data.new_empty(len(data), self.size, dtype=torch.float32)
        chunk = automatic_chunk(self.row_bytes, data.device)
        for start in range(0, len(data), chunk):
            features[start : start + chunk] = self(data[start : start + chunk])
        return features

    def digest(self) -> Tensor:
        """SHA-256 of the map's weights, uint8 (32,); a function has none."""
        found = hashlib.sha256(self.name.encode())
        for name, value in sorted(self.state_dict().items()):
            found.update(name.encode())
            found.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        return torch.tensor(list(found.digest()), dtype=torch.uint8)
