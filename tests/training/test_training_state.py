"""What auto stands for in precision and layout; hybrid networks train and resume to the same bits."""

import pytest
import torch

from naign_ext.checkpoint import load_checkpoint
from naign_ext.config import resolve_config
from naign_ext.objectives import StepContext
from naign_ext.training import state
from naign_ext.training.progress import Progress
from naign_ext.training.trainer import resume, train

CPU = torch.device("cpu")
SMALL = (
    "device=cpu",
    "model.architecture=hybrid",
    "model.channels=4",
    "model.layers=3",
    "model.widths=[16]",
    "batch_size=8",
    "objective.pool_size=20",
    "objective.foreign_weight=0.1",
    "objective.foreign_samples=6",
    "log.tensorboard=false",
    "log.samples_every=0",
    "log.checkpoint_every=4",
    "steps=8",
)


@pytest.mark.parametrize("amx", [False, True])
def test_auto_precision_on_a_cpu_is_half_for_hybrids_on_amx_alone(monkeypatch, amx):
    monkeypatch.setattr(state, "has_amx", lambda: amx)

    def chosen(architecture, precision="auto"):
        settings = [f"model.architecture={architecture}", f"precision={precision}"]
        return state.choose_precision(resolve_config("lfw100", settings=settings), CPU)

    assert chosen("hybrid") == ("bf16" if amx else "fp32")
    assert chosen("mlp") == chosen("conv") == "fp32"
    assert chosen("hybrid", "fp16") == "fp16"


def test_amx_is_what_torch_says(monkeypatch):
    for said, expected in (({"amx_bf16": True}, True), ({"amx_bf16": False}, False), ({}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda said=said: said, raising=False)
        assert state.has_amx() is expected


@pytest.mark.parametrize(
    ("architecture", "wanted", "expected"),
    [
        ("hybrid", "auto", True),
        ("hybrid", "contiguous", False),
        ("conv", "auto", False),
        ("conv", "channels_last", True),
    ],
)
def test_auto_layout_on_a_cpu_is_channels_last_for_hybrids(architecture, wanted, expected):
    settings = (
        "device=cpu",
        f"model.architecture={architecture}",
        f"memory_format={wanted}",
        "augment.jitter=0",
    )
    config = resolve_config("lfw100", settings=[*settings, "objective.pool_size=8"])
    built = state.build_state(config, torch.zeros(8, 1, 25, 25), StepContext())
    layouts = {
        p.is_contiguous(memory_format=torch.channels_last)
        for p in built.model.parameters()
        if p.dim() == 4 and min(p.shape[1:3]) > 1
    }
    assert layouts == {expected}


class KilledAtSix(Progress):
    """Ends the run as if it were killed, two updates after a checkpoint."""

    def stepped(self, step):
        if step.step == 6:
            raise RuntimeError("killed")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_hybrid_with_all_terms_resumes_to_the_same_bits(tmp_path, precision):
    config = resolve_config("lfw100", settings=[*SMALL, f"precision={precision}"])
    train(config, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="killed"):
        train(config, tmp_path / "parts", progress=KilledAtSix())
    resume(tmp_path / "parts")
    whole, parts = (load_checkpoint(tmp_path / name, "last").tensors for name in ("whole", "parts"))
    for kind, tensors in whole.items():
        for name, values in tensors.items():
            assert torch.equal(values, parts[kind][name]), (kind, name)
