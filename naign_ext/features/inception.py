"""Inception v3 (Szegedy et al., 2015) with torchvision's weights."""

import torch
from torch import nn

from naign_ext.features.weights import FeaturesUnavailableError, WeightsSource
from naign_ext.options import in_a_line
from naign_ext.vision import import_torchvision

INCEPTION_FILE = "inception_v3_google-0cc3c7bd.pth"
SIDE = 299


def load_inception(source: WeightsSource) -> nn.Module:
    """The network from (B, 3, 299, 299), scaled as for ImageNet, to its pooled features (B, 2048)."""
    file = source.torchvision_file("Inception", INCEPTION_FILE)
    try:
        models = import_torchvision("models")
        network: nn.Module = models.inception_v3(
            weights=None, aux_logits=True, init_weights=False, transform_input=False
        )
        network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:
        raise FeaturesUnavailableError(
            f"features: {file} is no Inception v3 of torchvision: {in_a_line(error)}"
        ) from None
    network.fc = nn.Identity()
    return network
