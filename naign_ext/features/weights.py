"""Where the weights of networks of images lie on this machine; nothing is ever downloaded."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

WEIGHTS_VARIABLE = "NAIGN_FEATURE_WEIGHTS"
_TORCHVISION = "https://download.pytorch.org/models/"


class FeaturesUnavailableError(ValueError):
    """A network's weights, or the package that runs it, are not on this machine."""


@dataclass(frozen=True)
class WeightsSource:
    """Where to look for weights, and how an error says what to do.

    path: a file or folder; None: where torch's hub keeps them, if it does. option: by which a user names a path.
    otherwise: what needs no weights, such as "pixels needs none".
    """

    path: Path | None
    option: str
    otherwise: str

    def torchvision_file(self, network: str, name: str) -> Path:
        """A weights file of torchvision; FeaturesUnavailableError where it is not there."""
        file = Path(torch.hub.get_dir()) / "checkpoints" / name if self.path is None else self.path
        if not file.is_file():
            raise FeaturesUnavailableError(
                f"features: {network}'s weights are not at {file}; put torchvision's {name} ({_TORCHVISION}{name}) "
                f"there, or name the file with {self.option}; {self.otherwise}"
            )
        return file


def chosen_weights(path: str | Path | None) -> Path | None:
    """The path that is given, or else that of $NAIGN_FEATURE_WEIGHTS; None where there is neither."""
    found = path or os.environ.get(WEIGHTS_VARIABLE)
    return Path(found).expanduser() if found else None
