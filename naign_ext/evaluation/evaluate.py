"""Every figure that fits a data set, for one network f, with the trivial anchors to judge them by."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from naign_ext.data.dataset import Dataset
from naign_ext.evaluation import baselines, coverage, density, distances, ood, projection
from naign_ext.evaluation.classifier import Classifier, class_coverage, dataset_classifier
from naign_ext.evaluation.features import FeatureSpace, SpaceName, feature_space
from naign_ext.evaluation.fid import fid, kid
from naign_ext.evaluation.field import REACH, field_correlations, noise_of
from naign_ext.evaluation.fld import FldScorer
from naign_ext.evaluation.restoration import filter_gains, restoration
from naign_ext.evaluation.rows import as_rows, generator, subset
from naign_ext.transforms.corruptions import corrupt, gaussian_blur

Part = Literal["projection", "samples", "ood", "likelihood", "restoration", "anchors"]
PARTS: tuple[Part, ...] = get_args(Part)
# Figures of the parts samples and ood that can be asked for by themselves.
SINGLE: dict[str, Part] = {
    **dict.fromkeys(("modes", "high_quality", "classes", "energy_distance", "w2", "sliced_w2"), "samples"),
    **dict.fromkeys(("fld", "fid", "kid", "prdc", "train_coverage", "authenticity"), "samples"),
    **dict.fromkeys(("variance_ratio",), "samples"),
    **dict.fromkeys(("auroc", "distance_field"), "ood"),
}
NEIGHBOURS = 5
MOST_RESTORED = 500
MOST_COMPARED = 2000
STEADY_BASELINE = 1000
BLUR_SIGMA = 0.7
_GRID_CELLS = {1: 8192, 2: 384}

Map = Callable[[Tensor], Tensor]
Figures = dict[str, float]


def default_features(dataset: Dataset) -> SpaceName:
    """The classifier's features where images have labels, else the numbers themselves."""
    return "classifier" if dataset.kind == "image" and dataset.train_labels is not None else "pixels"


def chosen_metrics(parts: Collection[str]) -> frozenset[str]:
    """The parts, with those of SINGLE that they hold.

    Raises:
        ValueError: a name that is neither a part nor in SINGLE.
    """
    unknown = sorted(set(parts) - set(PARTS) - set(SINGLE))
    if unknown:
        known = ", ".join((*PARTS, *SINGLE))
        raise ValueError(f"parts: expected some of {known}, got {', '.join(unknown)}")
    return frozenset(parts) | {name for name, part in SINGLE.items() if part in parts}


def evaluate(
    f: Map,
    dataset: Dataset,
    *,
    seed: int = 0,
    samples: int | None = None,
    latent_scale: float = 1.0,
    batch_size: int = 512,
    device: torch.device | str | None = None,
    parts: Collection[str] = PARTS,
    features: SpaceName | None = None,
    feature_weights: str | Path | None = None,
) -> dict[str, float]:
    """Judge f on a data set; :func:`naign_ext.evaluation.describe` says what each key means.

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
        parts: groups of figures, of projection, samples, ood, likelihood, restoration, anchors, or single ones, of
            modes, high_quality, classes, energy_distance, w2, sliced_w2, fld, fid, kid, prdc, train_coverage,
            authenticity, variance_ratio, auroc, distance_field. "anchors" adds anchors to the others.
        features: space in which sets of images are compared, see :func:`naign_ext.evaluation.feature_space`; default
            the data set's classifier where it has labels, else pixels.
        feature_weights: weights of inception or dinov2.

    Raises:
        ValueError: an unknown part or feature space, or f changes the shape or answers NaN or Inf.
        FeaturesUnavailableError (a ValueError): the feature space's weights are not on this machine.
    """
    chosen = chosen_metrics(parts)
    with _eval_mode(f), torch.no_grad():
        where = _device_of(f, dataset, device)
        yardstick = Yardstick.of(dataset, features or default_features(dataset), feature_weights, where)
        judge = Judge.prepare(
            f,
            dataset,
            yardstick,
            chosen,
            seed=seed,
            samples=samples,
            latent_scale=latent_scale,
            batch_size=batch_size,
            device=where,
        )
        return judge.all_figures()


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


@dataclass(frozen=True)
class Yardstick:
    """The networks that judge, if any: the data set's classifier and the feature space.

    classifier: None where images have no labels. accuracy: the classifier's on held-out images.
    """

    space: FeatureSpace
    classifier: Classifier | None
    accuracy: float | None

    @classmethod
    def of(
        cls, dataset: Dataset, features: SpaceName, weights: str | Path | None, device: torch.device
    ) -> "Yardstick":
        """Read or trained; an unavailable feature space is an error, see :func:`feature_space`."""
        classifier, accuracy = None, None
        if dataset.kind == "image" and dataset.train_labels is not None:
            classifier, accuracy = dataset_classifier(dataset)
            classifier = classifier.to(device)
        space = feature_space(features, dataset, classifier=classifier, weights=weights, device=device)
        return cls(space, classifier, accuracy)


@dataclass
class Judge:
    """One network's outputs on one data set, computed once and shared by all figures."""

    f: Map
    dataset: Dataset
    yardstick: Yardstick
    chosen: frozenset[str]
    seed: int
    batch_size: int
    train: Tensor
    heldout: Tensor
    latents: Tensor
    once: Tensor
    twice: Tensor
    _fld: FldScorer | None = field(default=None, repr=False)

    @classmethod
    def prepare(
        cls,
        f: Map,
        dataset: Dataset,
        yardstick: Yardstick,
        chosen: frozenset[str],
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
        outputs = (latents, once.float(), twice.float())
        return cls(f, dataset, yardstick, chosen, seed, batch_size, train, heldout, *outputs)

    def all_figures(self) -> Figures:
        """Every chosen figure that the data set can have, in the order in which they are shown."""
        found: Figures = {}
        if "projection" in self.chosen:
            found |= self.projection()
        if self._any_of("samples"):
            found |= self.samples()
        if self._any_of("ood"):
            found |= self.out_of_distribution()
        if "likelihood" in self.chosen:
            found |= self.likelihood()
        if "restoration" in self.chosen and self._has_heldout_images:
            found |= (
                restoration(self.apply, self._restored(self.heldout), seed=self.seed) | self._recognition()
            )
        if "anchors" in self.chosen:
            found |= self.anchors()
        return found

    def _any_of(self, part: Part) -> bool:
        return any(name in self.chosen for name, of in SINGLE.items() if of == part)

    @property
    def _has_heldout_images(self) -> bool:
        return self.dataset.kind == "image" and len(self.heldout) > 0

    def _restored(self, images: Tensor) -> Tensor:
        return subset(images, MOST_RESTORED, self.seed)

    def apply(self, x: Tensor) -> Tensor:
        """f(x), float32, in batches, on f's device; the answer lies there."""
        return projection.apply(self.f, x.to(self.train.device), batch_size=self.batch_size).float()

    @property
    def classifier(self) -> Classifier | None:
        """The data set's classifier, where images have labels."""
        return self.yardstick.classifier

    def features(self, x: Tensor) -> Tensor:
        """What sets of images are compared by."""
        return self.yardstick.space(x)

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
        found: Figures = {}
        if self.dataset.modes is not None:
            found["modes_total"] = float(len(self.dataset.modes))
        if self.classifier is not None:
            found["classes_total"] = float(self.classifier.classes)
        found |= self.judge_samples(self.once)
        return found | {f"{key}_twice": value for key, value in self.judge_samples(self.twice).items()}

    def judge_samples(self, y: Tensor) -> Figures:
        """All chosen figures of one set of samples, on the scale of a vector or of an image data set."""
        of_kind = self._judge_images(y) if self.dataset.kind == "image" else self._judge_vectors(y)
        found = {"samples": float(len(y)), **of_kind}
        if "train_coverage" in self.chosen:
            found["train_coverage"] = coverage.train_coverage(self.train, y)
        return found

    def _judge_vectors(self, y: Tensor) -> Figures:
        found: Figures = {}
        dataset = self.dataset
        if dataset.modes is not None and dataset.mode_std is not None:
            radius = 3.0 if dataset.modes.shape[1] == 1 else 4.0
            modes = dataset.modes.to(y.device)
            of_modes = coverage.mode_coverage(y, modes, dataset.mode_std, sigmas=radius)
            found |= {"modes": float(of_modes.covered), "high_quality": of_modes.high_quality}
        elif dataset.support_distance is not None:
            near = REACH / 2 * noise_of(dataset)
            found["high_quality"] = float((dataset.support_distance(y.cpu()) <= near).float().mean())
        found = {key: value for key, value in found.items() if key in self.chosen}
        truth = self._truth(len(y), 0)
        return found | (self._distances(y, truth) if len(truth) > 0 else {})

    def _distances(self, y: Tensor, data: Tensor) -> Figures:
        measures: dict[str, Callable[[Tensor, Tensor], float]] = {
            "energy_distance": lambda a, b: distances.energy_distance(a, b, seed=self.seed),
            "w2": lambda a, b: distances.wasserstein2(a, b, seed=self.seed),
            "sliced_w2": lambda a, b: distances.sliced_wasserstein2(a, b, seed=self.seed),
        }
        return {name: measure(y, data) for name, measure in measures.items() if name in self.chosen}

    def _truth(self, count: int, draw: int) -> Tensor:
        """Fresh true rows where the distribution is known, else the held-out ones."""
        if self.dataset.sample_truth is None:
            return self.heldout
        return self.dataset.sample_truth(count, self.seed + 7919 * (draw + 1)).to(self.train.device)

    def _judge_images(self, y: Tensor) -> Figures:
        found: Figures = {}
        if self.classifier is not None and "classes" in self.chosen:
            certain = self.classifier.probabilities(y)
            found["classes"] = float(class_coverage(certain))
            found["confident"] = float((certain.amax(dim=1) > 0.9).float().mean())
        compared = ("fld", "fid", "kid", "prdc", "energy_distance", "w2", "sliced_w2")
        if any(name in self.chosen for name in compared):
            found |= self._compare_features(self.features(y))
        if len(self.train) > 1 and "authenticity" in self.chosen:
            found["authenticity"] = coverage.authenticity(self.train, y)
        if len(self.train) > 1 and "variance_ratio" in self.chosen:
            variances = [float(t.flatten(1).double().var(dim=0).sum()) for t in (y, self.train)]
            found["variance_ratio"] = variances[0] / variances[1] if variances[1] > 0 else math.nan
        return found

    def _compare_features(self, y: Tensor) -> Figures:
        """Figures of the samples' features y (M, K) against those of the training and held-out images."""
        found: Figures = {}
        if "fld" in self.chosen and self.fld is not None:
            found["fld_pixels" if self.yardstick.space.name == "pixels" else "fld_features"] = self.fld(y)
        train = self.features(self.train)
        if len(train) > 1 and len(y) > 1:
            pair = {"fid": fid, "kid": kid}
            found |= {name: measure(train, y) for name, measure in pair.items() if name in self.chosen}
        found |= self._distances(y, train)
        if min(len(train), len(y)) > NEIGHBOURS and "prdc" in self.chosen:
            sets = (subset(rows, MOST_COMPARED, self.seed) for rows in (train, y))
            found |= dataclasses.asdict(coverage.prdc(*sets, k=NEIGHBOURS))
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
        if "auroc" in self.chosen:
            found |= {f"ood_{key}": value for key, value in self._aurocs(self.apply).items()}
        if "distance_field" in self.chosen and self.dataset.support_distance is not None:
            found |= self._field(self.apply)
        return found

    def _aurocs(self, f: Map) -> Figures:
        """AUROC of held-out data against what is not data, by each score that f gives."""
        if self.dataset.ood is None or len(self.heldout) == 0:
            return {}
        pairs = [(x, f(x)) for x in (self.heldout, self.dataset.ood.to(self.train.device))]
        scores = {"auroc": projection.residual}
        if self.dataset.kind == "image":
            scores |= {
                "auroc_normalised": projection.normalised_residual,
                "auroc_multiscale": projection.multiscale_residual,
            }
        return {name: ood.auroc(*(score(x, y) for x, y in pairs)) for name, score in scores.items()}

    def _field(self, f: Map) -> Figures:
        def score(points: Tensor) -> Tensor:
            x = points.to(self.train.device)
            return projection.residual(x, f(x))

        found = field_correlations(score, self.dataset, self.seed)
        return {f"residual_{key}": value for key, value in found.items()}

    def likelihood(self) -> Figures:
        """exp(-E/T)/Z in one or two dimensions: T from every other held-out point, judged on the rest."""
        grid = self._grid()
        if grid is None:
            return {}
        fit_to, judged = self.heldout[0::2], self.heldout[1::2]
        energy = torch.cat([self._energy(part) for part in torch.split(grid.points, 1 << 15)])
        temperature = density.fit_temperature(energy, self._energy(fit_to), grid)
        log_z = density.log_partition(energy, temperature, grid)
        found = {
            "temperature": temperature,
            "log_likelihood": float((-self._energy(judged) / temperature - log_z).mean()),
        }
        truth = density.true_shares(self.dataset, grid)
        if truth is not None:
            shares = density.density_shares(energy, temperature)
            found["total_variation"] = density.total_variation(shares, truth)
        return found

    def _grid(self) -> density.Grid | None:
        """Over the data's box, a quarter wider on each side; None beyond two dimensions or with too few points."""
        dimensions = math.prod(self.dataset.sample_shape)
        if self.dataset.kind != "vector" or dimensions not in _GRID_CELLS or len(self.heldout) < 2:
            return None
        rows = torch.cat([self.train, self.heldout]).double()
        low, high = rows.amin(dim=0), rows.amax(dim=0)
        margin = 0.25 * (high - low).clamp(min=1e-3)
        box = list(zip((low - margin).tolist(), (high + margin).tolist(), strict=True))
        return density.Grid.over(box, [_GRID_CELLS[dimensions]] * dimensions)

    def _energy(self, x: Tensor) -> Tensor:
        """|f(x) - x|^2, (N,) float64 on the CPU."""
        x = x.to(self.train.device, torch.float32)
        return projection.residual(x, self.apply(x)).double().square().cpu()

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

    def anchors(self) -> Figures:
        """What the same figures are for samplers, scores and filters without a network."""
        found: Figures = {}
        if "projection" in self.chosen:
            found |= self._projection_anchors()
        if self._any_of("samples"):
            found |= self._sample_anchors()
        if "auroc" in self.chosen or "distance_field" in self.chosen:
            found |= self._ood_anchors()
        if "likelihood" in self.chosen:
            found |= self._likelihood_anchors()
        if "restoration" in self.chosen and self._has_heldout_images:
            found |= filter_gains(self._restored(self.train), self._restored(self.heldout), seed=self.seed)
            if self.yardstick.accuracy is not None:
                found["anchor_accuracy_classifier"] = self.yardstick.accuracy
        return found

    def _projection_anchors(self) -> Figures:
        """Maps to the nearest training row, and to the training mean."""
        mean = self.train.mean(dim=0, keepdim=True)
        others: dict[str, Map] = {
            "nearest": lambda x: ood.nearest_row(self.train, x),
            "mean": mean.expand_as,
        }
        found: Figures = {}
        for name, f in others.items():
            found[f"anchor_fixed_point_train_{name}"] = projection.fixed_point_error(f, self.train)
            if len(self.heldout) > 0:
                found[f"anchor_fixed_point_heldout_{name}"] = projection.fixed_point_error(f, self.heldout)
            found[f"anchor_idempotence_{name}"] = projection.idempotence_error(f, self.latents)
            found[f"anchor_non_identity_{name}"] = projection.non_identity(f, self.latents)
        return found

    def _sample_anchors(self) -> Figures:
        found: Figures = {}
        for name, rows in self._trivial_samplers().items():
            if len(rows) > NEIGHBOURS:
                figures = self.judge_samples(rows)
                found |= {f"anchor_{key}_{name}": value for key, value in figures.items()}
        # Held-out data judged against themselves: their distance is zero by construction.
        for key in ("anchor_fld_features_heldout", "anchor_fld_pixels_heldout"):
            found.pop(key, None)
        if self.dataset.kind == "image" and len(self.train) > 2 * NEIGHBOURS:
            found |= {f"anchor_{key}_half": value for key, value in self._half_against_half().items()}
        return found

    def _trivial_samplers(self) -> dict[str, Tensor]:
        count = len(self.once)
        chosen = torch.randint(len(self.train), (count,), generator=generator(self.seed + 2))
        copies = self.train[chosen.to(self.train.device)]
        if self.dataset.kind == "vector":
            components = self.train[0].numel()
            gaussian = baselines.pca_gaussian(self.train, count, self.seed + 1, components=components)
            found = {"prior": self.latents, "gaussian": gaussian, "copies": copies}
            return found if self.dataset.sample_truth is None else found | {"truth": self._truth(count, 2)}
        return {
            "heldout": self.heldout,
            "copies": copies,
            "blur": gaussian_blur(copies, BLUR_SIGMA),
            "pca": baselines.pca_gaussian(self.train, count, self.seed + 1),
            "mean": baselines.mean_image(self.train, count),
        }

    def _half_against_half(self) -> Figures:
        """One half of the training images as samples, the other half as the training set."""
        order = torch.randperm(len(self.train), generator=generator(self.seed + 3)).to(self.train.device)
        middle = len(order) // 2
        other = dataclasses.replace(self, train=self.train[order[:middle]], _fld=None)
        return other.judge_samples(self.train[order[middle:]])

    def _ood_anchors(self) -> Figures:
        """The same scores with the nearest training row in place of f."""

        def nearest(x: Tensor) -> Tensor:
            return ood.nearest_row(self.train, x)

        found: Figures = {}
        if "auroc" in self.chosen:
            found |= {f"anchor_ood_{key}_nearest": value for key, value in self._aurocs(nearest).items()}
            if found and self.dataset.kind == "image" and self.dataset.ood is not None:
                sets = (self.heldout, self.dataset.ood.to(self.train.device))
                found["anchor_ood_auroc_variance"] = ood.auroc(*(ood.inverse_variance(x) for x in sets))
        if "distance_field" in self.chosen and self.dataset.support_distance is not None:
            found |= {f"anchor_{key}_nearest": value for key, value in self._field(nearest).items()}
        return found

    def _likelihood_anchors(self) -> Figures:
        """A kernel estimate, its bandwidth fitted as T is; the Gaussian of the data; and the truth."""
        grid = self._grid()
        if grid is None:
            return {}
        train, fit_to, judged = (rows.cpu() for rows in (self.train, self.heldout[0::2], self.heldout[1::2]))
        bandwidth = density.fit_bandwidth(grid, train, fit_to)
        rows = as_rows("train", train, at_least=2).double()
        estimates = {
            "kde": grid.blurred(grid.histogram(train), bandwidth),
            "gaussian": _log_normal(rows, grid.points).softmax(dim=0),
        }
        truth = density.true_shares(self.dataset, grid)
        found: Figures = {}
        for name, shares in estimates.items():
            found[f"anchor_log_likelihood_{name}"] = _mean_log(grid, shares, judged)
            if truth is not None:
                found[f"anchor_total_variation_{name}"] = density.total_variation(shares, truth)
        if truth is not None:
            found["anchor_log_likelihood_truth"] = _mean_log(grid, truth, judged)
        return found


def _log_normal(rows: Tensor, x: Tensor) -> Tensor:
    """log density, up to a constant, at x (N, D) of the Gaussian with the mean and covariance of rows."""
    covariance = rows.T.cov().view(rows.shape[1], -1)
    apart = x - rows.mean(dim=0)
    exponent: Tensor = (apart * torch.linalg.solve(covariance, apart.T).T).sum(dim=1)
    return -0.5 * exponent


def _mean_log(grid: density.Grid, shares: Tensor, x: Tensor) -> float:
    """Mean log density; where a grid estimate says 0, e^-50 stands in, as JSON has no infinity."""
    return float(grid.log_density(shares, x).clamp(min=-50).mean())
