"""A trained f as its user meets it: sample, project, restore, score, log_density."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import ModelHubMixin, hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from naign_ext.checkpoint import CheckpointError, Which, load_checkpoint
from naign_ext.devices import choose_device
from naign_ext.evaluation.density import Grid, log_partition
from naign_ext.evaluation.projection import apply, multiscale_residual, normalised_residual, residual
from naign_ext.latents import LatentPool
from naign_ext.models import build_model
from naign_ext.transforms.corruptions import keep_known

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
_CARD = """---
{{ card_data }}
---

A network f that is its own projector: f(x) = x on data, and f maps everything else onto data
(Non-Adversarial Idempotent Generative Networks, arXiv 2511.02614).

```python
from naign_ext import Projector

projector = Projector.from_pretrained("PATH OR REPOSITORY")
samples = projector.sample(64, seed=0)
restored = projector.restore(corrupted)
score = projector.score(x)  # residual and energy: the distance to the data
```

Weights are safetensors only; nothing in this folder is executed.
"""


@dataclass(frozen=True)
class Score:
    """How far points are from the data, as f sees it; every field (N,), float32.

    residual: r(x) = |f(x) - x|, Euclidean, in the data's unit.
    energy: r(x)^2.
    normalised: mean square of f(x) - x over the variance of x's own elements, so that flat images do not pass.
    multiscale: mean logarithm of normalised over blurs of 0, 1 and 2 pixels (vectors: of 0 alone); tells images
        of another kind apart best.
    """

    residual: Tensor
    energy: Tensor
    normalised: Tensor
    multiscale: Tensor


class Projector(
    nn.Module,
    ModelHubMixin,
    model_card_template=_CARD,
    library_name="naign",
    tags=["naign", "idempotent-generative-network"],
    paper_url="https://arxiv.org/abs/2511.02614",
):
    """f with what is needed to use it. Images are float32 (N, C, H, W) in [-1, 1], vectors (N, D).

    Get one with :meth:`load` (a training run) or :meth:`from_pretrained` (a folder or a Hub repository). It is a
    torch module in evaluation mode: ``projector(x)`` is f(x), with gradient; the methods work without.

    Args:
        architecture, sample_shape, options: as build_model takes them.
        latent_scale: standard deviation of the latents f was trained on.
        about: JSON-able facts to keep beside the weights, such as data set, objective and steps.
    """

    def __init__(
        self,
        architecture: str,
        sample_shape: Sequence[int],
        options: Mapping[str, Any] | None = None,
        latent_scale: float = 1.0,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.sample_shape = tuple(int(size) for size in sample_shape)
        self.latent_scale = float(latent_scale)
        self.about = dict(about or {})
        self.f = build_model(architecture, self.sample_shape, **dict(options or {}))
        self._log_partition: dict[tuple[Any, ...], float] = {}
        self.eval()

    @classmethod
    def load(
        cls,
        run: str | Path,
        device: torch.device | str | None = None,
        weights: Literal["ema", "model"] = "ema",
        checkpoint: Which = "best",
    ) -> "Projector":
        """The f of a training run.

        Args:
            run: run folder, one checkpoint's own folder, or a folder written by save_pretrained.
            device: None is CUDA where there is one, else the CPU.
            weights: "ema", the running average, or "model", the last weights.
            checkpoint: "best" by validation, "last", or a step.

        Raises:
            CheckpointError (a ValueError): nothing there, damaged or foreign.
        """
        target = choose_device(device)
        folder = Path(run)
        if is_pretrained_folder(folder):
            return cls.from_pretrained(folder).to(target)
        if weights not in ("ema", "model"):
            raise ValueError(f"weights: expected 'ema' or 'model', got {weights!r}")
        found = load_checkpoint(folder, checkpoint)
        f, config = found.build(weights), found.config
        objective = config.get("objective")
        about = {
            "dataset": config.get("dataset"),
            "preset": config.get("preset"),
            "objective": objective.get("name") if isinstance(objective, Mapping) else None,
            "seed": config.get("seed"),
            "step": found.step,
            "weights": weights,
        }
        spec = found.info["model"]
        with torch.random.fork_rng(devices=[]):
            projector = cls(
                spec["architecture"], list(found.sample_shape), spec["options"], found.latent_scale, about
            )
        projector.f = f
        return projector.to(target)

    @property
    def kind(self) -> Literal["vector", "image"]:
        """What f maps: rows of numbers, or images."""
        return "image" if len(self.sample_shape) == 3 else "vector"

    @property
    def device(self) -> torch.device:
        """Where f computes; inputs may lie elsewhere, answers come back where the input was."""
        return next(self.f.parameters()).device

    def forward(self, x: Tensor) -> Tensor:
        """f(x), on f's device, with gradient."""
        y: Tensor = self.f(x)
        return y

    def sample(self, n: int, seed: int = 0, steps: int = 1, *, batch_size: int = 512) -> Tensor:
        """n samples f^steps(z), (n, *sample_shape), for latents z that depend on the seed alone.

        steps: f applied so often; 2 is often sharper, 0 gives the latents.
        """
        if n < 1:
            raise ValueError(f"n: expected at least 1 sample, got {n}")
        pool = LatentPool(self.sample_shape, self.latent_scale, seed)
        parts = (pool.chunk(i, min(i + batch_size, n)) for i in range(0, n, batch_size))
        return torch.cat([self._map(part, steps, batch_size) for part in parts])

    def project(self, x: Tensor, steps: int = 1, *, batch_size: int = 512) -> Tensor:
        """f^steps(x), of x's shape; x is (N, *sample_shape) or a single sample_shape."""
        batch = self._as_batch(x)
        return self._map(batch, steps, batch_size).view(x.shape)

    def restore(
        self,
        x: Tensor,
        steps: int = 1,
        *,
        lost: Tensor | None = None,
        degrade: Callable[[Tensor], Tensor] | None = None,
        batch_size: int = 512,
    ) -> Tensor:
        """The data point nearest to a corrupted x, as f finds it: images come back clipped to [-1, 1].

        Args:
            x: (N, *sample_shape) or a single sample_shape.
            lost: bool, broadcastable to x, True where x's value is missing; all others keep x's value after
                every step. None: everything may change.
            degrade: the linear map that made x, of (N, *sample_shape) to the same, such as
                ``partial(naign_ext.transforms.degrade, kind="blur", strength=1.0)``: after every step, what it lets
                pass is taken from x (:func:`naign_ext.transforms.keep_known`). Not together with lost.
        """
        batch = self._as_batch(x)
        if lost is not None:
            if degrade is not None:
                raise ValueError("degrade: expected None where lost is given, got both")
            lost = _checked_lost(lost, x).reshape(batch.shape)
        if steps < 0:
            raise ValueError(f"steps: expected 0 or more, got {steps}")
        y = batch
        for _ in range(steps):
            y = keep_known(self._map(y, 1, batch_size), batch, lost=lost, degrade=degrade)
        return (y.clamp(-1, 1) if self.kind == "image" else y).view(x.shape)

    def score(self, x: Tensor, *, batch_size: int = 512) -> Score:
        """Residual and energy of every x, (N, *sample_shape) or a single sample_shape: 0 on data."""
        batch = self._as_batch(x)
        projected = self._map(batch, 1, batch_size)
        distance = residual(batch, projected)
        return Score(
            distance,
            distance.square(),
            normalised_residual(batch, projected),
            multiscale_residual(batch, projected).float(),
        )

    def log_density(
        self,
        x: Tensor,
        temperature: float,
        *,
        bounds: Sequence[tuple[float, float]] | None = None,
        batch_size: int = 8192,
    ) -> Tensor:
        """log p(x) = -E(x)/T - log Z for p proportional to exp(-E/T), E = |f(x) - x|^2; (N,), in nats.

        In one and two dimensions Z is the integral over a box, by the midpoint rule with cells of at most
        sqrt(T)/4 a side; it is kept for the next call with the same T and box. In higher dimensions Z is out of
        reach and left out: the answer is -E(x)/T, known up to a constant only.

        Args:
            x: (N, *sample_shape) or a single sample_shape.
            temperature: T > 0, in squared units of the data.
            bounds: (lowest, highest) of each coordinate. Default: the box of 4096 samples, widened by
                6 sqrt(T) and a tenth of its size; as long as f maps into the box of the samples, what lies
                beyond has a density below exp(-36)/Z.

        Raises:
            ValueError: T is not positive, or bounds do not fit.
        """
        if not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"temperature: expected a positive number, got {temperature}")
        log_density = -self.score(x, batch_size=batch_size).energy.double() / temperature
        dimension = math.prod(self.sample_shape)
        if dimension > 2:
            if bounds is not None:
                raise ValueError(f"bounds: the density of {dimension} dimensions is not normalised")
            return log_density.float()
        box = self._box(temperature) if bounds is None else _checked_bounds(bounds, dimension)
        key = (float(temperature), tuple(box))
        if key not in self._log_partition:
            self._log_partition[key] = self._integrate(temperature, box, batch_size)
        return (log_density - self._log_partition[key]).float()

    def _box(self, temperature: float) -> list[tuple[float, float]]:
        samples = self.sample(4096).flatten(1).double()
        low, high = samples.amin(dim=0), samples.amax(dim=0)
        margin = 6 * math.sqrt(temperature) + 0.1 * (high - low)
        return list(zip((low - margin).tolist(), (high + margin).tolist(), strict=True))

    def _integrate(self, temperature: float, box: list[tuple[float, float]], batch_size: int) -> float:
        """log of the integral of exp(-E/T) over the box."""
        most = 1 << 16 if len(box) == 1 else 1 << 10
        cell = math.sqrt(temperature) / 4
        grid = Grid.over(box, [min(max(256, math.ceil((high - low) / cell)), most) for low, high in box])
        points = grid.points.float().view(-1, *self.sample_shape)
        energy = self.score(points, batch_size=batch_size).energy.double()
        return log_partition(energy, temperature, grid)

    def _as_batch(self, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor):
            raise TypeError(f"x: expected a torch.Tensor, got {type(x).__name__}; use torch.as_tensor(x)")
        if not x.is_floating_point():
            raise TypeError(
                f"x: expected floating values, images in [-1, 1], got {x.dtype}; use x.float() / 127.5 - 1"
            )
        if tuple(x.shape) == self.sample_shape:
            return x[None]
        if tuple(x.shape[1:]) != self.sample_shape:
            shape = ", ".join(map(str, self.sample_shape))
            raise ValueError(f"x: expected shape (N, {shape}) or ({shape}), got {tuple(x.shape)}")
        return x

    def _map(self, x: Tensor, steps: int, batch_size: int) -> Tensor:
        y = apply(self.f, x.to(self.device, torch.float32), steps=steps, batch_size=batch_size)
        return y.to(x.device).float()

    def _save_pretrained(self, save_directory: Path) -> None:
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.f.state_dict().items()}
        save_file(tensors, str(Path(save_directory) / WEIGHTS_FILE), metadata={"format": "pt"})

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        **model_kwargs: Any,
    ) -> "Projector":
        if Path(model_id).is_dir():
            file = Path(model_id) / WEIGHTS_FILE
        else:
            file = Path(
                hf_hub_download(
                    repo_id=model_id,
                    filename=WEIGHTS_FILE,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                )
            )
        missing = [name for name in ("architecture", "sample_shape") if name not in model_kwargs]
        if missing:
            raise CheckpointError(f"{model_id}: {CONFIG_FILE} is missing or lacks {', '.join(missing)}")
        with torch.random.fork_rng(devices=[]):
            projector = cls(**model_kwargs)
        try:
            projector.f.load_state_dict(load_file(file))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise CheckpointError(f"{model_id}: {WEIGHTS_FILE} cannot be used: {error}") from None
        return projector.eval()


def is_pretrained_folder(path: str | Path) -> bool:
    """True for a folder that save_pretrained wrote."""
    try:
        config = json.loads((Path(path) / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "architecture" in config


def _checked_lost(lost: Tensor, x: Tensor) -> Tensor:
    if lost.dtype != torch.bool:
        raise TypeError(f"lost: expected torch.bool, got {lost.dtype}; use lost.bool()")
    try:
        return lost.to(x.device).expand(x.shape)
    except RuntimeError:
        shapes = f"{tuple(x.shape)}, got {tuple(lost.shape)}"
        raise ValueError(f"lost: expected a shape that broadcasts to {shapes}") from None


def _checked_bounds(bounds: Sequence[tuple[float, float]], dimension: int) -> list[tuple[float, float]]:
    box = [(float(low), float(high)) for low, high in bounds]
    if len(box) != dimension or any(not low < high for low, high in box):
        raise ValueError(f"bounds: expected {dimension} pairs (lowest, highest), got {list(bounds)}")
    return box
