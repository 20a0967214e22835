"""The space in which samples are matched to data: that of the data themselves, or features phi of both."""

from typing import Any

import torch
from pydantic import FiniteFloat, field_validator, model_validator
from torch import Tensor
from torch.autograd.function import once_differentiable

from naign_ext.features import FEATURES, FeatureMap, build_feature_map
from naign_ext.memory import automatic_chunk
from naign_ext.ops import fused_loss
from naign_ext.options import Options, option, shown

PIXELS = "none"
_DIGEST = "features.sha256"


class FeatureOptions(Options):
    """Options of the space of the match."""

    features: str = option(
        PIXELS,
        "Where samples are matched to data, and compared in a term beside the imle term's: none (pixels), vgg16 "
        "(LPIPS with equal weights), dinov2, or another name in naign_ext.features.FEATURES.",
        "Objective",
        min_length=1,
    )
    feature_weights: str | None = option(
        None,
        "Weights of the features' network, never downloaded: vgg16: torchvision's file, default: in torch's hub "
        "folder; dinov2: a folder of transformers. Also $NAIGN_FEATURE_WEIGHTS.",
        "Objective",
        min_length=1,
    )
    feature_weight: FiniteFloat = option(
        1.0,
        "Weight of mean |phi(x) - phi(f(z))|^2, phi the features, z the matched latent; without features no term.",
        "Objective",
        ge=0,
    )

    @field_validator("features")
    @classmethod
    def _known_features(cls, name: str) -> str:
        if name != PIXELS and name not in FEATURES:
            raise ValueError(f"expected one of {', '.join((PIXELS, *FEATURES))}")
        return name

    @model_validator(mode="after")
    def _weights_have_a_network(self) -> "FeatureOptions":
        if self.features == PIXELS and self.feature_weights is not None:
            raise ValueError(
                f"feature_weights: expected features other than none, whose weights these are, got "
                f"{shown(self.feature_weights)}"
            )
        return self


class MatchSpace:
    """Where distances between samples and data (N, *shape) are measured.

    data: the data there, float32 (N, K), computed once. phi: the features; None: samples and data as they are.
    row_bytes: what a sample takes on its way through phi.
    """

    def __init__(self, data: Tensor, phi: FeatureMap | None = None) -> None:
        self.phi = None if phi is None else phi.to(data.device)
        self.data = data.flatten(1) if self.phi is None else self.phi.of_all(data)
        self.row_bytes = 0 if phi is None else phi.row_bytes

    @classmethod
    def of(cls, options: Any, data: Tensor, seed: int) -> "MatchSpace":
        """That of FeatureOptions.

        Raises:
            ValueError: features that are not for such data, or whose weights are not on this machine.
            NotEnoughMemoryError: the data's features do not fit.
        """
        if options.features == PIXELS:
            return cls(data)
        shape = tuple(data.shape[1:])
        return cls(
            data, build_feature_map(options.features, shape, weights=options.feature_weights, seed=seed)
        )

    def rows(self, samples: Tensor) -> Tensor:
        """Samples (m, *shape) there, (m, K), for a search: without gradient."""
        if self.phi is None:
            return samples.flatten(1)
        with torch.inference_mode():
            features: Tensor = self.phi(samples)
        return features

    def feature_distance(self, samples: Tensor, rows: Tensor) -> Tensor:
        """mean_i |phi(x_i) - phi(y_i)|^2, y samples (m, *shape), x the data of rows (m,): differentiable in samples.

        A mean over rows of squared Euclidean distances, as the match has them: not over the features' elements.
        """
        distance: Tensor = _FeatureDistance.apply(samples, self, rows)  # type: ignore[no-untyped-call]
        return distance

    def distance_and_gradient(self, samples: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`feature_distance` and its gradient at samples, both detached.

        Chunk by chunk, so that no more than a chunk's activations are there at a time, however large the batch.
        """
        assert self.phi is not None
        chunk = automatic_chunk(self.row_bytes, samples.device)
        distances: list[Tensor] = []
        gradients: list[Tensor] = []
        for part, of_part in zip(torch.split(samples.detach(), chunk), torch.split(rows, chunk), strict=True):
            with torch.enable_grad():
                features = self.phi(part.requires_grad_())
                # A mean over the part's elements; the sum of rows' distances is wanted.
                term = (features, self.data.index_select(0, of_part), float(features.numel()))
                distance = fused_loss([term]).total
            gradients += torch.autograd.grad(distance, part)
            distances.append(distance.detach())
        return torch.stack(distances).sum() / len(samples), torch.cat(gradients) / len(samples)

    def state(self) -> dict[str, Tensor]:
        """What tells the network of a checkpoint's features from others."""
        return {} if self.phi is None else {_DIGEST: self.phi.digest()}

    def check_state(self, state: dict[str, Tensor]) -> None:
        """ValueError where an earlier :meth:`state` is that of other features."""
        if self.phi is None or _DIGEST not in state:
            return
        if not torch.equal(state[_DIGEST].cpu(), self.phi.digest()):
            raise ValueError(
                f"objective.features: the weights of {self.phi.name} are not those the run began with; put these "
                "back where objective.feature_weights or $NAIGN_FEATURE_WEIGHTS says"
            )


class _FeatureDistance(torch.autograd.Function):
    """:meth:`MatchSpace.feature_distance`, whose gradient is taken with its value."""

    @staticmethod
    def forward(ctx: Any, samples: Tensor, space: MatchSpace, rows: Tensor) -> Tensor:
        distance, gradient = space.distance_and_gradient(samples, rows)
        ctx.save_for_backward(gradient)
        return distance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return scale * gradient, None, None
