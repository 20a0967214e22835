"""Features in which images are compared: a small classifier's last hidden layer, where there are labels."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from naign_ext.metrics.rows import as_rows, generator

_BATCH = 1024


@dataclass(frozen=True)
class Classifier:
    """A small convolutional classifier, trained with noise on its input so that it bears imperfect images.

    A yardstick for one data set, not a published network: figures in its features compare models trained on the
    same data and judged with the same seed, not across papers.
    """

    body: nn.Module
    head: nn.Module
    classes: int

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


def fit_classifier(images: Tensor, labels: Tensor, *, seed: int = 0, steps: int = 800) -> Classifier:
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
    channels, height, width = images.shape[1:]
    flat = 32 * -(-height // 4) * -(-width // 4)
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(seed)
        body = nn.Sequential(
            nn.Conv2d(channels, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(flat, 64),
            nn.ReLU(),
        )
        head = nn.Linear(64, classes)
        network = nn.Sequential(body, head).to(images.device)
        _train(network, images.detach().float().clone(), labels.to(images.device), seed, steps)
    return Classifier(body.eval().requires_grad_(False), head.eval().requires_grad_(False), classes)


def _train(network: nn.Module, images: Tensor, labels: Tensor, seed: int, steps: int) -> None:
    rng = generator(seed)
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
