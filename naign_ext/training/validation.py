"""The validation score that decides which checkpoint is the best."""

import torch
from torch import Tensor, nn

from naign_ext.latents import LatentPool
from naign_ext.ops import imle_knn
from naign_ext.search import ImleSearch

ROWS = 1000
POOL = 2048
_CHUNK = 512


@torch.no_grad()
def validate(
    f: nn.Module, train: Tensor, validation: Tensor, latent_scale: float, seed: int
) -> dict[str, float]:
    """How good f is, on train (N, *shape) and validation (n, *shape); f is in evaluation mode.

    Test data have no part in it, so that the metrics of the chosen checkpoint are measured on data that did not
    choose it.

    Means over all elements, squared, in the data's units; pool: 2048 latents that depend on seed alone; of
    train and of validation at most the first 1000 rows; without validation data, train stands in:

        fixed_point   mean |f(x) - x|^2, x of validation     unseen data are fixed points
        imle          mean_i min_j |x_i - f(z_j)|^2, any x   every data point has a sample near it
        projection    mean_j min_i |x_i - f(z_j)|^2, any x   every sample is near a data point
        coverage      share of training rows that are nearest to some sample
        score         the three errors' sum over coverage; lower is better

    The samples are compared with training and validation data together: with validation data alone, of few
    images, the blurred mean would win. The projection keeps the identity from winning where latents cover the data.
    The errors alone would choose the weights of before the match has reached every row: blurred samples are near all.
    """
    validation = validation[:ROWS] if len(validation) else train[:ROWS]
    train = train[:ROWS]
    every = torch.cat([train, validation]).flatten(1)
    pool = LatentPool(train.shape[1:], latent_scale, seed, device=train.device)
    to_samples = ImleSearch(every)
    to_data = 0.0
    reached = torch.zeros(len(train), dtype=torch.bool, device=train.device)
    for start in range(0, POOL, _CHUNK):
        samples = f(pool.chunk(start, start + _CHUNK)).float().flatten(1)
        to_samples.update(samples)
        nearest = ImleSearch(samples).update(every).neighbours()
        to_data += nearest.distances.double().sum().item()
        reached[imle_knn(samples, train.flatten(1)).indices[:, 0]] = True
    fixed = (f(validation).float() - validation).square().mean().item()
    imle = to_samples.neighbours().distances.double().mean().item() / every.shape[1]
    projection = to_data / POOL / every.shape[1]
    covered = reached.double().mean().item()
    return {
        "fixed_point": fixed,
        "imle": imle,
        "projection": projection,
        "coverage": covered,
        "score": (fixed + imle + projection) / covered,
    }
