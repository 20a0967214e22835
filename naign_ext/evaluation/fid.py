"""FID and KID: how far samples are from data in mean and covariance, and in a polynomial kernel's features."""

import torch
from torch import Tensor

from naign_ext.evaluation.rows import as_rows, same_width

_BLOCK = 1 << 22


def fid(real: Tensor, samples: Tensor) -> float:
    """Frechet distance of the Gaussians with the sets' means and covariances (Heusel et al., arXiv 1706.08500).

        |m_r - m_s|^2 + tr(C_r) + tr(C_s) - 2 tr((C_r C_s)^(1/2))

    in float64, >= 0. With C = A^T A for the centred rows A over sqrt(N - 1), the last trace is the sum of the
    singular values of A_r A_s^T: no square root of a singular matrix is taken, so fewer rows than columns are
    fine. The value is biased upwards by about the covariance's error; compare at equal numbers of rows only.

    Args:
        real: (N, ...) features, N >= 2; samples: (M, ...), M >= 2. Flattened to rows.
    """
    real, samples = as_rows("real", real, at_least=2), as_rows("samples", samples, at_least=2)
    same_width(real=real, samples=samples)
    means = [rows.double().mean(dim=0) for rows in (real, samples)]
    factors = [
        torch.linalg.qr((rows.double() - mean) / (len(rows) - 1) ** 0.5, mode="r").R
        for rows, mean in zip((real, samples), means, strict=True)
    ]
    shift = (means[0] - means[1]).square().sum()
    spread = factors[0].square().sum() + factors[1].square().sum()
    overlap = torch.linalg.svdvals(factors[0] @ factors[1].T).sum()
    return max(0.0, float(shift + spread - 2 * overlap))


def kid(real: Tensor, samples: Tensor) -> float:
    """Squared maximum mean discrepancy with the kernel (x.y / D + 1)^3 (Binkowski et al., arXiv 1801.01401).

    The unbiased estimate over all pairs, in float64: its expectation is 0 for two draws of one distribution, so
    it can be slightly negative. Published values average random subsets of 1000, which has the same expectation.

    Args:
        real: (N, ...) features, N >= 2; samples: (M, ...), M >= 2. Flattened to rows.
    """
    real, samples = as_rows("real", real, at_least=2), as_rows("samples", samples, at_least=2)
    same_width(real=real, samples=samples)
    within = sum(_mean_kernel(rows, rows, unlike=True) for rows in (real, samples))
    return within - 2 * _mean_kernel(real, samples, unlike=False)


def _mean_kernel(x: Tensor, y: Tensor, *, unlike: bool) -> float:
    """Mean of the kernel over all pairs; unlike: without the pairs of a row with itself."""
    x, y = x.double(), y.double()
    width = x.shape[1]
    total = sum(
        float((part @ y.T / width + 1).pow(3).sum()) for part in torch.split(x, max(1, _BLOCK // len(y)))
    )
    if not unlike:
        return total / (len(x) * len(y))
    own = float((x.square().sum(dim=1) / width + 1).pow(3).sum())
    return (total - own) / (len(x) * (len(x) - 1))
