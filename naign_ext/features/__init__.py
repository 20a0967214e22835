"""Maps phi from data to features: those of networks of images, and others by name. A new one: a file and its import."""

from naign_ext.features.registry import FEATURES, FeatureMap, build_feature_map
from naign_ext.features.weights import FeaturesUnavailableError, WeightsSource, chosen_weights

# In the order in which help texts name them.
# isort: off
from naign_ext.features.vgg import vgg16
from naign_ext.features.dinov2 import dinov2
# isort: on

__all__ = [
    "FEATURES",
    "FeatureMap",
    "FeaturesUnavailableError",
    "WeightsSource",
    "build_feature_map",
    "chosen_weights",
    "dinov2",
    "vgg16",
]
