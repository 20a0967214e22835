"""Maps to features: LPIPS's space, DINOv2, maps by name, and what they say when something is missing."""

import importlib.util
import json
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from naign_ext.features import FEATURES, FeatureMap, FeaturesUnavailableError, build_feature_map
from naign_ext.features import registry as registry_module
from naign_ext.features.images import ImageNetInput
from naign_ext.features.vgg import Halve, Lpips, vgg16, vgg_blocks
from naign_ext.memory import NotEnoughMemoryError
from naign_ext.vision import import_torchvision

WIDTHS = (3, 4, 5, 6, 7)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """What a test registers goes with it."""
    monkeypatch.setattr(FEATURES, "_entries", dict(FEATURES._entries))


@pytest.fixture(autouse=True)
def nothing_on_this_machine(monkeypatch, tmp_path):
    monkeypatch.delenv("NAIGN_FEATURE_WEIGHTS", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


def images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def lpips(sample_shape, widths=WIDTHS):
    torch.manual_seed(1)
    return FeatureMap("lpips", Lpips(vgg_blocks(widths), sample_shape), sample_shape)


def lpips_distance(network, x, y):
    """LPIPS by its formula: over the blocks, the mean over places of |unit(a) - unit(b)|^2; (B,)."""
    mean = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
    deviation = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
    a, b = ((v - mean) / deviation for v in (x, y))
    total = 0
    for block in network.blocks:
        a, b = block(a), block(b)
        total += (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean(dim=(1, 2))
    return total


def test_the_squared_distance_is_that_of_lpips():
    phi = lpips((3, 64, 80))
    x, y = images(5, 3, 64, 80), images(5, 3, 64, 80, seed=1)
    with torch.no_grad():
        found = (phi(x) - phi(y)).square().sum(dim=1)
        torch.testing.assert_close(found, lpips_distance(phi.phi, x, y), rtol=1e-3, atol=1e-5)
    assert phi.size == sum(w * (64 >> i) * (80 >> i) for i, w in enumerate(WIDTHS))


def test_grey_and_small_images_are_repeated_and_enlarged():
    x = images(3, 1, 20, 25)
    seen = ImageNetInput((1, 20, 25), (64, 80))(x)
    grey = F.interpolate(x, (64, 80), mode="bilinear", align_corners=False).expand(-1, 3, -1, -1)
    deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    torch.testing.assert_close(seen, ((grey + 1) / 2 - mean) / deviation, rtol=1e-4, atol=1e-5)
    phi = lpips((1, 20, 25))
    with torch.no_grad():
        torch.testing.assert_close(phi(x), phi(x.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-6)
    assert phi.phi.input(x).shape == (3, 3, 64, 80)


def test_images_shrink_as_interpolate_does_antialiased():
    x = images(2, 3, 50, 41)
    layer = ImageNetInput((3, 50, 41), (14, 28))
    expected = F.interpolate(x, (14, 28), mode="bilinear", antialias=True, align_corners=False)
    torch.testing.assert_close(layer(x) * layer.deviation + layer.mean, (expected + 1) / 2)


def test_halving_is_max_pooling_with_its_gradient():
    x = images(2, 3, 9, 6).requires_grad_()
    y = x.detach().clone().requires_grad_()
    found, expected = Halve()(x), F.max_pool2d(y, 2)
    assert torch.equal(found, expected)
    (found**3).sum().backward()
    (expected**3).sum().backward()
    assert torch.equal(x.grad, y.grad)


def test_gradients_are_finite_and_reach_images_that_no_channel_answers():
    phi = lpips((3, 16, 16))
    for parameter in phi.parameters():
        assert not parameter.requires_grad
    with torch.no_grad():
        for layer in phi.phi.blocks[1]:
            if isinstance(layer, nn.Conv2d):
                layer.bias.fill_(-100)
    x = images(4, 3, 16, 16).requires_grad_()
    (phi(x) - phi(images(4, 3, 16, 16, seed=3))).square().sum().backward()
    assert x.grad.isfinite().all()
    assert (x.grad != 0).any()


def test_features_are_float32_under_autocast_and_in_evaluation_mode():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Dropout(0.9))
    phi = FeatureMap("dropped", network, (3, 2, 2))
    x = images(4, 3, 2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = phi(x)
    assert found.dtype == torch.float32
    assert torch.equal(found, network[1](x.flatten(1)))
    assert torch.equal(phi(x.bfloat16()), phi(x.bfloat16().float()))


def test_all_data_go_through_by_chunks(monkeypatch):
    seen = []

    def norms(x):
        seen.append(len(x))
        return torch.stack([x.flatten(1).norm(dim=1), x.flatten(1).sum(dim=1)], 1)

    phi = FeatureMap("norms", norms, (3, 2, 2))
    monkeypatch.setattr(registry_module, "automatic_chunk", lambda *_: 8)
    data = images(21, 3, 2, 2)
    seen.clear()
    features = phi.of_all(data)
    assert seen == [8, 8, 5]
    torch.testing.assert_close(features, norms(data))
    assert not features.requires_grad
    assert not features.is_inference()


def test_features_that_do_not_fit_are_refused_before_they_are_made(monkeypatch):
    phi = FeatureMap("wide", lambda x: x.flatten(1).repeat(1, 100), (4,))
    monkeypatch.setattr("naign_ext.memory.available_bytes", lambda device="cpu": 10_000)
    with pytest.raises(NotEnoughMemoryError, match=r"wide features \(50 rows of 400 numbers\).*train_rows"):
        phi.of_all(torch.zeros(50, 4))


def test_a_map_by_name_is_drawn_from_the_seed_alone():
    FEATURES.register("drawn")(lambda shape, weights: nn.Linear(shape[0], 5))
    state = torch.get_rng_state()
    torch.manual_seed(3)
    first = build_feature_map("drawn", (4,), seed=1)
    torch.manual_seed(4)
    again, other = build_feature_map("drawn", (4,), seed=1), build_feature_map("drawn", (4,), seed=2)
    x = images(3, 4)
    assert torch.equal(first(x), again(x))
    assert not torch.equal(first(x), other(x))
    assert torch.equal(first.digest(), again.digest())
    assert not torch.equal(first.digest(), other.digest())
    torch.manual_seed(9)
    before = torch.get_rng_state()
    build_feature_map("drawn", (4,))
    assert torch.equal(torch.get_rng_state(), before)
    torch.set_rng_state(state)


@pytest.mark.parametrize(
    ("phi", "got"), [(lambda x: x.sum(), r"\(\)"), (lambda x: x[:1], r"\(1, 4\)"), (lambda x: 3, "int")]
)
def test_maps_that_are_none_are_named(phi, got):
    with pytest.raises(
        ValueError, match=rf"features: odd: expected features \(B, \.\.\.\) of 2 rows, got {got}"
    ):
        FeatureMap("odd", phi, (4,))


@pytest.mark.parametrize("name", ["vgg16", "dinov2"])
def test_data_that_are_no_images_are_refused(name):
    for shape in ((7,), (2, 32, 32)):
        with pytest.raises(
            ValueError, match=rf"features: {name} is for images \(1 or 3, H, W\), got .*use none"
        ):
            build_feature_map(name, shape)


def test_missing_weights_are_told_in_words(tmp_path, monkeypatch):
    with pytest.raises(FeaturesUnavailableError) as caught:
        build_feature_map("vgg16", (3, 32, 32))
    for part in (
        str(tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth"),
        "https://download.pytorch.org/models/vgg16-397923af.pth",
        "objective.feature_weights",
        "NAIGN_FEATURE_WEIGHTS",
        "objective.features=none",
    ):
        assert part in str(caught.value)
    with pytest.raises(
        FeaturesUnavailableError, match=r"DINOv2 needs a folder.*save_pretrained.*objective\."
    ):
        build_feature_map("dinov2", (3, 32, 32))
    monkeypatch.setenv("NAIGN_FEATURE_WEIGHTS", str(tmp_path / "elsewhere"))
    with pytest.raises(FeaturesUnavailableError, match="elsewhere"):
        build_feature_map("vgg16", (3, 32, 32))
    with pytest.raises(FeaturesUnavailableError, match="given"):
        build_feature_map("vgg16", (3, 32, 32), weights=tmp_path / "given")
    for contents in ({}, {"features.0.weight": torch.zeros(64, 3, 3, 3)}):
        torch.save(contents, tmp_path / "given")
        with pytest.raises(FeaturesUnavailableError, match="given is no VGG16 of torchvision"):
            build_feature_map("vgg16", (3, 32, 32), weights=tmp_path / "given")
    (tmp_path / "given").write_bytes(b"not weights")
    with pytest.raises(FeaturesUnavailableError, match="given is no VGG16 of torchvision"):
        build_feature_map("vgg16", (3, 32, 32), weights=tmp_path / "given")


@pytest.mark.slow
def test_vgg16_is_torchvisions(tmp_path):
    torch.manual_seed(0)
    layers = import_torchvision("models").vgg.make_layers(import_torchvision("models").vgg.cfgs["D"])
    file = tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth"
    file.parent.mkdir(parents=True)
    weights = {f"features.{name}": value for name, value in layers.state_dict().items()}
    torch.save({**weights, "classifier.0.bias": torch.zeros(4096)}, file)
    phi = build_feature_map("vgg16", (3, 64, 64))
    x = images(2, 3, 64, 64)
    with torch.no_grad():
        activations, parts = phi.phi.input(x), []
        for i, layer in enumerate(layers):
            activations = layer(activations)
            # relu1_2, relu2_2, relu3_3, relu4_3, relu5_3, as LPIPS numbers them.
            if i in (3, 8, 15, 22, 29):
                unit = F.normalize(activations, dim=1) / (activations.shape[2] * activations.shape[3]) ** 0.5
                parts.append(unit.flatten(1))
        torch.testing.assert_close(phi(x), torch.cat(parts, 1), rtol=1e-3, atol=1e-6)
    assert phi.size == 499_712
    assert vgg16((1, 16, 16), file).input(images(1, 1, 16, 16)).shape == (1, 3, 64, 64)


def test_dinov2_from_a_folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dinov2"}))
    if importlib.util.find_spec("transformers") is None:
        with pytest.raises(FeaturesUnavailableError, match="needs the package transformers"):
            build_feature_map("dinov2", (1, 8, 8), weights=tmp_path)
        return
    import_torchvision()
    import transformers

    tiny = transformers.Dinov2Config(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=28
    )
    transformers.Dinov2Model(tiny).save_pretrained(tmp_path)
    phi = build_feature_map("dinov2", (1, 8, 8), weights=tmp_path)
    x = images(3, 1, 8, 8).requires_grad_()
    found = phi(x)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    (found - found.detach()[[1, 2, 0]]).square().sum().backward()
    assert (x.grad != 0).any()


def test_objectives_without_features_load_no_library_of_them():
    code = "import sys, naign_ext.objectives; print({'torchvision', 'transformers'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
