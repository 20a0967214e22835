"""Every metric that fits a data set, for one network f, with the baselines to read it beside."""

from collections.abc import Collection
from pathlib import Path

import torch

from naign_ext.data.dataset import Dataset
from naign_ext.evaluation.context import EvalContext, Map, eval_mode
from naign_ext.evaluation.features import SpaceName
from naign_ext.evaluation.registry import Metric, chosen_metrics, in_order
from naign_ext.evaluation.results import Results, Row
from naign_ext.evaluation.subjects import Subject


def evaluate(
    f: Map,
    dataset: Dataset,
    *,
    seed: int = 0,
    samples: int | None = None,
    latent_scale: float = 1.0,
    batch_size: int = 512,
    device: torch.device | str | None = None,
    metrics: Collection[str] | None = None,
    baselines: bool = True,
    features: SpaceName | None = None,
    feature_weights: str | Path | None = None,
) -> Results:
    """Judge f on a data set; :func:`naign_ext.evaluation.describe` says what each row means.

    The same seed gives the same numbers. Metrics that a data set cannot have (modes of photographs, FLD without
    held-out data) are absent.

    Args:
        f: maps (B, *dataset.sample_shape) to the same shape. A module is put into eval mode meanwhile.
        dataset: as load_dataset returns it.
        samples: number of latents; default the training set's size, within 1000 and 2000.
        latent_scale: deviation of the latents, z ~ N(0, latent_scale^2 I).
        batch_size: rows that f sees at a time.
        device: where to compute; default the device of f's parameters, else the data's.
        metrics: names of metrics, of families (fld, prdc, auroc, distance_field, ...) or of groups (projection,
            samples, ood, likelihood, restoration); default all, see :func:`naign_ext.evaluation.registry.selectable`.
        baselines: also measure what has no network in it.
        features: space in which sets of images are compared, see :func:`naign_ext.evaluation.feature_space`; default
            the data set's classifier where it has labels, else pixels.
        feature_weights: weights of inception or dinov2.

    Raises:
        ValueError: an unknown metric or feature space, or f changes the shape or answers NaN or Inf.
        FeaturesUnavailableError (a ValueError): the feature space's weights are not on this machine.
    """
    chosen = chosen_metrics(metrics)
    with torch.no_grad():
        context = EvalContext.prepare(
            f,
            dataset,
            seed=seed,
            samples=samples,
            latent_scale=latent_scale,
            batch_size=batch_size,
            device=device,
            features=features,
            feature_weights=feature_weights,
        )
    return measure(context, chosen, baselines=baselines)


def measure(context: EvalContext, metrics: Collection[str], *, baselines: bool = True) -> Results:
    """The rows of the metrics, by name, of all that the context has to judge."""
    rows: list[Row] = []
    with torch.no_grad(), eval_mode(context.f):
        for about in in_order():
            if about.name in metrics and about.applies(context):
                rows += _rows(about, context, baselines=baselines)
    return Results(tuple(rows))


def _rows(about: Metric, context: EvalContext, *, baselines: bool) -> list[Row]:
    subjects: list[Subject] = list(context.subjects(about.of.own))
    if baselines and about.baselines != ():
        subjects += context.subjects(about.of.baselines)
    rows = []
    for subject in subjects:
        if about.judges(subject) and about.applies(subject.context):
            value = about.measure(subject)
            if value is not None:
                rows.append(Row(about.name, subject.name, value, subject.condition))
    return rows
