"""Fig. 2: three modes on a line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from naign_ext.evaluation import Key
from naign_ext.evaluation.results import MAP, ONCE
from naign_ext.reproduce import drawing
from naign_ext.reproduce.claims.base import Claim, Result
from naign_ext.reproduce.runs import Run, judged_data
from naign_ext.reproduce.study import Evidence, Study

Array = np.ndarray[Any, np.dtype[np.floating[Any]]]

_SAMPLES = 20_000
_BINS = np.linspace(-6.5, 6.5, 131)


def draw(study: Study, evidence: Evidence, result: Result, path: Path) -> None:
    """Densities of the samples beside the true one, and the maps."""
    del result
    runs = evidence.runs["trimodal1d"]
    truth = _true_density(next(iter(runs.values()))[0])
    centres = (_BINS[:-1] + _BINS[1:]) / 2
    line = torch.linspace(-6.5, 6.5, 521)[:, None]
    with drawing.page(path, len(runs), 2, height=1.25 * len(runs) + 0.5, sharex=True) as (figure, axes):
        for (method, of_method), (left, right) in zip(runs.items(), axes, strict=True):
            finished = [run for run in of_method if run.status == "completed"]
            left.fill_between(centres, truth, color=drawing.FAINT, alpha=0.45, linewidth=0, label="truth")
            if finished:
                drawing.band(left, centres.tolist(), [_histogram(run) for run in finished], method)
                right.plot(line, line, color=drawing.FAINT, linewidth=0.8, label="identity")
                maps = [run.projector().project(line)[:, 0].tolist() for run in finished]
                drawing.band(right, line[:, 0].tolist(), maps, method)
            drawing.side_label(left, drawing.label(method))
            left.set_yticks([])
            left.set_ylim(0, 1.6 * truth.max())
            right.set_yticks([-4, 0, 4])
            right.set_ylim(-6.5, 6.5)
        axes[0][0].set_title("density of f(z); grey: the true density")
        axes[0][1].set_title("f(x); grey: the identity")
        for axis in axes[-1]:
            axis.set_xticks([-4, 0, 4])
            axis.set_xlabel("x")
        drawing.footnote(figure, f"{study.note}; line: mean; shading: smallest to largest")


def _histogram(run: Run) -> Sequence[float]:
    samples = run.projector().sample(_SAMPLES, seed=1)[:, 0].numpy()
    return list(np.histogram(samples, _BINS)[0] / (len(samples) * (_BINS[1] - _BINS[0])))


def _true_density(run: Run) -> Array:
    dataset = judged_data(run.config)
    assert dataset.modes is not None
    assert dataset.mode_std is not None
    centres = (_BINS[:-1] + _BINS[1:]) / 2
    z = (centres[:, None] - dataset.modes[:, 0].numpy()[None]) / dataset.mode_std
    density: Array = np.exp(-(z**2) / 2).mean(axis=1) / (dataset.mode_std * np.sqrt(2 * np.pi))
    return density


CLAIM = Claim(
    name="trimodal",
    source="Fig. 2",
    title="Three modes on a line",
    sentence="NAIGN generates all three modes of a one-dimensional mixture where IGN drops modes.",
    datasets=("trimodal1d",),
    compared=(Key("modes", ONCE), Key("high_quality", ONCE), Key("energy_distance", ONCE)),
    shown=(Key("idempotence", MAP), Key("fixed_point_heldout", MAP), Key("non_identity", MAP)),
    caption="Left: the density of samples f(z) over the true one. Right: the map f; plateaus at the modes project.",
    draw=draw,
)
