"""Projector: what it answers, and that runs and folders give the same f back."""

import json
import math
import os
import random
from fractions import Fraction
from typing import Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from naign_ext import Projector, pretrained, projector
from naign_ext.checkpoint import CheckpointError, load_checkpoint
from naign_ext.config import resolve_config
from naign_ext.data import load_dataset
from naign_ext.evaluation.restoring import Recipe
from naign_ext.models import MLP, MODELS, MlpOptions
from naign_ext.pretrained import MOST_LAYERS, is_pretrained_folder
from naign_ext.projector import Score
from naign_ext.training.trainer import train
from naign_ext.transforms import corrupt


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


def test_restore_by_the_recipe_that_is_best_on_validation_images(run):
    projector = Projector.load(run)
    images = load_dataset("digits").for_validation().heldout[:30]
    choice = projector.choose_recipe(images, "noise", 1.0, seed=4)
    assert choice.images == 30
    assert choice.gain >= choice.gain_of_one_pass
    noisy, _ = corrupt(images, "noise", seed=4, strength=1.0)
    expected = choice.recipe.apply(projector.project, noisy).clamp(-1, 1)
    torch.testing.assert_close(projector.restore(noisy, recipe=choice.recipe), expected)
    assert torch.equal(projector.restore(noisy, recipe=Recipe()), projector.restore(noisy))
    kept = projector.choose_recipe(images, "blur", 2.0)
    free = projector.choose_recipe(images, "blur", 2.0, keep_known=False)
    assert kept.gain > free.gain


def test_recipes_are_for_images(vector_projector):
    with pytest.raises(ValueError, match="recipe: expected None for vectors"):
        vector_projector.restore(torch.zeros(1, 2), recipe=Recipe())
    with pytest.raises(ValueError, match="choose_recipe: expected a projector of images"):
        vector_projector.choose_recipe(torch.zeros(1, 2), "noise")


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


@pytest.fixture
def saved(vector_projector, tmp_path):
    """A folder of save_pretrained."""
    folder = tmp_path / "saved"
    vector_projector.save_pretrained(folder)
    return folder


NUMBERS = [
    np.float32(1.5),
    np.float16(1.5),
    np.float64(1.5),
    np.longdouble(1.5),
    np.array(1.5),
    torch.tensor(1.5),
    torch.tensor(1.5, dtype=torch.bfloat16),
    nn.Parameter(torch.tensor(1.5)),
    Fraction(3, 2),
]


@pytest.mark.parametrize("scale", NUMBERS, ids=lambda value: type(value).__name__)
def test_numbers_of_every_kind_survive_a_round_trip(scale, tmp_path):
    first = Projector("mlp", [3], {"widths": [4]}, latent_scale=scale)
    assert type(first.latent_scale) is float
    first.save_pretrained(tmp_path)
    again = Projector.from_pretrained(tmp_path)
    assert again.latent_scale == first.latent_scale == 1.5
    assert torch.equal(again.sample(5, seed=3), first.sample(5, seed=3))


@pytest.mark.parametrize(
    "shape",
    [
        (np.int64(1), np.uint8(2), 3),
        np.array([1, 2, 3]),
        torch.tensor([1, 2, 3]),
        [torch.tensor(1), 2, 3],
        torch.Size([1, 2, 3]),
    ],
    ids=str,
)
def test_sizes_of_every_kind_survive_a_round_trip(shape, tmp_path):
    options = {"widths": (np.int32(4), torch.tensor(5)), "input_gain": np.float32(0.5)}
    first = Projector("mlp", shape, options, about={"seed": np.int64(7), "range": (0, np.float32(0.25))})
    first.save_pretrained(tmp_path)
    again = Projector.from_pretrained(tmp_path)
    assert again.sample_shape == first.sample_shape == (1, 2, 3)
    assert again.about == first.about == {"seed": 7, "range": [0, 0.25]}
    assert again.options == {"widths": [4, 5], "input_gain": 0.5}
    assert torch.equal(again.sample(5), first.sample(5))


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"latent_scale": "2"}, TypeError, "latent_scale: expected a number, got '2'"),
        ({"latent_scale": True}, TypeError, "latent_scale: expected a number, got True"),
        ({"latent_scale": None}, TypeError, "latent_scale: expected a number"),
        ({"latent_scale": torch.ones(1)}, TypeError, "latent_scale: expected a number"),
        ({"latent_scale": 1j}, TypeError, "latent_scale: expected a number"),
        ({"latent_scale": math.nan}, ValueError, "latent_scale: expected a finite number > 0, got nan"),
        ({"latent_scale": 10**400}, ValueError, "latent_scale: expected a finite number > 0, got inf"),
        ({"latent_scale": 0}, ValueError, "latent_scale: expected a finite number > 0, got 0"),
        ({"sample_shape": 3}, TypeError, "sample_shape: expected"),
        ({"sample_shape": "33"}, TypeError, "sample_shape: expected whole numbers, got '3'"),
        ({"sample_shape": [3.5]}, TypeError, "sample_shape: expected whole numbers, got 3.5"),
        ({"sample_shape": [torch.tensor(2.0)]}, TypeError, "sample_shape: expected whole numbers"),
        ({"options": {"widths": {4}}}, TypeError, r"options\.widths: expected what JSON holds .*, got set"),
        ({"about": {"when": {"at": object()}}}, TypeError, r"about\.when\.at: expected what JSON holds"),
        ({"about": {"mean": np.ones(3)}}, TypeError, r"about\.mean: .*got ndarray; use .*tolist"),
        ({"about": {"scores": [1.0, math.inf]}}, ValueError, r"about\.scores\.1: expected a finite number"),
        ({"about": {3: "x"}}, TypeError, r"about\.3: expected a text as key, got 3"),
        ({"about": [1]}, TypeError, "about: expected a dict, got list"),
    ],
)
def test_what_a_folder_could_not_hold_is_refused(arguments, error, text):
    with pytest.raises(error, match=text):
        Projector(**{"architecture": "mlp", "sample_shape": [3], "options": {"widths": [4]}, **arguments})


def test_a_save_that_is_refused_leaves_the_folder_as_it_was(vector_projector, saved):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def refused(error, text):
        with pytest.raises(error, match=text):
            vector_projector.save_pretrained(saved)
        assert {path.name: path.read_bytes() for path in saved.iterdir()} == before

    vector_projector.about["picture"] = torch.ones(2)
    refused(TypeError, r"about\.picture: expected what JSON holds")
    vector_projector.about["picture"] = "x" * (1 << 20)
    refused(ValueError, "about: expected facts that fit into")
    vector_projector.about.clear()
    with torch.no_grad():
        vector_projector.f.layers[2].bias[1] = math.nan
    refused(ValueError, r"f: expected finite weights, layers\.2\.bias has others")


def test_facts_and_scale_changed_later_are_saved(vector_projector, tmp_path):
    vector_projector.about["steps"] = np.int64(5)
    vector_projector.latent_scale = np.float32(0.5)
    vector_projector.save_pretrained(tmp_path)
    again = Projector.from_pretrained(tmp_path)
    assert again.about == {"steps": 5}
    assert again.latent_scale == 0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("architecture", ["mlp", "conv"])
def test_every_method_works_in_fs_dtype(architecture, dtype, tmp_path):
    torch.manual_seed(0)
    options = {"widths": [16]} if architecture == "mlp" else {"base_channels": 4, "latent_dim": 8}
    plain = Projector(architecture, [1, 8, 8], options)
    x = torch.rand(3, 1, 8, 8) * 2 - 1
    expected = (plain.sample(3), plain.project(x), plain.restore(x, lost=x > 0), plain.score(x).residual)
    f = plain.to(dtype)
    tolerance = {torch.float16: 2e-2, torch.bfloat16: 0.15, torch.float64: 1e-5}[dtype]
    for given in (x, x.double(), x.to(dtype)):
        found = (f.sample(3), f.project(given), f.restore(given, lost=x > 0), f.score(given).residual)
        for one, other in zip(found, expected, strict=True):
            assert one.dtype == torch.float32
            torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
    assert {getattr(f.score(x), name).dtype for name in Score.__dataclass_fields__} == {torch.float32}
    assert f.log_density(x, 1.0).dtype == torch.float32
    assert torch.equal(f.project(x, steps=0), x)
    f.save_pretrained(tmp_path)
    again = Projector.from_pretrained(tmp_path)
    assert again.dtype == dtype
    assert torch.equal(again.sample(3), f.sample(3))


def test_a_program_may_compute_in_float64(saved):
    expected = Projector.from_pretrained(saved).sample(4)
    torch.set_default_dtype(torch.float64)
    try:
        made = Projector("mlp", [2], {"widths": [4]})
        assert made.dtype == torch.float64
        assert made.sample(2).dtype == made.log_density(torch.zeros(1, 2), 1.0).dtype == torch.float32
        assert torch.equal(Projector.from_pretrained(saved).sample(4), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_distance_of_a_double_f_is_measured_in_float64():
    f = clamp_projector(1).double()
    assert f.score(torch.tensor([[1 + 1e-12]], dtype=torch.float64)).residual.item() == pytest.approx(
        1e-12, rel=1e-3
    )


def with_config(**changes):
    def change(folder):
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return change


def with_text(text):
    return lambda folder: (folder / "config.json").write_text(text)


def with_tensors(change):
    def write(folder):
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return write


def with_pipe(name):
    def write(folder):
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return write


def with_device(name):
    def write(folder):
        (folder / name).unlink()
        (folder / name).symlink_to("/dev/zero")

    return write


def with_header(header):
    def write(folder):
        text = json.dumps(header).encode()
        (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(64))

    return write


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (with_text("[]"), r"config\.json: the whole: expected"),
        (with_text("{"), r"config\.json is not JSON"),
        (with_text("[" * 100_000), r"config\.json is not JSON"),
        (with_text('{"latent_scale": ' + "9" * 5000 + "}"), r"config\.json is not JSON"),
        (with_text(" " * (1 << 20) + "{}"), r"config\.json: expected at most 1048576 bytes"),
        (with_config(sample_shape="22"), r"config\.json: sample_shape: expected"),
        (with_config(sample_shape=[2.0]), r"config\.json: sample_shape\.0: expected a valid integer"),
        (with_config(sample_shape=[True]), r"config\.json: sample_shape\.0: expected a valid integer"),
        (with_config(sample_shape=[]), r"config\.json: sample_shape: "),
        (with_config(sample_shape=[-1]), r"config\.json: sample_shape\.0: "),
        (with_config(sample_shape=[10**12]), r"config\.json: sample_shape\.0: "),
        (with_config(latent_scale="1.0"), r"config\.json: latent_scale: expected a valid number"),
        (with_config(latent_scale=math.nan), r"config\.json: latent_scale: expected a finite number"),
        (with_config(latent_scale=0), r"config\.json: latent_scale: expected greater than 0|latent_scale"),
        (with_config(latent_scal=2.0), r"config\.json: latent_scal: "),
        (with_config(about={"x": math.inf}), r"config\.json: about\.x: expected a finite number"),
        (with_config(architecture=["mlp"]), r"config\.json: architecture: expected a valid string"),
        (with_config(architecture="lstm"), r"config\.json: architecture: expected one of"),
        (with_config(options={"widths": [16, "a"]}), r"config\.json: widths\.1: expected"),
        (with_config(options={"width": [16]}), r"config\.json: width: architecture 'mlp' has no such option"),
        (
            with_config(options={"widths": [1] * (MOST_LAYERS + 1)}),
            r"config\.json: options\.widths: expected at most",
        ),
        (
            with_config(options={"widths": [2**20, 16]}),
            r"safetensors: layers\.0\.weight: expected shape \(1048576",
        ),
        (
            with_config(options={"widths": [10**10] * 2}),
            r"config\.json: widths: expected at most 1000 widths",
        ),
        (
            with_config(options={"widths": [16]}),
            r"safetensors: has layers\.4\.bias, layers\.4\.weight, which",
        ),
        (with_config(options={"widths": [16] * 3}), r"safetensors: lacks layers\.6\.weight, layers\.6\.bias"),
        (with_pipe("config.json"), r"config\.json cannot be read: not a regular file"),
        (with_device("config.json"), r"config\.json cannot be read: not a regular file"),
        (with_pipe("model.safetensors"), r"model\.safetensors cannot be used: it is missing or no file"),
        (with_device("model.safetensors"), r"model\.safetensors cannot be used: it is missing or no file"),
        (with_tensors(lambda t: t.pop("layers.0.bias")), r"safetensors: lacks layers\.0\.bias"),
        (with_tensors(lambda t: t.update(extra=torch.ones(1))), r"safetensors: has extra, which"),
        (
            with_tensors(lambda t: t.update({"layers.0.bias": torch.ones(4, 4)})),
            r"layers\.0\.bias: expected shape \(16,\) by config\.json, got \(4, 4\)",
        ),
        (
            with_tensors(lambda t: t.update({"layers.0.bias": torch.ones(16, dtype=torch.int64)})),
            r"layers\.0\.bias: expected a dtype like torch\.float32, got torch\.int64",
        ),
        (
            with_tensors(lambda t: t["layers.2.bias"].fill_(math.nan)),
            r"safetensors: layers\.2\.bias has values that are not finite",
        ),
        (
            with_header({"a": {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 2**62]}}),
            "cannot be used",
        ),
        (with_header({"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}}), "cannot be used"),
        (with_header({"a": {"dtype": "F99", "shape": [16], "data_offsets": [0, 64]}}), "cannot be used"),
        (with_header([]), "cannot be used"),
    ],
)
def test_a_folder_from_others_is_checked_and_named(saved, damage, text):
    damage(saved)
    for load in (Projector.from_pretrained, Projector.load):
        with pytest.raises(CheckpointError, match=f"damaged: .*{text}") as caught:
            load(saved)
        assert len(str(caught.value).splitlines()) == 1


def test_a_sparse_file_of_weights_is_refused_before_it_is_read(saved, monkeypatch):
    monkeypatch.setattr(pretrained, "available_bytes", lambda: 1000)
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be used: \d+ bytes are more than"):
        Projector.from_pretrained(saved)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_any_damaged_byte_loads_or_is_said(saved, name):
    drawn = random.Random(0)
    whole = (saved / name).read_bytes()
    refused = 0
    for _ in range(300):
        contents = bytearray(whole)
        for _ in range(drawn.choice((1, 1, 3))):
            contents[drawn.randrange(min(len(contents), 600))] = drawn.randrange(256)
        if drawn.random() < 0.2:
            del contents[drawn.randrange(len(contents)) :]
        (saved / name).write_bytes(contents)
        try:
            Projector.from_pretrained(saved).sample(2)
        except CheckpointError as error:
            assert f"damaged: {name}" in str(error) or "damaged: model.safetensors" in str(error)
            refused += 1
    assert refused > 200


def test_weights_of_a_run_that_are_not_finite_are_named(run, monkeypatch):
    whole = load_checkpoint(run, "last")
    next(value for value in whole.ema.values() if value.is_floating_point()).fill_(math.nan)
    monkeypatch.setattr(projector, "load_checkpoint", lambda *_: whole)
    with pytest.raises(
        CheckpointError, match=r"damaged: ema\.safetensors: \S+ has values that are not finite"
    ):
        Projector.load(run)


def test_samples_that_do_not_fit_are_refused_before_memory_is_taken(vector_projector, monkeypatch):
    with pytest.raises(
        ValueError, match=r"n: 10{15} samples take 80{15} bytes, .* take them in parts from sample_batches"
    ):
        vector_projector.sample(10**15)
    monkeypatch.setattr(projector, "available_bytes", lambda: 800)
    assert len(vector_projector.sample(100)) == 100
    with pytest.raises(ValueError, match="n: 101 samples take 808 bytes, of which 800 are free"):
        vector_projector.sample(101)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batches_have_rows(vector_projector, batch_size):
    for call in (vector_projector.project, vector_projector.score, vector_projector.restore):
        with pytest.raises(ValueError, match="batch_size: expected 1 or more"):
            call(torch.zeros(3, 2), batch_size=batch_size)
    with pytest.raises(ValueError, match="batch_size: expected 1 or more"):
        vector_projector.sample(3, batch_size=batch_size)


class ScaledOptions(MlpOptions):
    architecture: Literal["scaled"] = "scaled"


def test_a_network_that_reads_its_weights_while_it_is_made_is_loaded(tmp_path, monkeypatch):
    class Scaled(MLP):
        def __init__(self, sample_shape, options):
            super().__init__(sample_shape, options)
            self.largest = self.layers[0].weight.abs().max().item()

    monkeypatch.setitem(MODELS._entries, "scaled", Scaled)
    monkeypatch.setattr(Scaled, "Options", ScaledOptions)
    first = Projector("scaled", [2], {"widths": [4]})
    first.save_pretrained(tmp_path)
    assert torch.equal(Projector.from_pretrained(tmp_path).sample(3), first.sample(3))
    with_tensors(lambda t: t.pop("layers.0.bias"))(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"damaged: model\.safetensors cannot be used: .*layers\.0\.bias"
    ):
        Projector.from_pretrained(tmp_path)
