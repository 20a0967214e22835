"""A small classifier for one labelled data set: trained once, kept on disk, judged on held-out images."""

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from naign_ext.data.dataset import Dataset, tensor_sha256
from naign_ext.data.registry import default_data_root
from naign_ext.evaluation.rows import as_rows, cpu_generator
from naign_ext.models.described import not_finite
from naign_ext.untrusted import FileTooLargeError, read_regular_file

_BATCH = 1024
_LARGEST_HEADER = 1 << 16
"""Bytes of a kept classifier's file beside its weights."""
_STEPS = 800
# Part of the file's name: another network or another way to train it must have another number.
_RECIPE = 1


@dataclass(frozen=True)
class Classifier:
    """A small convolutional classifier, trained with noise on its input so that it bears imperfect images.

    A judge for one data set, not a published network: metrics in its features compare models trained on the
    same data and judged with the same seed, not across papers.
    """

    body: nn.Module
    head: nn.Module
    classes: int

    def to(self, device: torch.device) -> "Classifier":
        """The same classifier, its networks moved to the device."""
        return Classifier(self.body.to(device), self.head.to(device), self.classes)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """(N, 64), the last hidden layer, of images (N, C, H, W)."""
        as_rows("images", images)
        return torch.cat([self.body(part.float()) for part in torch.split(images, _BATCH)])

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """(N, classes)."""
        logits: Tensor = self.head(self.features(images))
        return logits.softmax(dim=1)

    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """Share of images whose most probable class is the label, in [0, 1]."""
        return float((self.probabilities(images).argmax(dim=1) == labels.to(images.device)).float().mean())


def fit_classifier(images: Tensor, labels: Tensor, *, seed: int = 0, steps: int = _STEPS) -> Classifier:
    """Train a classifier on images (N, C, H, W) and labels (N,) int64; the same seed gives the same features.

    AdamW, batch 128, one-cycle rate up to 3e-3, Gaussian input noise of deviation up to 0.3 of the data's own.

    Raises:
        ValueError: not images, labels do not fit them, or name fewer than two classes.
    """
    as_rows("images", images, at_least=2)
    if images.dim() != 4:
        raise ValueError(f"images: expected (N, C, H, W), got {tuple(images.shape)}")
    if labels.shape != (len(images),) or labels.is_floating_point():
        raise ValueError(f"labels: expected int64 ({len(images)},), got {labels.dtype} {tuple(labels.shape)}")
    classes = int(labels.max()) + 1
    if int(labels.min()) < 0 or classes < 2:
        raise ValueError(
            f"labels: expected classes 0, 1, ..., got {int(labels.min())} to {int(labels.max())}"
        )
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        # The CPU's alone: torch.manual_seed would seed those of GPUs too, which are nobody's here.
        torch.default_generator.manual_seed(seed)
        network = _build(tuple(images.shape[1:]), classes).to(images.device)
        _train(network, images.detach().float().clone(), labels.to(images.device), seed, steps)
    return _frozen(network, classes)


def _build(shape: tuple[int, ...], classes: int) -> nn.Sequential:
    channels, height, width = shape
    flat = 32 * -(-height // 4) * -(-width // 4)
    body = nn.Sequential(
        nn.Conv2d(channels, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(flat, 64),
        nn.ReLU(),
    )
    return nn.Sequential(body, nn.Linear(64, classes))


def _frozen(network: nn.Sequential, classes: int) -> Classifier:
    network = network.eval().requires_grad_(False)
    return Classifier(network[0], network[1], classes)


def cache_folder() -> Path:
    """Where classifiers are kept: $NAIGN_CACHE, else the folder classifiers beside downloaded data sets."""
    chosen = os.environ.get("NAIGN_CACHE")
    return Path(chosen).expanduser() if chosen else default_data_root() / "classifiers"


def dataset_classifier(dataset: Dataset, folder: Path | None = None) -> tuple[Classifier, float | None]:
    """The classifier of a labelled image data set, and its accuracy on held-out images (None without them).

    Trained on the CPU with seed 0 whatever is judged, then kept as NAME-HASH.safetensors in the folder, by
    default :func:`cache_folder`; the hash covers images, labels and recipe. A folder that cannot be written
    to costs only the time of training it again.

    Raises:
        ValueError: the data set has no images or no labels.
    """
    images, labels = dataset.train.cpu(), dataset.train_labels
    if dataset.kind != "image" or labels is None:
        raise ValueError(f"dataset: expected images with labels, got {dataset.name!r} without")
    labels = labels.cpu()
    file = _cached_file(dataset.name, images, labels, cache_folder() if folder is None else folder)
    kept = _read(file, tuple(images.shape[1:]), int(labels.max()) + 1)
    classifier = fit_classifier(images, labels) if kept is None else kept
    accuracy = None
    if dataset.heldout_labels is not None and len(dataset.heldout) > 0:
        accuracy = classifier.accuracy(dataset.heldout.cpu(), dataset.heldout_labels)
    if kept is None:
        _write(file, classifier, accuracy)
    return classifier, accuracy


def _cached_file(name: str, images: Tensor, labels: Tensor, folder: Path) -> Path:
    facts = [tensor_sha256(images), tensor_sha256(labels), list(images.shape), _STEPS, _RECIPE]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    safe = "".join(c if c.isalnum() else "-" for c in name)[:40]
    return folder / f"{safe}-{digest}.safetensors"


def _read(file: Path, shape: tuple[int, ...], classes: int) -> Classifier | None:
    from safetensors import SafetensorError
    from safetensors.torch import load

    network = _build_quietly(shape, classes)
    weights = sum(tensor.nbytes for tensor in network.state_dict().values())
    try:
        tensors = load(read_regular_file(file, weights + _LARGEST_HEADER))
        network.load_state_dict(tensors)
    except (OSError, FileTooLargeError, SafetensorError, RuntimeError):
        return None
    if not_finite(tensors):
        return None
    return _frozen(network, classes)


def _build_quietly(shape: tuple[int, ...], classes: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        return _build(shape, classes)


def _write(file: Path, classifier: Classifier, accuracy: float | None) -> None:
    """Complete or not at all, so that runs at the same time can share the folder."""
    from safetensors.torch import save_file

    network = nn.Sequential(classifier.body, classifier.head)
    facts = {"accuracy_heldout": str(accuracy), "classes": str(classifier.classes), "recipe": str(_RECIPE)}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
            save_file(network.state_dict(), Path(scratch) / file.name, metadata=facts)
            (Path(scratch) / file.name).replace(file)
    except OSError:
        return


def _train(network: nn.Module, images: Tensor, labels: Tensor, seed: int, steps: int) -> None:
    rng = cpu_generator(seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps)
    noise = 0.3 * float(images.std())
    for _ in range(steps):
        chosen = torch.randint(len(images), (min(128, len(images)),), generator=rng)
        disturbance = torch.randn(len(chosen), *images.shape[1:], generator=rng)
        disturbance *= noise * torch.rand(len(chosen), 1, 1, 1, generator=rng)
        batch = images[chosen.to(images.device)] + disturbance.to(images.device)
        loss = nn.functional.cross_entropy(network(batch), labels[chosen.to(images.device)])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()


def class_coverage(probabilities: Tensor, *, min_share: float = 0.1) -> int:
    """Number of classes that hold at least min_share of their fair share of the samples, and one at the
    least.

    Args:
        probabilities: (M, classes) of the samples; each counts for its most probable class.
    """
    count, classes = probabilities.shape
    held = torch.bincount(probabilities.argmax(dim=1), minlength=classes)
    return int((held >= max(1.0, min_share * count / classes)).sum())
