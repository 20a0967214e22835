"""Feature Likelihood Divergence (Jiralerspong et al., arXiv 2302.04440).

A Gaussian is centred at every sample, its variance fitted to the likelihood of the training set; the score is
the likelihood of held-out data under that mixture. Poor samples get wide Gaussians, missing modes leave
held-out data far from any, and copies of training data shrink their Gaussians to points that explain nothing
held out.

    FLD = 100 (nll(samples) - nll(baseline)),   nll = -1/(D |H|) sum_h log 1/M sum_j N(h | y_j, s_j I)

where the baseline's mixture is centred at one half of the training set and fitted to the other half. So 0
means "as good as fresh training data"; lower is better; negative is possible when the training set is small.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from naign_ext.evaluation.rows import as_rows, cpu_generator, same_width, subset
from naign_ext.ops import imle_knn

FIT_EPOCHS = 50
FIT_BATCH = 10_000
FIT_LEARNING_RATE = 0.5
MIN_EPOCHS = 7
SETTLED_EPOCHS = 5
SETTLED_BELOW = 5e-4
KEPT_DISTANCES = 100_000_000
FIRST_VARIANCE_OFFSET = 1e-3
LOG_VARIANCE_RANGE = (-40.0, 40.0)
BACKGROUND_SHRINK = (1 - 0.1) ** 2
DISTANCE_BLOCK_ELEMENTS = 1 << 24


def fld(
    train: Tensor,
    heldout: Tensor,
    samples: Tensor,
    *,
    seed: int = 0,
    max_samples: int = 10_000,
    splits: int = 4,
    baseline: float | None = None,
) -> float:
    """FLD of samples, in hundredths of a nat per dimension above the baseline; lower is better.

    Agrees with the authors' implementation: features are standardised by the held-out set's mean and standard
    deviation; log-variances start at log((squared distance to the nearest training row + 1e-3) / D) and take
    at most 50 epochs of Adam at rate 0.5, until the loss settles; a broad Gaussian at the training mean takes
    part in the fit alone. The baseline is averaged over several random halvings, which only steadies it.
    Dimensions in which the held-out set is constant carry no scale and are left out.

    With few images the figure is unreliable (a constant mean image can score below 0): show coverage beside
    it. Copies of training rows give a huge, finite value.

    Args:
        train: (N, ...) features, N >= 2; flattened to rows.
        heldout: (H, ...), H >= 2, never seen in training.
        samples: (M, ...); a seeded subset of `max_samples` is used where there are more.
        seed: chooses the subset and the baseline's halves.
        splits: halvings that the baseline is averaged over; 1 as in the authors' implementation.
        baseline: negative log-likelihood per dimension that counts as 0, in nats; such as a published one of a
            data set. None: computed from train and heldout.

    Raises:
        ValueError: shapes do not fit, NaN or Inf, or the held-out set is constant in every dimension.
    """
    samples = subset(as_rows("samples", samples), max_samples, seed)
    scorer = FldScorer(train, heldout, seed=seed, size=len(samples), splits=splits, baseline=baseline)
    return scorer(samples)


class FldScorer:
    """FLD of many sets of samples against one training and held-out set: the baseline is computed once.

    Args:
        train, heldout, seed, splits, baseline: as for :func:`fld`.
        size: number of samples that will be judged; the baseline's mixture has as many centres, at most N/2.
    """

    def __init__(
        self,
        train: Tensor,
        heldout: Tensor,
        *,
        seed: int = 0,
        size: int,
        splits: int = 4,
        baseline: float | None = None,
    ) -> None:
        train = as_rows("train", train, at_least=2)
        heldout = as_rows("heldout", heldout, at_least=2)
        same_width(train=train, heldout=heldout)
        if splits < 1:
            raise ValueError(f"splits: expected 1 or more, got {splits}")
        self.width = train.shape[1]
        self.scale = Standardiser.of(heldout)
        self.train, self.heldout = self.scale(train), self.scale(heldout)
        if baseline is None:
            baseline = sum(self._halved(size, seed + i) for i in range(splits)) / splits
        self.baseline = baseline

    def __call__(self, samples: Tensor) -> float:
        """FLD of samples (M, ...)."""
        rows = as_rows("samples", samples)
        if rows.shape[1] != self.width:
            raise ValueError(f"samples: expected D = {self.width} as train has, got D = {rows.shape[1]}")
        return 100 * (mixture_nll(self.scale(rows), self.train, self.heldout) - self.baseline)

    def _halved(self, size: int, seed: int) -> float:
        order = torch.randperm(len(self.train), generator=cpu_generator(seed)).to(self.train.device)
        return self.halved_nll(order, size)

    def halved_nll(self, order: Tensor, size: int) -> float:
        """The baseline for one order (N,) of the training rows: the first half, at most `size` rows, as centres."""
        half = min(size, len(order) // 2)
        return mixture_nll(self.train[order[:half]], self.train[order[half:]], self.heldout)


@dataclass(frozen=True)
class Standardiser:
    """Shift and scale to mean 0 and standard deviation 1 on one set, without that set's constant dimensions.

    Answers float64: in float32 the rounding alone moves FLD by several thousandths, and by a tenth where it
    decides after which epoch the fit has settled.
    """

    kept: Tensor
    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> "Standardiser":
        """Measured on rows (N, D), N >= 2."""
        rows = rows.double()
        deviation = rows.std(dim=0)
        kept = deviation > 1e-6 * deviation.max()
        if not bool(kept.any()):
            raise ValueError(f"heldout: expected rows that differ, got {len(rows)} equal rows")
        return cls(kept, rows.mean(dim=0)[kept], deviation[kept])

    def __call__(self, rows: Tensor) -> Tensor:
        return (rows[:, self.kept].double() - self.mean) / self.deviation


def mixture_nll(centres: Tensor, fit_to: Tensor, judged: Tensor) -> float:
    """Mean over judged of -log p / D, for equal-weight Gaussians at centres with variances fitted to
    fit_to."""
    log_variance = fit_log_variances(centres, fit_to)
    dimension = centres.shape[1]
    blocks = [
        _log_densities(squared_distances(block, centres), log_variance, dimension).logsumexp(dim=1)
        for block in _blocks(judged, len(centres))
    ]
    return (math.log(len(centres)) - float(torch.cat(blocks).double().mean())) / dimension


@torch.no_grad()
def fit_log_variances(centres: Tensor, rows: Tensor) -> Tensor:
    """Log-variances (M,), one per centre, that maximise the likelihood of rows under the mixture."""
    dimension = centres.shape[1]
    batches = torch.split(rows, FIT_BATCH)
    keep = len(rows) * len(centres) <= KEPT_DISTANCES
    kept = [squared_distances(batch, centres) for batch in batches] if keep else []
    middle = rows.mean(dim=0, keepdim=True)
    to_middle = [BACKGROUND_SHRINK * squared_distances(batch, middle) for batch in batches]
    nearest = torch.cat(kept).amin(dim=0) if keep else imle_knn(centres, rows).distances[:, 0]
    # A plain tensor also when rows were made under inference_mode, whose tensors Adam cannot update.
    with torch.inference_mode(False):
        log_variance = ((nearest.clone() + FIRST_VARIANCE_OFFSET) / dimension).log()
        background = rows.new_zeros(1)
        optimiser = torch.optim.Adam([log_variance, background], lr=FIT_LEARNING_RATE)
    losses: list[float] = []
    for _ in range(FIT_EPOCHS):
        total = 0.0
        for i, batch in enumerate(batches):
            distances = kept[i] if keep else squared_distances(batch, centres)
            loss, log_variance.grad, background.grad = _loss_and_gradients(
                distances, log_variance, to_middle[i], background, dimension
            )
            optimiser.step()
            log_variance.clamp_(*LOG_VARIANCE_RANGE)
            total += loss
        losses.append(total / len(batches))
        if _settled(losses):
            break
    return log_variance


def _loss_and_gradients(
    distances: Tensor, log_variance: Tensor, to_middle: Tensor, background: Tensor, dimension: int
) -> tuple[float, Tensor, Tensor]:
    """Mean of -log p / D over the rows of distances (N, M), and its gradients, without a graph of N x M
    tensors.

    With responsibilities r_ij of Gaussian j for row i, d(-log p_i)/d v_j = -r_ij (d_ij e^-v_j - D) / 2.
    """
    count, centres = distances.shape
    logits = _log_densities(distances, log_variance, dimension).sub_(math.log(centres))
    broad = _log_densities(to_middle, background, dimension)[:, 0]
    top = logits.amax(dim=1)
    unnormalised = logits.sub_(top[:, None]).exp_()
    log_likelihood = torch.logaddexp(top + unnormalised.sum(dim=1).log(), broad)
    weight = (top - log_likelihood).exp()
    share = weight @ unnormalised
    moment = weight @ unnormalised.mul_(distances)
    broad_share = (broad - log_likelihood).exp()
    scale = -0.5 / (count * dimension)
    gradient = scale * (moment * torch.exp(-log_variance) - dimension * share)
    broad_moment = (broad_share @ to_middle) * torch.exp(-background)
    broad_gradient = scale * (broad_moment - dimension * broad_share.sum())
    return -float(log_likelihood.double().mean()) / dimension, gradient, broad_gradient


def _settled(losses: list[float]) -> bool:
    recent = losses[-SETTLED_EPOCHS:]
    return len(losses) >= MIN_EPOCHS and max(abs(losses[-1] - loss) for loss in recent) < SETTLED_BELOW


def squared_distances(rows: Tensor, centres: Tensor) -> Tensor:
    """(N, M) squared distances from differences, so that near copies do not cancel to zero."""
    distances: Tensor = torch.cdist(rows, centres, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.square()


def _blocks(rows: Tensor, columns: int) -> tuple[Tensor, ...]:
    return torch.split(rows, max(1, DISTANCE_BLOCK_ELEMENTS // columns))


def _log_densities(distances: Tensor, log_variance: Tensor, dimension: int) -> Tensor:
    """log N(x_i | y_j, e^v_j I) = -d_ij / (2 e^v_j) - D/2 (v_j + log 2 pi), (N, M)."""
    constant = -dimension / 2 * (log_variance + math.log(2 * math.pi))
    return torch.addcmul(constant, distances, -0.5 * torch.exp(-log_variance))
