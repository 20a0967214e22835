"""Training with a match in the features of a network of images: a run, its records, and resuming it bit for bit."""

import pytest
import torch

from naign_ext.checkpoint import CheckpointError, load_checkpoint
from naign_ext.config import load_config, resolve_config
from naign_ext.features import FEATURES
from naign_ext.features.vgg import Lpips, vgg_blocks
from naign_ext.metrics_log import read_metrics
from naign_ext.training.progress import Progress
from naign_ext.training.trainer import resume, train

STEPS = 8
SMALL = (
    f"steps={STEPS}",
    "batch_size=8",
    "device=cpu",
    "model.widths=[16, 8, 16]",
    "objective.pool_size=24",
    "objective.features=tiny",
    "log.every=2",
    "log.samples_every=0",
    "log.checkpoint_every=3",
    "log.tensorboard=false",
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """LPIPS's space with few channels, whose weights the run's seed draws."""
    monkeypatch.setattr(FEATURES, "_entries", dict(FEATURES._entries))
    FEATURES.register("tiny")(lambda shape, weights: Lpips(vgg_blocks((2, 3, 3, 4, 4)), shape))


class Killed(Progress):
    def stepped(self, step):
        if step.step == 5:
            raise RuntimeError("killed")


def same(a, b):
    one, other = load_checkpoint(a, "last"), load_checkpoint(b, "last")
    return all(
        torch.equal(value, other.tensors[file][name])
        for file in ("model", "ema", "optimizer", "state")
        for name, value in one.tensors[file].items()
    )


@pytest.mark.parametrize(
    "settings",
    [("objective.match=batch",), ("objective.match=dataset", "objective.resample_every=4", "precision=bf16")],
    ids=["batch", "dataset in bf16"],
)
def test_a_run_in_features_resumes_bit_for_bit(tmp_path, settings):
    config = resolve_config("lfw100", settings=[*SMALL, *settings])
    train(config, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="killed"):
        train(config, tmp_path / "run", progress=Killed())
    assert resume(tmp_path / "run").step == STEPS
    assert same(tmp_path / "whole", tmp_path / "run")
    for record in read_metrics(tmp_path / "run"):
        if record["kind"] == "train":
            assert record["terms"]["imle_features"] > 0
    assert load_config(tmp_path / "run" / "config.yaml").objective.features == "tiny"


def test_features_of_other_weights_are_refused_when_resuming(tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match="killed"):
        train(resolve_config("lfw100", settings=SMALL), tmp_path / "run", progress=Killed())
    blocks = vgg_blocks((2, 3, 3, 4, 4))
    monkeypatch.setitem(FEATURES._entries, "tiny", lambda shape, weights: Lpips(blocks, shape))
    with pytest.raises(CheckpointError, match="weights of tiny are not those the run began with"):
        resume(tmp_path / "run")
