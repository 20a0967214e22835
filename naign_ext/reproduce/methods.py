"""What is compared: NAIGN as published and at its best, and IGN, each as a configuration of the trainer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from naign_ext.config import TrainConfig, preset_values, resolve_config
from naign_ext.reproduce.effort import Effort

Settings = Mapping[str, Any]
"""Dotted key -> value, as `naign train --set` takes them."""


@dataclass(frozen=True)
class Method:
    """A column of every table. label: in figures; text: in a sentence."""

    name: str
    label: str
    text: str


PLAIN, BEST, IGN, IGN_SECONDS = "naign-plain", "naign-best", "ign", "ign-seconds"
METHODS = {
    method.name: method
    for method in (
        Method(PLAIN, "NAIGN, paper", "reconstruction + IMLE alone, as published (preset paper)"),
        Method(BEST, "NAIGN, best", "with the options that help on this data set (preset default)"),
        Method(IGN, "IGN", "tuned, as many updates as NAIGN"),
        Method(IGN_SECONDS, "IGN, equal time", "tuned, trained for as many seconds as NAIGN, best"),
    )
}
NAIGN = (PLAIN, BEST)
RIVALS = (IGN, IGN_SECONDS)

WITHOUT_REPAIR: Settings = {
    "objective.denoise_weight": 0.0,
    "objective.restore_weight": 0.0,
    "augment.flip": False,
    "augment.shift": 0,
    "augment.jitter": 0,
}


def ign_candidates(dataset: str, kind: str) -> list[Settings]:
    """The settings of IGN that are searched, beside its preset's network, batch and augmentation.

    Tightness weights x learning rates, with and without the clamp on tightness; where NAIGN's preset has denoising,
    restoration or augmentation, which these share, also without (vectors: all of them again; images: one learning
    rate, unclamped); else, where it has wider latents, all again with those of scale 1; and the published values of
    everything. Ordered so that the first few are the most promising.
    """
    grid = [
        _candidate(tightness, lr, clamp)
        for clamp in (0.0, 1.5)
        for lr in (1e-3, 3e-4)
        for tightness in (0.1, 1.0, 0.4)
    ]
    published: Settings = {
        "objective.latent_scale": 1.0,
        "optimiser.lr": 1e-4,
        "optimiser.betas": [0.5, 0.999],
        "optimiser.schedule": "constant",
        "optimiser.weight_decay": 0.0,
        "optimiser.grad_clip": 0.0,
    }
    preset = preset_values("default", dataset)["objective"]
    if kind == "image":
        bare = [{**_candidate(tightness, 1e-3, 0.0), **WITHOUT_REPAIR} for tightness in (0.1, 1.0, 0.4)]
    elif preset.get("denoise_weight", 0) > 0:
        bare = [{**candidate, **WITHOUT_REPAIR} for candidate in grid]
    else:
        narrow = [{**candidate, "objective.latent_scale": 1.0} for candidate in grid]
        return [*grid, *(narrow if preset.get("latent_scale", 1) != 1 else []), published]
    return [*grid, *bare, {**published, **WITHOUT_REPAIR}]


def _candidate(tightness: float, lr: float, clamp: float) -> dict[str, Any]:
    return {
        # Weights 1, 1, t instead of 20, 20, 20 t: AdamW does not see the factor, gradient clipping does.
        "objective.reconstruction_weight": 1.0,
        "objective.idempotence_weight": 1.0,
        "objective.norm": "l2",
        "objective.tightness_weight": tightness,
        "objective.tightness_clamp": clamp,
        "objective.tightness_clamp_gradient": False,
        "optimiser.lr": lr,
    }


def method_config(
    method: str,
    dataset: str,
    *,
    seed: int,
    effort: Effort,
    ign: Settings | None = None,
    steps: int | None = None,
    share: float = 1.0,
    changes: Settings | None = None,
    device: str = "cpu",
) -> TrainConfig:
    """The run of a method on a data set.

    seed: of training, and of the data's draw or split. ign: the settings found for IGN on this data set.
    steps: instead of the preset's, before effort.steps_share is applied; for IGN_SECONDS the final number.
    share: a further part of the updates, in a first heat.
    changes: any further settings; they win.
    """
    rival = method in RIVALS
    if rival and ign is None:
        raise ValueError(f"ign: expected the settings to train {method} with, got None")
    flags: dict[str, Any] = {
        "seed": seed,
        "data_seed": seed,
        "device": device,
        "objective": "ign" if rival else "naign",
        **((ign or {}) if rival else {}),
        **(changes or {}),
    }
    preset = "paper" if method == PLAIN else "default"
    config = resolve_config(dataset, preset, flags=flags)
    if method != IGN_SECONDS or steps is None:
        steps = max(10, round(effort.steps_share * share * (steps or config.steps)))
    log = {
        "every": max(1, steps // 40),
        "samples_every": 0,
        "checkpoint_every": max(1, steps // effort.curve_points),
        "tensorboard": False,
    }
    flags |= {"steps": steps, **{f"log.{key}": value for key, value in log.items()}}
    return resolve_config(dataset, preset, flags=flags)
