"""Idempotent generative networks (Shocher et al., arXiv 2311.01462): the adversarial forerunner."""

from typing import Literal

import torch
from pydantic import FiniteFloat
from torch import Tensor, nn
from torch.func import functional_call

from naign_ext.latents import LatentPool
from naign_ext.objectives.base import (
    OBJECTIVES,
    Loss,
    Objective,
    ObjectiveOptions,
    StepContext,
    apply_together,
    non_identity,
)
from naign_ext.objectives.generation import innermost
from naign_ext.objectives.restoration import Restoration, RestorationOptions
from naign_ext.options import option
from naign_ext.transforms.batch import Batch

SMALLEST_CLAMP = 1e-6


class IgnOptions(RestorationOptions, ObjectiveOptions):
    """Options of IGN; the defaults are the published ones.

    denoise_weight and restore_weight count relative to reconstruction_weight, so that those of a preset, made
    for a reconstruction weight of 1, keep their meaning.
    """

    name: Literal["ign"] = option("ign", "Objective.", "Objective")
    norm: Literal["l2", "l1"] = option("l1", "Norm of the loss terms.", "Objective")
    latent_scale: FiniteFloat = option(1.0, "Standard deviation of the latents z.", "Latent pool", gt=0)
    reconstruction_weight: FiniteFloat = option(
        20.0, "Weight of mean |f(x) - x|: data are fixed points.", "Objective", gt=0
    )
    idempotence_weight: FiniteFloat = option(
        20.0, "Weight of mean |f'(f(z)) - f(z)|, f' a frozen copy of f.", "Objective", ge=0
    )
    tightness_weight: FiniteFloat = option(
        2.5, "Weight of -mean |f(y) - y|, y = f'(z) held fixed: what is not data is moved.", "Objective", ge=0
    )
    tightness_clamp: FiniteFloat = option(
        1.5,
        "The tightness of a sample is at most this times a data point's reconstruction error; 0: unbounded.",
        "Objective",
        ge=0,
    )
    tightness_clamp_gradient: bool = option(
        True, "Let gradient through that bound, as the paper's formula reads.", "Objective"
    )


@OBJECTIVES.register("ign")
class Ign(Objective):
    """a_r L_r + a_i L_i + a_t L_t, one latent z ~ N(0, latent_scale^2 I) for each data point x of the batch.

    With d(u, v) a row's mean |u - v| (norm l1; l2: squared) and f' a copy of f that takes no gradient:

        L_r = mean d(f(x), x)
        L_i = mean d(f'(f(z)), f(z))                          gradient to f through f(z) alone
        L_t = mean -c tanh(d(f(y), y) / c),  y = f(z) fixed   gradient to f's second application alone
        c   = tightness_clamp d(f(x), x), the row's own; tightness_clamp 0: L_t = mean -d(f(y), y)

    Tightness and idempotence pull the same quantity both ways through different paths, which is the
    adversarial part. With the clamp the identity is a minimum, for c is 0 there. Gradient through c rewards a
    larger reconstruction error; it needs a_t tightness_clamp < a_r to be outweighed, and without
    tightness_clamp_gradient c is constant. The paper's short listing has squares, weights 1, 1, .1 and no clamp;
    the long form here is its experiments'. Latents are plain Gaussian, not shaped by the data's spectrum as in
    its image experiments, so that samples are drawn as for every other objective.

    f(x), f(z) and the inputs of the restoration terms pass f in one call (see :func:`apply_together`). The second
    applications use the current running statistics' copies and leave f's own alone. x is the augmented data.
    """

    Options = IgnOptions

    def __init__(self, options: IgnOptions, data: Tensor, context: StepContext) -> None:
        super().__init__(options, data, context)
        self.restoration = Restoration(options, self.seed)
        self.pool = LatentPool(data.shape[1:], options.latent_scale, self.seed, device=data.device)

    def loss(self, f: nn.Module, batch: Batch, step: int) -> Loss:
        """See :meth:`Objective.loss`; terms: reconstruction, idempotence, tightness, denoise, restore."""
        o: IgnOptions = self.options
        x, (first, _) = batch.augmented, batch.offset
        with self.timer("data"):
            corrupted = self.restoration.inputs(batch, step)
        self.pool.draw = step
        with self.timer("generation"):
            latents = self.pool.chunk(first, first + len(x))
        with self.timer("forward"):
            outputs = apply_together(f, {"data": x, "latents": latents} | corrupted)
            samples = outputs["latents"]
            fixed = samples.detach()
            again = {
                frozen: apply_again(f, samples if frozen else fixed, frozen=frozen)
                for frozen in (False, True)
            }
        reconstruction = self._distance(outputs["data"], x)
        moved = self._distance(again[False], fixed)
        terms = {
            "reconstruction": reconstruction.mean(),
            "idempotence": self._distance(again[True], samples).mean(),
            "tightness": -self._clamped(moved, reconstruction).mean(),
        }
        terms |= {name: self._distance(outputs[name], x).mean() for name in self.restoration.weights}
        weights = {
            "reconstruction": o.reconstruction_weight,
            "idempotence": o.idempotence_weight,
            "tightness": o.tightness_weight,
            **{name: o.reconstruction_weight * w for name, w in self.restoration.weights.items()},
        }
        total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        detached = {name: term.detach() for name, term in terms.items()}
        return Loss(total, detached, lambda: {"non_identity": non_identity(samples, latents)})

    def _clamped(self, moved: Tensor, reconstruction: Tensor) -> Tensor:
        if self.options.tightness_clamp == 0:
            return moved
        bound = (self.options.tightness_clamp * reconstruction).clamp(min=SMALLEST_CLAMP)
        bound = bound if self.options.tightness_clamp_gradient else bound.detach()
        clamped: Tensor = bound * torch.tanh(moved / bound)
        return clamped

    def _distance(self, a: Tensor, b: Tensor) -> Tensor:
        difference = (a - b).flatten(1)
        return (difference.abs() if self.options.norm == "l1" else difference.square()).mean(dim=1)


def apply_again(f: nn.Module, y: Tensor, *, frozen: bool) -> Tensor:
    """f(y), float32, in f's mode; frozen: gradient flows to y alone, not to f's parameters.

    Running statistics are read and not changed: those of the first application, of data and latents, are what
    evaluation uses.
    """
    inner = innermost(f)
    parameters = {name: p.detach() if frozen else p for name, p in inner.named_parameters()}
    buffers = {name: b.detach().clone() for name, b in inner.named_buffers()}
    result: Tensor = functional_call(inner, parameters | buffers, (y,))
    return result.float()
