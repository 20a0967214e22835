"""The validation figure that decides which checkpoint is the best."""

import torch
from torch import Tensor, nn

from naign_ext.latents import LatentPool
from naign_ext.search import ImleSearch

ROWS = 1000
POOL = 2048
_CHUNK = 512


@torch.no_grad()
def validate(f: nn.Module, data: Tensor, latent_scale: float, seed: int) -> dict[str, float]:
    """How well f does on data (N, *shape) that it was not trained on; f is in evaluation mode.

    Means over all elements, squared, in the data's units; pool: 2048 latents that depend on seed alone; of
    the data at most the first 1000 rows:

        fixed_point   mean |f(x) - x|^2                    data are fixed points
        imle          mean_i min_j |x_i - f(z_j)|^2        every data point has a sample near it
        projection    mean_j min_i |x_i - f(z_j)|^2        every sample is near data
        score         their sum; lower is better

    The last term is what keeps the identity from winning where the latents cover the data.
    """
    data = data[:ROWS]
    flat = data.flatten(1)
    pool = LatentPool(data.shape[1:], latent_scale, seed, device=data.device)
    to_samples = ImleSearch(flat)
    to_data = 0.0
    for start in range(0, POOL, _CHUNK):
        samples = f(pool.chunk(start, start + _CHUNK)).float().flatten(1)
        to_samples.update(samples)
        nearest = ImleSearch(samples).update(flat).neighbours()
        to_data += nearest.distances.double().sum().item()
    fixed = (f(data).float() - data).square().mean().item()
    imle = to_samples.neighbours().distances.double().mean().item() / flat.shape[1]
    projection = to_data / POOL / flat.shape[1]
    return {
        "fixed_point": fixed,
        "imle": imle,
        "projection": projection,
        "score": fixed + imle + projection,
    }
