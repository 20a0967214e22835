"""Every figure that fits a data set, for one network f, with the trivial anchors to judge them by."""

import contextlib
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from naign_ext.data.corruptions import corrupt, gaussian_blur
from naign_ext.data.dataset import Dataset
from naign_ext.metrics import anchors, coverage, distances, ood, projection
from naign_ext.metrics.correlation import spearman
from naign_ext.metrics.features import Classifier, class_coverage, fit_classifier
from naign_ext.metrics.fld import FldScorer
from naign_ext.metrics.image_quality import psnr, ssim
from naign_ext.metrics.rows import generator, subset

Part = Literal["projection", "samples", "ood", "restoration", "anchors"]
PARTS: tuple[Part, ...] = get_args(Part)
RESTORATIONS: tuple[tuple[str, str, float | None], ...] = (
    ("noise_0.5", "noise", 0.5),
    ("noise_1.0", "noise", 1.0),
    ("mask", "mask", None),
    ("blur", "blur", None),
    ("downsample", "downsample", None),
)
NEIGHBOURS = 5
MOST_RESTORED = 500
MOST_COMPARED = 2000
STEADY_BASELINE = 1000
# JSON has no infinity; equal 8 bit images are beyond 100 dB in any sense that matters.
HIGHEST_PSNR = 100.0

Map = Callable[[Tensor], Tensor]
Figures = dict[str, float]


def evaluate(
    f: Map,
    dataset: Dataset,
    *,
    seed: int = 0,
    samples: int | None = None,
    latent_scale: float = 1.0,
    batch_size: int = 512,
    device: torch.device | str | None = None,
    parts: Collection[Part] = PARTS,
) -> dict[str, float]:
    """Judge f on a data set; :func:`naign_ext.metrics.describe` says what each key means.

    The same seed gives the same figures. Keys ending in _twice are for f(f(z)); keys anchor_FIGURE_BASELINE
    are what something without a network scores. Figures that a data set cannot have (modes of photographs,
    FLD without held-out data) are absent.

    Args:
        f: maps (B, *dataset.sample_shape) to the same shape. A module is put into eval mode meanwhile.
        dataset: as load_dataset returns it.
        samples: number of latents; default the training set's size, within 1000 and 2000.
        latent_scale: deviation of the latents, z ~ N(0, latent_scale^2 I).
        batch_size: rows that f sees at a time.
        device: where to compute; default the device of f's parameters, else the data's.
        parts: which groups of figures, of projection, samples, ood, restoration, anchors.

    Raises:
        ValueError: an unknown part, or f changes the shape or answers NaN or Inf.
    """
    unknown = set(parts) - set(PARTS)
    if unknown:
        raise ValueError(f"parts: expected some of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    with _eval_mode(f), torch.no_grad():
        judge = Judge.prepare(
            f,
            dataset,
            seed=seed,
            samples=samples,
            latent_scale=latent_scale,
            batch_size=batch_size,
            device=_device_of(f, dataset, device),
        )
        found: Figures = {}
        if "projection" in parts:
            found |= judge.projection()
        if "samples" in parts:
            found |= judge.samples()
        if "ood" in parts:
            found |= judge.out_of_distribution()
        if "restoration" in parts and dataset.kind == "image" and len(dataset.heldout) > 0:
            found |= judge.restoration()
        if "anchors" in parts:
            found |= judge.anchors(parts)
    return found


@contextlib.contextmanager
def _eval_mode(f: Map) -> Iterator[None]:
    training = [m for m in f.modules() if m.training] if isinstance(f, nn.Module) else []
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _device_of(f: Map, dataset: Dataset, device: torch.device | str | None) -> torch.device:
    if device is not None:
        return torch.device(device)
    parameter = next(f.parameters(), None) if isinstance(f, nn.Module) else None
    return dataset.train.device if parameter is None else parameter.device


@dataclass
class Judge:
    """One network's outputs on one data set, computed once and shared by all figures."""

    f: Map
    dataset: Dataset
    seed: int
    batch_size: int
    train: Tensor
    heldout: Tensor
    latents: Tensor
    once: Tensor
    twice: Tensor
    _classifier: Classifier | None = field(default=None, repr=False)
    _fld: FldScorer | None = field(default=None, repr=False)

    @classmethod
    def prepare(
        cls,
        f: Map,
        dataset: Dataset,
        *,
        seed: int,
        samples: int | None,
        latent_scale: float,
        batch_size: int,
        device: torch.device,
    ) -> "Judge":
        """Draw the latents and apply f once and twice."""
        count = min(max(len(dataset.train), 1000), 2000) if samples is None else samples
        if count < NEIGHBOURS + 1:
            raise ValueError(f"samples: expected at least {NEIGHBOURS + 1}, got {count}")
        noise = torch.randn(count, *dataset.sample_shape, generator=generator(seed))
        latents = (latent_scale * noise).to(device)
        once = projection.apply(f, latents, batch_size=batch_size)
        twice = projection.apply(f, once, batch_size=batch_size)
        for name, values in (("f(z)", once), ("f(f(z))", twice)):
            if not bool(values.isfinite().all()):
                bad = int((~values.isfinite().flatten(1).all(dim=1)).sum())
                raise ValueError(f"f: expected finite answers, got NaN or Inf in {bad} of {count} {name}")
        train, heldout = dataset.train.to(device), dataset.heldout.to(device)
        return cls(f, dataset, seed, batch_size, train, heldout, latents, once.float(), twice.float())

    def apply(self, x: Tensor) -> Tensor:
        """f(x), float32, in batches."""
        return projection.apply(self.f, x, batch_size=self.batch_size).float()

    @property
    def classifier(self) -> Classifier | None:
        """The yardstick network, where the data have labels; trained on first use."""
        labels = self.dataset.train_labels if self.dataset.kind == "image" else None
        if self._classifier is None and labels is not None:
            self._classifier = fit_classifier(self.train, labels, seed=self.seed)
        return self._classifier

    def features(self, x: Tensor) -> Tensor:
        """What FLD, precision and recall compare: the classifier's features, else the numbers themselves."""
        return x.flatten(1) if self.classifier is None else self.classifier.features(x)

    def projection(self) -> Figures:
        """Is f a projector, and not the identity?"""
        found = {"fixed_point_train": projection.mean_square(self.apply(self.train) - self.train)}
        if len(self.heldout) > 0:
            found["fixed_point_heldout"] = projection.mean_square(self.apply(self.heldout) - self.heldout)
        found["idempotence"] = projection.mean_square(self.twice - self.once)
        found["non_identity"] = projection.mean_square(self.once - self.latents)
        return found

    def samples(self) -> Figures:
        """Quality and coverage of f(z) and of f(f(z))."""
        found: Figures = {"samples": float(len(self.once))}
        if self.dataset.modes is not None:
            found["modes_total"] = float(len(self.dataset.modes))
        if self.classifier is not None:
            found["classes_total"] = float(self.classifier.classes)
        found |= self.judge_samples(self.once)
        return found | {f"{key}_twice": value for key, value in self.judge_samples(self.twice).items()}

    def judge_samples(self, y: Tensor) -> Figures:
        """All figures of one set of samples, on the scale of a vector or of an image data set."""
        return self._judge_images(y) if self.dataset.kind == "image" else self._judge_vectors(y)

    def _judge_vectors(self, y: Tensor) -> Figures:
        found: Figures = {}
        dataset = self.dataset
        if dataset.modes is not None and dataset.mode_std is not None:
            radius = 3.0 if dataset.modes.shape[1] == 1 else 4.0
            modes = dataset.modes.to(y.device)
            of_modes = coverage.mode_coverage(y, modes, dataset.mode_std, sigmas=radius)
            found |= {"modes": float(of_modes.covered), "high_quality": of_modes.high_quality}
        elif dataset.support_distance is not None:
            found["high_quality"] = float((dataset.support_distance(y.cpu()) <= self._near()).float().mean())
        truth = self._truth(len(y), 0)
        if len(truth) > 0:
            found["energy_distance"] = distances.energy_distance(y, truth, seed=self.seed)
            found["w2"] = distances.wasserstein2(y, truth, seed=self.seed)
            found["sliced_w2"] = distances.sliced_wasserstein2(y, truth, seed=self.seed)
        found["train_coverage"] = coverage.train_coverage(self.train, y)
        return found

    def _near(self) -> float:
        """3 sigma of the noise about the support; a fixed sliver where there is no noise."""
        return 3 * self.dataset.noise_std if self.dataset.noise_std else 0.05

    def _truth(self, count: int, draw: int) -> Tensor:
        """Fresh true rows where the distribution is known, else the held-out ones."""
        if self.dataset.sample_truth is None:
            return self.heldout
        return self.dataset.sample_truth(count, self.seed + 7919 * (draw + 1)).to(self.train.device)

    def _judge_images(self, y: Tensor) -> Figures:
        found: Figures = {}
        if self.classifier is not None:
            certain = self.classifier.probabilities(y)
            found["classes"] = float(class_coverage(certain))
            found["confident"] = float((certain.amax(dim=1) > 0.9).float().mean())
        if self.fld is not None:
            found["fld_pixels" if self.classifier is None else "fld_features"] = self.fld(self.features(y))
        found["train_coverage"] = coverage.train_coverage(self.train, y)
        if len(self.train) > NEIGHBOURS:
            real = self.features(subset(self.train, MOST_COMPARED, self.seed))
            of_balls = coverage.prdc(real, self.features(subset(y, MOST_COMPARED, self.seed)), k=NEIGHBOURS)
            found |= {
                "precision": of_balls.precision,
                "recall": of_balls.recall,
                "density": of_balls.density,
                "coverage": of_balls.coverage,
            }
        if len(self.train) > 1:
            found["authenticity"] = coverage.authenticity(self.train, y)
            variances = [float(t.flatten(1).double().var(dim=0).sum()) for t in (y, self.train)]
            found["variance_ratio"] = variances[0] / variances[1] if variances[1] > 0 else math.nan
        return found

    @property
    def fld(self) -> FldScorer | None:
        """The prepared FLD, where there are enough held-out images that differ."""
        if self._fld is None and min(len(self.train), len(self.heldout)) > 1:
            train, heldout = self.features(self.train), self.features(self.heldout)
            if float(heldout.std(dim=0).amax()) > 0:
                splits = 4 if len(train) < STEADY_BASELINE else 1
                self._fld = FldScorer(train, heldout, seed=self.seed, size=len(self.once), splits=splits)
        return self._fld

    def out_of_distribution(self) -> Figures:
        """Does |f(x) - x| tell data from what is not, and grow with the distance from the data?"""
        found: Figures = {}
        if self.dataset.ood is not None and len(self.heldout) > 0:
            inside, outside = self.heldout, self.dataset.ood.to(self.train.device)
            images = [(x, self.apply(x)) for x in (inside, outside)]
            found["ood_auroc"] = ood.auroc(*(projection.residual(x, y) for x, y in images))
            if self.dataset.kind == "image":
                scores = (projection.normalised_residual(x, y) for x, y in images)
                found["ood_auroc_normalised"] = ood.auroc(*scores)
        if self.dataset.support_distance is not None:
            found["residual_spearman"] = self._near_field(self.dataset.support_distance)
        return found

    def _near_field(self, support_distance: Callable[[Tensor], Tensor]) -> float:
        """Spearman of residual and true distance over points at most 6 sigma of noise off the support."""
        reach = 2 * self._near()
        rng = generator(self.seed)
        clean = self._truth(2000, 1).cpu()
        spread = reach * torch.rand(len(clean), 1, generator=rng)
        points = clean + spread * torch.randn(clean.shape, generator=rng)
        distance = support_distance(points)
        points, distance = points[distance <= reach], distance[distance <= reach]
        x = points.to(self.train.device)
        return spearman(projection.residual(x, self.apply(x)).cpu(), distance)

    def restoration(self) -> Figures:
        """Corrupted held-out images before and after f, for each corruption."""
        found: Figures = {}
        clean = subset(self.heldout, MOST_RESTORED, self.seed)
        for name, kind, strength in RESTORATIONS:
            corrupted, mask = corrupt(clean, kind, seed=self.seed, strength=strength)
            restored = self.apply(corrupted)
            found |= _prefixed(f"restore_{name}", compare(clean, corrupted, restored))
            if mask is not None:
                kept = torch.where(mask, restored, corrupted)
                found |= _prefixed("restore_inpaint", compare(clean, corrupted, kept))
        return found | self._recognition()

    def _recognition(self) -> Figures:
        """A classifier's accuracy on strongly noisy held-out images, before and after f."""
        if self.classifier is None or self.dataset.heldout_labels is None:
            return {}
        noisy = corrupt(self.heldout, "noise", seed=self.seed, strength=1.0)[0]
        labels = self.dataset.heldout_labels
        return {
            "restore_noise_1.0_accuracy_before": self.classifier.accuracy(noisy, labels),
            "restore_noise_1.0_accuracy_after": self.classifier.accuracy(self.apply(noisy), labels),
        }

    def anchors(self, parts: Collection[Part]) -> Figures:
        """What the same figures are for samplers, scores and filters without a network."""
        found: Figures = {}
        if "samples" in parts:
            found |= self._sample_anchors()
        if "ood" in parts and self.dataset.ood is not None and len(self.heldout) > 0:
            outside = self.dataset.ood.to(self.train.device)
            scores = (ood.nearest_distance(self.train, x) for x in (self.heldout, outside))
            found["anchor_ood_auroc_nearest"] = ood.auroc(*scores)
            if self.dataset.kind == "image":
                flat = (ood.inverse_variance(x) for x in (self.heldout, outside))
                found["anchor_ood_auroc_variance"] = ood.auroc(*flat)
        if "restoration" in parts and self.dataset.kind == "image" and len(self.heldout) > 0:
            found |= self._filter_anchors()
        return found

    def _sample_anchors(self) -> Figures:
        count = len(self.once)
        components = self.train[0].numel() if self.dataset.kind == "vector" else 8
        gaussian = anchors.pca_gaussian(self.train, count, self.seed + 1, components=components)
        if self.dataset.kind == "vector":
            others = {"prior": self.latents, "gaussian": gaussian, "truth": self._truth(count, 2)}
            wanted = ("high_quality", "energy_distance", "w2", "sliced_w2")
        else:
            others = {"pca": gaussian, "mean": anchors.mean_image(self.train, count), "heldout": self.heldout}
            wanted = ("fld_features", "fld_pixels", "train_coverage", "coverage")
        found: Figures = {}
        for name, rows in others.items():
            if len(rows) > NEIGHBOURS and not (name == "truth" and self.dataset.sample_truth is None):
                figures = self.judge_samples(rows)
                found |= {f"anchor_{k}_{name}": figures[k] for k in wanted if k in figures}
        # Held-out data judged against themselves: their distance is zero by construction.
        for key in ("anchor_fld_features_heldout", "anchor_fld_pixels_heldout"):
            found.pop(key, None)
        return found

    def _filter_anchors(self) -> Figures:
        found: Figures = {}
        clean = subset(self.heldout, MOST_RESTORED, self.seed)
        example = subset(self.train, MOST_RESTORED, self.seed)
        for name, kind, strength in RESTORATIONS:
            spoilt = corrupt(example, kind, seed=self.seed + 1, strength=strength)[0]
            sigma = anchors.best_filter(example, spoilt)
            corrupted = corrupt(clean, kind, seed=self.seed, strength=strength)[0]
            filtered = compare(clean, corrupted, gaussian_blur(corrupted, sigma))
            found[f"restore_{name}_filter_gain"] = filtered["gain"]
        if self.classifier is not None and self.dataset.heldout_labels is not None:
            accuracy = self.classifier.accuracy(self.heldout, self.dataset.heldout_labels)
            found["anchor_accuracy_classifier"] = accuracy
        return found


def _prefixed(prefix: str, figures: Figures) -> Figures:
    return {f"{prefix}_{key}": value for key, value in figures.items()}


def compare(clean: Tensor, corrupted: Tensor, restored: Tensor) -> dict[str, float]:
    """Means over images (N, C, H, W) in [-1, 1] of PSNR (dB, at most 100) and SSIM, before and after.

    gain takes all values as they are, so unclipped noise of deviation s starts at 20 log10(2 / s) dB;
    gain_clipped clips corrupted and restored images to [-1, 1] first, as writing them to a file does.
    """

    def decibel(other: Tensor) -> float:
        return float(psnr(clean, other).clamp(max=HIGHEST_PSNR).mean())

    before, after = decibel(corrupted), decibel(restored)
    found = {"psnr_before": before, "psnr_after": after, "gain": after - before}
    found["gain_clipped"] = decibel(restored.clamp(-1, 1)) - decibel(corrupted.clamp(-1, 1))
    if min(clean.shape[2:]) >= 3:
        found["ssim_before"] = float(ssim(clean, corrupted).mean())
        found["ssim_after"] = float(ssim(clean, restored).mean())
    return found
