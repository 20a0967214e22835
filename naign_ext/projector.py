"""A trained f as its user meets it: sample, project, restore, score, log_density."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import ModelHubMixin, hf_hub_download
from safetensors.torch import save_file
from torch import Tensor, nn

from naign_ext.checkpoint import CheckpointError, Which, load_checkpoint
from naign_ext.devices import choose_device
from naign_ext.evaluation.density import Grid, log_partition
from naign_ext.evaluation.projection import apply, multiscale_residual, normalised_residual, residual
from naign_ext.evaluation.restoring import Choice, Corruption, Known, Recipe, choose
from naign_ext.latents import LatentPool
from naign_ext.memory import available_bytes
from naign_ext.models import build_model
from naign_ext.models.described import not_finite
from naign_ext.pretrained import (
    CONFIG_BYTES,
    CONFIG_FILE,
    WEIGHTS_FILE,
    damaged,
    expected_tensors,
    is_pretrained_folder,
    json_able,
    plain_scale,
    plain_sizes,
    read_config,
    read_weights,
)

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
    torch module in evaluation mode: ``projector(x)`` is f(x), with gradient; the methods work without. They take
    inputs of any floating dtype to f's own, which ``half()``, ``bfloat16()`` and ``double()`` change, and answer in
    float32.

    Args:
        architecture, sample_shape, options: as build_model takes them.
        latent_scale: standard deviation of the latents f was trained on, finite and > 0.
        about: JSON-able facts to keep beside the weights, such as data set, objective and steps.

    Numbers may be numpy's or tensors without dimensions; all are kept as plain ones.

    Raises:
        TypeError, ValueError: an argument is no number, or nothing that JSON can hold; the text names it.
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
        self.architecture = architecture
        self.sample_shape = plain_sizes(sample_shape)
        self.options = json_able(options or {}, "options")
        self.latent_scale = plain_scale(latent_scale)
        self.about = json_able(about or {}, "about")
        self.f = build_model(architecture, self.sample_shape, **self.options)
        self._hub_mixin_config = self._config()
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
            CheckpointError (a ValueError): nothing there, damaged or foreign, or weights that are not finite.
        """
        target = choose_device(device)
        folder = Path(run)
        if is_pretrained_folder(folder):
            return cls.from_pretrained(folder).to(target)
        if weights not in ("ema", "model"):
            raise ValueError(f"weights: expected 'ema' or 'model', got {weights!r}")
        found = load_checkpoint(folder, checkpoint)
        f, config = found.build(weights), found.config
        if name := not_finite(f.state_dict()):
            raise CheckpointError(
                f"{found.path}: damaged: {weights}.safetensors: {name} has values that are not finite"
            )
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

    @property
    def dtype(self) -> torch.dtype:
        """What f computes in: float32, or what ``half()``, ``bfloat16()`` or ``double()`` made of it."""
        return next(p.dtype for p in self.f.parameters() if p.is_floating_point())

    def forward(self, x: Tensor) -> Tensor:
        """f(x), on f's device, with gradient."""
        y: Tensor = self.f(x)
        return y

    def sample(self, n: int, seed: int = 0, steps: int = 1, *, batch_size: int = 512) -> Tensor:
        """n samples f^steps(z), float32 (n, *sample_shape), for latents z that depend on the seed alone.

        steps: f applied so often; 2 is often sharper, 0 gives the latents.

        Raises:
            ValueError: n samples would take more memory than there is.
        """
        if n < 1:
            raise ValueError(f"n: expected at least 1 sample, got {n}")
        _check_batch_size(batch_size)
        _check_fits(n, self.sample_shape)
        samples = torch.empty(n, *self.sample_shape, dtype=torch.float32)
        batches = self.sample_batches(n, seed, steps, batch_size=batch_size)
        for start, batch in zip(range(0, n, batch_size), batches, strict=True):
            samples[start : start + batch_size] = batch
        return samples

    def sample_batches(
        self, n: int, seed: int = 0, steps: int = 1, *, batch_size: int = 512
    ) -> Iterator[Tensor]:
        """The samples of :meth:`sample`, bit for bit, batch_size at a time: any number in bounded memory."""
        if n < 1:
            raise ValueError(f"n: expected at least 1 sample, got {n}")
        _check_batch_size(batch_size)
        pool = LatentPool(self.sample_shape, self.latent_scale, seed)
        for start in range(0, n, batch_size):
            yield self._map(pool.chunk(start, min(start + batch_size, n)), steps, batch_size)

    def project(self, x: Tensor, steps: int = 1, *, batch_size: int = 512) -> Tensor:
        """f^steps(x), float32 of x's shape; x is (N, *sample_shape) or a single sample_shape."""
        batch = self._as_batch(x)
        return self._map(batch, steps, batch_size).view(x.shape)

    def restore(
        self,
        x: Tensor,
        steps: int = 1,
        *,
        lost: Tensor | None = None,
        degrade: Callable[[Tensor], Tensor] | None = None,
        recipe: Recipe | None = None,
        batch_size: int = 512,
    ) -> Tensor:
        """The data point nearest to a corrupted x, as f finds it, float32: images come back clipped to [-1, 1].

        Args:
            x: (N, *sample_shape) or a single sample_shape.
            lost: bool, broadcastable to x, True where x's value is missing; all others keep x's value after
                every step. None: everything may change.
            degrade: the linear map that made x, of (N, *sample_shape) to the same, such as
                ``partial(naign_ext.transforms.degrade, kind="blur", strength=1.0)``: after every step, what it lets
                pass is taken from x (:func:`naign_ext.transforms.keep_known`). Not together with lost.
            recipe: for images, in place of steps: also over which shifts and flips f is averaged, and how much of it
                is taken; :meth:`choose_recipe` finds the best for a corruption.
        """
        batch = self._as_batch(x).float()
        if lost is not None:
            if degrade is not None:
                raise ValueError("degrade: expected None where lost is given, got both")
            lost = _checked_lost(lost, x).reshape(batch.shape)
        if steps < 0:
            raise ValueError(f"steps: expected 0 or more, got {steps}")
        if recipe is not None and self.kind != "image":
            raise ValueError("recipe: expected None for vectors, which have no shifts or flips; use steps")
        chosen = Recipe(steps=steps) if recipe is None else recipe
        y = chosen.apply(lambda part: self._map(part, 1, batch_size), batch, Known(lost, degrade))
        return (y.clamp(-1, 1) if self.kind == "image" else y).view(x.shape)

    def choose_recipe(
        self,
        validation: Tensor,
        kind: str,
        strength: float | None = None,
        *,
        keep_known: bool = True,
        seed: int = 0,
        batch_size: int = 512,
    ) -> Choice:
        """How f restores images best that are corrupted in a known way, found on images that f was not trained on.

        Args:
            validation: (n, C, H, W); those of a run are ``Run.open(path).dataset.for_validation().heldout``.
            kind, strength, seed: as :func:`naign_ext.transforms.corrupt` takes them.
            keep_known: the images will be restored with ``lost`` or ``degrade`` given, where the kind has them.

        Returns:
            the recipe for :meth:`restore`, and what it gains; where f cannot help, one that leaves images as they are.
        """
        if self.kind != "image":
            raise ValueError("choose_recipe: expected a projector of images, this one is of vectors")
        return choose(
            lambda part: self._map(part, 1, batch_size),
            self._as_batch(validation).float(),
            Corruption(kind, strength, known=keep_known),
            seed,
        )

    def score(self, x: Tensor, *, batch_size: int = 512) -> Score:
        """Residual and energy of every x, (N, *sample_shape) or a single sample_shape: 0 on data.

        x is taken to f's dtype first; the difference is measured in float32, of a double f in float64.
        """
        batch = self._as_batch(x).to(self.dtype)
        wide = torch.promote_types(self.dtype, torch.float32)
        projected = self._answers(batch, 1, batch_size).to(wide)
        batch = batch.to(wide)
        distance = residual(batch, projected)
        return Score(
            distance.float(),
            distance.square().float(),
            normalised_residual(batch, projected).float(),
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
        """f^steps(x) in float32, where x lies."""
        return x.float() if steps == 0 else self._answers(x, steps, batch_size).float()

    def _answers(self, x: Tensor, steps: int, batch_size: int) -> Tensor:
        """f^steps(x) in f's dtype, where x lies."""
        _check_batch_size(batch_size)
        return apply(self.f, x.to(self.device, self.dtype), steps=steps, batch_size=batch_size).to(x.device)

    def _config(self) -> dict[str, Any]:
        """What config.json holds: the arguments of the constructor."""
        return {
            "architecture": self.architecture,
            "sample_shape": list(plain_sizes(self.sample_shape)),
            "options": self.options,
            "latent_scale": plain_scale(self.latent_scale),
            "about": json_able(self.about, "about"),
        }

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Write model.safetensors, config.json and README.md into a folder, for from_pretrained.

        options: those of huggingface_hub's ModelHubMixin.save_pretrained.

        Raises:
            TypeError, ValueError: about or latent_scale is nothing that config.json can hold, or a weight is not
                finite; the text names it, and what lies in the folder is left as it was.
        """
        self._hub_mixin_config = self._config()
        if len(json.dumps(self._hub_mixin_config, indent=2)) > CONFIG_BYTES:
            raise ValueError(f"about: expected facts that fit into a {CONFIG_FILE} of {CONFIG_BYTES} bytes")
        if name := not_finite(self.f.state_dict()):
            raise ValueError(f"f: expected finite weights, {name} has others; nothing is saved")
        saved: str | None = super().save_pretrained(save_directory, **options)
        return saved

    def _save_pretrained(self, save_directory: Path) -> None:
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.f.state_dict().items()}
        save_file(tensors, str(Path(save_directory) / WEIGHTS_FILE), metadata={"format": "pt"})

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **model_kwargs: Any,
    ) -> "Projector":
        """What save_pretrained wrote, on the CPU, in the dtype it was saved in.

        Nothing in the folder is trusted: config.json is checked field by field, and the header of the weights
        against the network it describes, before memory is taken for either.

        Args:
            pretrained_model_name_or_path: a folder, or a repository of the Hugging Face Hub.
            force_download, token, cache_dir, local_files_only, revision: as hf_hub_download takes them.
            model_kwargs: arguments of the constructor that replace those of config.json.

        Raises:
            CheckpointError (a ValueError): "damaged: FILE: ..." says which file, what was expected and what came.
        """
        where = str(pretrained_model_name_or_path)

        def find(name: str) -> Path:
            if Path(where).is_dir():
                return Path(where) / name
            found = hf_hub_download(
                repo_id=where,
                filename=name,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
            )
            return Path(found)

        arguments = {**read_config(find(CONFIG_FILE), where), **model_kwargs}
        file = find(WEIGHTS_FILE)
        tensors = read_weights(file, where, expected_tensors(arguments, where))
        with torch.random.fork_rng(devices=[]):
            projector = cls(**arguments)
        try:
            projector.f.load_state_dict(tensors, assign=True)
        except RuntimeError as error:
            text = " ".join(str(error).split())
            raise damaged(where, WEIGHTS_FILE, f" cannot be used: {text}") from None
        return projector.eval()


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size: expected 1 or more, got {batch_size}")


def _check_fits(n: int, sample_shape: Sequence[int]) -> None:
    """ValueError where n float32 samples take more memory than there is."""
    needed, free = 4 * n * math.prod(sample_shape), available_bytes()
    if needed > free:
        raise ValueError(
            f"n: {n} samples take {needed} bytes, of which {free} are free; "
            "take them in parts from sample_batches"
        )


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
