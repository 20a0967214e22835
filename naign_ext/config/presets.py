"""Presets as plain data: nested overrides of TrainConfig, merged from the general to the particular.

``paper`` is the objective of arXiv 2511.02614 and nothing else (reconstruction + IMLE); ``default`` is the
best recipe known for the data set; ``quick`` is the same, shortened to end in under two minutes on two cores.
"""

from collections.abc import Mapping
from typing import Any

Tree = dict[str, Any]

PRESETS = ("quick", "default", "paper")


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Tree:
    """base with the values of over, nested mappings merged; neither is changed."""
    result: Tree = {k: merge({}, v) if isinstance(v, Mapping) else v for k, v in base.items()}
    for key, value in over.items():
        if isinstance(value, Mapping):
            below = result.get(key)
            result[key] = merge(below if isinstance(below, Mapping) else {}, value)
        else:
            result[key] = value
    return result


_PLANE_SETS = ("8gaussians", "grid25", "moons", "rings", "spirals", "checkerboard", "swissroll")
_PLANE = {
    "steps": 6000,
    "batch_size": 256,
    "model": {"architecture": "mlp", "widths": [128, 128, 128], "activation": "relu", "input_gain": 3.0},
    "optimiser": {"lr": 3e-3},
    "objective": {"pool_size": 128, "latent_scale": 2.0, "projection_weight": 3.0},
}
# Reconstruction from noise makes the residual follow the distance near the data, and sharpens these sets' samples.
# On rings and in one dimension it fills the gaps between the data instead.
_DENOISED = {"objective": {"denoise_weight": 0.5, "denoise_sigma": 0.3}}
# The larger pool and the stronger projection drive samples out of the gaps between modes; the smaller and the weaker
# keep the modes' shares of the samples even. docs/presets.md has what was tried.
_PLANES: Mapping[str, Mapping[str, Any]] = {
    "8gaussians": merge(
        _DENOISED, {"objective": {"pool_size": 256, "projection_samples": 256, "projection_weight": 1.0}}
    ),
    "grid25": _DENOISED,
    "moons": merge(_DENOISED, {"objective": {"pool_size": 64}}),
    "rings": {"objective": {"latent_scale": 1.5}},
}
# A pool much smaller than the batch: then a mode needs its share of the latents to be matched closely.
_TRIMODAL = {
    "steps": 5000,
    "batch_size": 128,
    "model": {"architecture": "mlp", "widths": [128, 128, 128], "activation": "relu"},
    "optimiser": {"lr": 3e-3},
    "objective": {"pool_size": 16, "latent_scale": 2.0, "projection_weight": 1.0},
}
_DIGITS = {
    "steps": 4000,
    "batch_size": 128,
    "model": {
        "architecture": "mlp",
        "widths": [256, 32, 256, 256],
        "activation": "silu",
        "normalisation": "batch",
    },
    "optimiser": {"lr": 2e-3},
    "objective": {"pool_size": 256, "denoise_weight": 0.5, "denoise_sigma": 1.0, "restore_weight": 0.5},
}
_MNIST = {
    "steps": 2500,
    "batch_size": 128,
    "model": {
        "architecture": "mlp",
        "widths": [512, 64, 512, 512],
        "activation": "relu",
        "normalisation": "layer",
    },
    "optimiser": {"lr": 2e-3},
    "objective": {"pool_size": 384, "denoise_weight": 0.5, "denoise_sigma": 1.0, "restore_weight": 0.5},
}
# The match covers the 160 images themselves, so that each is generated; shifts and corruptions in the
# reconstruction terms alone make f keep and repair faces it has not seen.
_LFW = {
    "steps": 2200,
    "batch_size": 96,
    "model": {
        "architecture": "mlp",
        "widths": [512, 512, 512],
        "activation": "silu",
        "normalisation": "batch",
    },
    "optimiser": {"lr": 1e-3},
    "augment": {"flip": True, "jitter": 1},
    "objective": {
        "match": "dataset",
        "pool_size": 1440,
        "resample_every": 10,
        "denoise_weight": 1.0,
        "denoise_sigma": 0.6,
        "restore_weight": 1.0,
    },
}
# An MLP, because a convolutional f takes many times as long on a CPU and was no better in trials on faces.
_PHOTOS = {
    "steps": 2200,
    "batch_size": 64,
    "image_size": 64,
    "model": {
        "architecture": "mlp",
        "widths": [512, 512, 512],
        "activation": "silu",
        "normalisation": "batch",
    },
    "optimiser": {"lr": 1e-3},
    "augment": {"flip": True, "jitter": 2},
    "objective": {
        "match": "dataset",
        "pool_size": 1024,
        "resample_every": 10,
        "denoise_weight": 1.0,
        "denoise_sigma": 0.6,
        "restore_weight": 1.0,
    },
}

DATASETS: Mapping[str, Mapping[str, Any]] = {
    "trimodal1d": _TRIMODAL,
    **{name: merge(_PLANE, _PLANES.get(name, {})) for name in _PLANE_SETS},
    "digits": _DIGITS,
    "mnist5k": _MNIST,
    "mnist": _MNIST,
    "lfw100": _LFW,
    "ffhq100": _PHOTOS,
    "folder": _PHOTOS,
}

_PAPER: Tree = {
    "objective": {"projection_weight": 0.0, "denoise_weight": 0.0, "restore_weight": 0.0},
    "augment": {"flip": False, "shift": 0, "jitter": 0},
}
_PLANE_PAPER: Tree = {"objective": {"pool_size": 256, "latent_scale": 1.0}}

PARTICULAR: Mapping[str, Mapping[str, Tree]] = {
    "quick": {
        **{name: {"steps": 3000} for name in _PLANE_SETS},
        "digits": {"steps": 1500},
        "mnist5k": {"steps": 1000},
        "mnist": {"steps": 1000},
        "lfw100": {"steps": 800},
        "ffhq100": {"steps": 600, "image_size": 32},
        "folder": {"steps": 600, "image_size": 32},
    },
    "default": {},
    "paper": {
        "trimodal1d": {"objective": {"pool_size": 128, "latent_scale": 1.0}},
        **dict.fromkeys(_PLANE_SETS, _PLANE_PAPER),
    },
}


def preset_values(preset: str, dataset: str) -> Tree:
    """The nested values of a preset for a data set (``folder:PATH`` counts as ``folder``), a fresh copy."""
    key = dataset.split(":", 1)[0]
    values = merge({}, DATASETS.get(key, _PHOTOS))
    if preset == "paper":
        values = merge(values, _PAPER)
    return merge(values, PARTICULAR[preset].get(key, {}))
