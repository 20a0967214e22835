"""Write figures.json: what other implementations answer on the sets of feature_sets.py.

    python tests/evaluation/reference/make_figures.py FLD_CHECKOUT FLD_COMMIT

in an environment with torch, torchvision, scikit-learn, scikit-image, prdc, torchmetrics, and, for the code of
github.com/marcojira/fld in FLD_CHECKOUT, matplotlib, seaborn and tqdm. Nothing else of naign is needed.
"""

import importlib.metadata
import json
import sys
from pathlib import Path

import numpy as np
import torch
from feature_sets import FeatureSet, feature_sets
from prdc import compute_prdc

NEIGHBOURS = 5
BASELINE_ORDERS = 5


def declare_torchvision_operators() -> torch.library.Library:
    """torchmetrics imports torchvision, which beside a CPU torch lacks these two schemas."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def fld_figures(s: FeatureSet) -> dict[str, object]:
    """FLD at a given baseline, and that baseline for fixed orders of the training rows.

    In float64 with the slower distances that the authors' code offers in a comment, and as it is by default
    ("float32"): there matrix products cancel for near copies, and rounding can decide after which epoch it stops.
    It divides by zero in dimensions where the held-out rows are constant: those are left out.
    """
    from fld import MoG, utils
    from fld.metrics import FLD as module

    kept = s.heldout.std(axis=0) > 0
    train, heldout, samples = (torch.from_numpy(rows[:, kept]) for rows in (s.train, s.heldout, s.samples))
    as_given = lambda rows, size=None: rows[: size or len(rows)]  # noqa: E731
    utils.shuffle = MoG.shuffle = module.shuffle = as_given
    in_float32 = module.FLD(baseline_nll=1.0).compute_metric(train, heldout, samples)
    by_product, MoG.compute_dists = MoG.compute_dists, exact_distances
    train, heldout, samples = (rows.double() for rows in (train, heldout, samples))
    baselines = []
    for seed in range(BASELINE_ORDERS):
        order = torch.from_numpy(np.random.RandomState(seed).permutation(len(train)))
        baselines.append(module.FLD().get_baseline_nll(train[order], heldout, size=len(samples)))
    metric = module.FLD(baseline_nll=1.0)
    found = {
        "baseline_nll": baselines,
        "fld_at_baseline_1": metric.compute_metric(train, heldout, samples),
        "fld_at_baseline_1_float32": in_float32,
        "fld_at_baseline_1_of_copies": metric.compute_metric(train, heldout, train.clone()),
    }
    MoG.compute_dists = by_product
    return found


def exact_distances(rows: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    return torch.cdist(rows, centres, compute_mode="donot_use_mm_for_euclid_dist") ** 2


def distances(s: FeatureSet) -> dict[str, float]:
    """FID, and KID on one subset that is the whole of both sets, of train and samples."""
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    class Given(torch.nn.Module):
        num_features = s.train.shape[1]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    count = min(len(s.train), len(s.samples))
    fid = FrechetInceptionDistance(feature=Given(), normalize=True)
    kid = KernelInceptionDistance(feature=Given(), subsets=1, subset_size=count, normalize=True)
    for rows, real in ((s.train, True), (s.samples, False)):
        fid.update(torch.from_numpy(rows).double(), real=real)
        kid.update(torch.from_numpy(rows[:count]).double(), real=real)
    return {"fid": float(fid.compute()), "kid": float(kid.compute()[0])}


def main() -> None:
    checkout, commit = sys.argv[1:]
    sys.path.insert(0, checkout)
    keep = declare_torchvision_operators()
    figures = {
        name: {
            **fld_figures(s),
            "prdc": {k: float(v) for k, v in compute_prdc(s.train, s.samples, NEIGHBOURS).items()},
            **distances(s),
        }
        for name, s in feature_sets().items()
    }
    del keep
    packages = ("torch", "numpy", "prdc", "torchmetrics", "scikit-learn", "scikit-image")
    content = {
        "made_by": "python tests/evaluation/reference/make_figures.py FLD_CHECKOUT FLD_COMMIT",
        "versions": {
            "marcojira/fld": commit,
            **{name: importlib.metadata.version(name) for name in packages},
        },
        "neighbours": NEIGHBOURS,
        "sets": figures,
    }
    Path(__file__).with_name("figures.json").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
