"""The networks that judge, if any: a data set's classifier, and the space in which sets of images are compared."""

from dataclasses import dataclass
from pathlib import Path

import torch

from naign_ext.data.dataset import Dataset
from naign_ext.evaluation.classifier import Classifier, dataset_classifier
from naign_ext.evaluation.features import FeatureSpace, SpaceName, feature_space


@dataclass(frozen=True)
class Judges:
    """classifier: None where images have no labels; accuracy: its own on held-out images; space: features."""

    space: FeatureSpace
    classifier: Classifier | None
    accuracy: float | None

    @classmethod
    def of(
        cls, dataset: Dataset, features: SpaceName, weights: str | Path | None, device: torch.device
    ) -> "Judges":
        """Read or trained; an unavailable feature space is an error, see :func:`feature_space`."""
        classifier, accuracy = None, None
        if dataset.kind == "image" and dataset.train_labels is not None:
            classifier, accuracy = dataset_classifier(dataset)
            classifier = classifier.to(device)
        space = feature_space(features, dataset, classifier=classifier, weights=weights, device=device)
        return cls(space, classifier, accuracy)


def default_features(dataset: Dataset) -> SpaceName:
    """The classifier's features where images have labels, else the numbers themselves."""
    return "classifier" if dataset.kind == "image" and dataset.train_labels is not None else "pixels"
