"""Names of devices: the same ones everywhere."""

import pytest
import torch

from naign_ext.config import ConfigError, resolve_config
from naign_ext.devices import choose_device
from naign_ext.projector import Projector


@pytest.mark.parametrize(
    "name", ["gpu", "CPU", "mps", "xpu", "meta", "", "cuda:-1", "cuda:", "cpu:0", "cuda:\u0663"]
)
def test_other_names_are_refused_alike_by_all(tmp_path, name):
    message = "^device: expected auto, cpu, cuda or cuda:N, got "
    with pytest.raises(ValueError, match=message):
        choose_device(name)
    with pytest.raises(ValueError, match=message):
        Projector.load(tmp_path, name)
    with pytest.raises(ConfigError, match=message):
        resolve_config("moons", settings=[f"device={name!r}"])


def test_devices_that_are_there_are_chosen():
    best = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device(None) == choose_device("auto") == torch.device(best)
    assert choose_device("cpu") == choose_device(torch.device("cpu")) == torch.device("cpu")
    with pytest.raises(ValueError, match=r"^device: expected one that torch sees, got 'cuda:99'"):
        choose_device("cuda:99")
