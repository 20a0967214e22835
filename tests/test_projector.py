"""Projector: what it answers, and that runs and folders give the same f back."""

import json
import math

import pytest
import torch
from torch import nn

from naign_ext import Projector
from naign_ext.checkpoint import CheckpointError, load_checkpoint
from naign_ext.config import resolve_config
from naign_ext.projector import Score, is_pretrained_folder
from naign_ext.training.trainer import train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of 30 steps on handwritten digits."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    settings = ["steps=30", "objective.pool_size=64", "log.checkpoint_every=15", "log.tensorboard=false"]
    train(resolve_config("digits", "quick", settings=settings), folder)
    return folder


@pytest.fixture
def vector_projector():
    torch.manual_seed(0)
    return Projector("mlp", [2], {"widths": [16, 16]}, latent_scale=2.0)


class Clamp(nn.Module):
    """Projects onto the box [-1, 1]^D; a parameter only so that it has a device."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return x.clamp(-1, 1)


def clamp_projector(dimension):
    projector = Projector("mlp", [dimension], {"widths": [2]})
    projector.f = Clamp()
    return projector


def test_load_is_the_checkpoints_f(run):
    projector = Projector.load(run, device="cpu")
    checkpoint = load_checkpoint(run, "best")
    x = torch.rand(5, 1, 8, 8) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(projector.project(x), checkpoint.build("ema")(x), rtol=0, atol=0)
    assert projector.sample_shape == (1, 8, 8)
    assert projector.kind == "image"
    assert projector.latent_scale == checkpoint.latent_scale
    assert projector.about["dataset"] == "digits"
    assert not projector.training


def test_load_chooses_weights_and_checkpoint(run):
    x = torch.rand(3, 1, 8, 8) * 2 - 1
    last = Projector.load(run, weights="model", checkpoint="last")
    first = Projector.load(run, weights="model", checkpoint=15)
    assert last.about["step"] == 30
    assert first.about["step"] == 15
    assert not torch.equal(last.project(x), first.project(x))
    assert not torch.equal(last.project(x), Projector.load(run, checkpoint="last").project(x))
    one = Projector.load(run / "checkpoints" / "step_00000015", weights="model")
    torch.testing.assert_close(one.project(x), first.project(x), rtol=0, atol=0)


def test_load_leaves_the_random_state_alone(run):
    state = torch.get_rng_state()
    Projector.load(run)
    assert torch.equal(state, torch.get_rng_state())


def test_load_errors_are_users_errors(tmp_path, run):
    with pytest.raises(CheckpointError, match="no checkpoint there"):
        Projector.load(tmp_path)
    with pytest.raises(ValueError, match="weights: expected 'ema' or 'model', got 'best'"):
        Projector.load(run, weights="best")
    with pytest.raises(CheckpointError, match="no checkpoint of step 7"):
        Projector.load(run, checkpoint=7)
    with pytest.raises(ValueError, match="device: expected one that torch sees"):
        Projector.load(run, device="cuda:99")


def test_pretrained_folder_round_trip(run, tmp_path, capsys):
    projector = Projector.load(run)
    projector.save_pretrained(tmp_path / "saved")
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert names == {"model.safetensors", "config.json", "README.md"}
    assert is_pretrained_folder(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config["sample_shape"] == [1, 8, 8]
    x = torch.rand(4, 1, 8, 8) * 2 - 1
    for again in (Projector.from_pretrained(tmp_path / "saved"), Projector.load(tmp_path / "saved")):
        torch.testing.assert_close(again.project(x), projector.project(x), rtol=0, atol=0)
        torch.testing.assert_close(again.sample(3, seed=5), projector.sample(3, seed=5), rtol=0, atol=0)
        assert again.about == projector.about
        assert again.latent_scale == projector.latent_scale
        assert not again.training
    again.save_pretrained(tmp_path / "twice")
    assert json.loads((tmp_path / "twice" / "config.json").read_text()) == config
    card = (tmp_path / "saved" / "README.md").read_text()
    assert "library_name: naign" in card
    assert capsys.readouterr().out == ""


def test_damaged_pretrained_folders_are_named(run, tmp_path):
    Projector.load(run).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be used"):
        Projector.from_pretrained(tmp_path)
    file.unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be used"):
        Projector.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="lacks architecture, sample_shape"):
        Projector.from_pretrained(tmp_path)


def test_sample_depends_on_the_seed_alone(vector_projector):
    samples = vector_projector.sample(700, seed=1)
    assert samples.shape == (700, 2)
    torch.testing.assert_close(vector_projector.sample(700, seed=1, batch_size=64), samples)
    torch.testing.assert_close(vector_projector.sample(70, seed=1), samples[:70])
    assert not torch.equal(vector_projector.sample(700, seed=2), samples)
    latents = vector_projector.sample(700, seed=1, steps=0)
    assert latents.std().item() == pytest.approx(2.0, rel=0.1)
    torch.testing.assert_close(vector_projector.project(latents), samples)
    torch.testing.assert_close(
        vector_projector.sample(700, seed=1, steps=2), vector_projector.project(samples)
    )


def test_project_takes_batches_and_single_points(vector_projector):
    x = torch.randn(5, 2)
    batch = vector_projector.project(x)
    torch.testing.assert_close(vector_projector.project(x[0]), batch[0])
    torch.testing.assert_close(vector_projector.project(x, steps=2), vector_projector.project(batch))
    assert torch.equal(vector_projector.project(x, steps=0), x)
    assert not batch.requires_grad
    assert vector_projector(x).requires_grad


def test_restore_keeps_what_is_known():
    projector = clamp_projector(4)
    x = torch.tensor([[3.0, -3.0, 0.5, 9.0]])
    assert projector.restore(x).tolist() == [[1.0, -1.0, 0.5, 1.0]]
    lost = torch.tensor([[True, False, False, False]])
    assert projector.restore(x, lost=lost, steps=3).tolist() == [[1.0, -3.0, 0.5, 9.0]]
    with pytest.raises(TypeError, match=r"lost: expected torch\.bool"):
        projector.restore(x, lost=lost.float())
    with pytest.raises(ValueError, match="lost: expected a shape that broadcasts"):
        projector.restore(x, lost=torch.ones(3, dtype=torch.bool))


def test_restore_puts_back_what_a_linear_map_let_pass():
    projector = clamp_projector(4)
    mean = torch.full((4, 4), 0.25)
    x = torch.tensor([[3.0, -3.0, 0.5, 9.0]])
    restored = projector.restore(x, degrade=lambda y: y @ mean)
    torch.testing.assert_close(restored.mean(), x.mean())
    torch.testing.assert_close(restored, x.clamp(-1, 1) - x.clamp(-1, 1).mean() + x)
    with pytest.raises(ValueError, match="degrade: expected None where lost is given"):
        projector.restore(x, lost=x > 0, degrade=torch.zeros_like)


def test_restore_clips_images(run):
    projector = Projector.load(run)
    x = 3 * torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    restored = projector.restore(x, lost=torch.zeros(2, 1, 8, 8, dtype=torch.bool))
    torch.testing.assert_close(restored, x.clamp(-1, 1))
    assert projector.restore(x).abs().max() <= 1


def test_score_is_the_distance_f_moves():
    score = clamp_projector(2).score(torch.tensor([[4.0, 5.0], [0.5, -0.5]]))
    assert isinstance(score, Score)
    assert score.residual.tolist() == [5.0, 0.0]
    assert score.energy.tolist() == [25.0, 0.0]
    assert score.normalised.shape == (2,)


@pytest.mark.parametrize("dimension", [1, 2])
def test_density_integrates_to_one(dimension):
    projector = clamp_projector(dimension)
    temperature = 0.3
    # p is constant on the box, with Gaussian flanks: Z = (2 + sqrt(pi T))^D.
    expected = -dimension * math.log(2 + math.sqrt(math.pi * temperature))
    found = projector.log_density(torch.zeros(1, dimension), temperature, bounds=[(-6.0, 6.0)] * dimension)
    assert found.item() == pytest.approx(expected, abs=1e-3)
    outside = projector.log_density(torch.full((1, dimension), 2.0), temperature)
    difference = outside - projector.log_density(torch.zeros(1, dimension), temperature)
    assert difference.item() == pytest.approx(-dimension / temperature, abs=1e-4)


def test_density_with_the_default_box_is_normalised(vector_projector):
    projector = Projector("mlp", [1], {"widths": [16]})
    projector.f = Clamp()
    axis = torch.linspace(-8, 8, 4001)[:, None]
    log_p = projector.log_density(axis, 0.05)
    assert torch.trapezoid(log_p.exp(), axis[:, 0]).item() == pytest.approx(1.0, abs=1e-3)


def test_density_in_high_dimension_is_not_normalised():
    projector = clamp_projector(5)
    x = torch.full((1, 5), 2.0)
    assert projector.log_density(x, 2.0).item() == pytest.approx(-5 / 2)
    with pytest.raises(ValueError, match="bounds: the density of 5 dimensions is not normalised"):
        projector.log_density(x, 2.0, bounds=[(-1, 1)] * 5)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda p: p.project(torch.ones(3, 3)), ValueError, r"x: expected shape \(N, 2\) or \(2\), got"),
        (lambda p: p.project([1.0, 2.0]), TypeError, "x: expected a torch.Tensor"),
        (lambda p: p.score(torch.ones(3, 2, dtype=torch.uint8)), TypeError, "x: expected floating values"),
        (lambda p: p.sample(0), ValueError, "n: expected at least 1"),
        (lambda p: p.sample(2, steps=-1), ValueError, "steps: expected 0 or more"),
        (lambda p: p.restore(torch.ones(1, 2), steps=-1), ValueError, "steps: expected 0 or more"),
        (lambda p: p.log_density(torch.ones(1, 2), 0.0), ValueError, "temperature: expected a positive"),
        (lambda p: p.log_density(torch.ones(1, 2), 1.0, bounds=[(0, 1)]), ValueError, "bounds: expected 2"),
    ],
)
def test_errors_name_the_argument(vector_projector, call, error, text):
    with pytest.raises(error, match=text):
        call(vector_projector)
