"""Networks: exact shapes, seeded initialisation, options that do what they say."""

import copy

import pytest
import torch
from torch import nn

from naign_ext.models import MODELS, build_model, model_options, parameter_count
from naign_ext.models.conv import automatic_depth
from naign_ext.models.hybrid import automatic_unshuffle

IMAGE_SHAPES = [
    (1, 25, 25),
    (3, 25, 31),
    (1, 8, 8),
    (3, 64, 64),
    (1, 28, 28),
    (3, 2, 2),
    (1, 7, 40),
    (3, 5, 3),
]


def draw(shape, count=4, seed=0):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(1,), (2,), (625,), (1, 8, 8), (3, 25, 31)])
@pytest.mark.parametrize("normalisation", ["none", "batch", "layer"])
def test_mlp_keeps_the_shape(shape, normalisation):
    model = build_model("mlp", shape, widths=[16, 4, 16], normalisation=normalisation)
    x = draw(shape)
    assert model(x).shape == x.shape
    assert model(x[:0]).shape == (0, *shape) or normalisation == "batch"


@pytest.mark.parametrize("shape", IMAGE_SHAPES)
@pytest.mark.parametrize("normalisation", ["none", "batch", "layer"])
def test_conv_keeps_any_shape(shape, normalisation):
    model = build_model("conv", shape, base_channels=4, latent_dim=6, normalisation=normalisation)
    x = draw(shape)
    assert model(x).shape == x.shape
    assert model.encode(x).shape == (4, 6)


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_conv_takes_every_depth_down_to_one_pixel(depth):
    model = build_model("conv", (1, 25, 27), base_channels=2, depth=depth, latent_dim=3)
    x = draw((1, 25, 27))
    assert model(x).shape == x.shape
    assert model.coarse_shape[1:] == (-(-25 // 2**depth), -(-27 // 2**depth))


def test_automatic_depth_stops_at_four_pixels():
    expected = {2: 1, 4: 1, 8: 1, 9: 2, 16: 2, 25: 3, 28: 3, 32: 3, 64: 4, 256: 6}
    assert {side: automatic_depth(side, side + 5) for side in expected} == expected


@pytest.mark.parametrize("shape", [*IMAGE_SHAPES, (1, 1, 9), (3, 37, 50), (1, 128, 130)])
@pytest.mark.parametrize("normalisation", ["none", "batch", "layer"])
def test_hybrid_keeps_any_shape(shape, normalisation):
    model = build_model("hybrid", shape, widths=[16], channels=8, layers=3, normalisation=normalisation)
    x = draw(shape)
    assert model(x).shape == x.shape
    assert min(model.whole.sample_shape[1:]) <= 32


def test_automatic_unshuffle_leaves_sixteen_pixels():
    expected = {1: 1, 2: 2, 8: 2, 25: 2, 28: 2, 32: 2, 33: 2, 63: 2, 64: 4, 96: 4, 128: 8, 256: 16}
    assert {side: automatic_unshuffle(side, side + 5) for side in expected} == expected


def test_hybrid_begins_as_its_global_part_with_a_tenth_of_the_input():
    model = build_model("hybrid", (3, 9, 10), widths=[16], channels=8)
    x = draw((3, 9, 10))
    whole = model.whole(x)
    torch.testing.assert_close(model(x), whole + 0.1 * (x - whole))


def test_hybrid_is_the_stated_formula_and_its_details_come_from_nearby_but_for_the_whole():
    model = build_model("hybrid", (1, 40, 40), widths=[16], channels=8, layers=3, normalisation="none").eval()
    torch.manual_seed(1)
    nn.init.normal_(model.head.weight, std=0.1)
    nn.init.normal_(model.modulation.weight, std=0.1)
    x = draw((1, 40, 40))
    whole, hidden = model._see_whole(x)
    correction, kept = model._see_details(x, whole, hidden)
    torch.testing.assert_close(model(x), whole + kept.sigmoid() * (x - whole) + correction)
    assert model.whole.sample_shape == (1, 20, 20)
    moved = x.clone()
    moved[..., 0, 0] += 1
    near, _ = model._see_details(moved, whole, hidden)
    changed = (near != correction).any(dim=0)[0].nonzero()
    # Three 3 x 3 convolutions of cells of 2 x 2 pixels reach 3 cells beyond the one that changed.
    assert changed.amax() == 7
    assert not torch.equal(model._see_details(x, whole, hidden + 1)[0], correction)


def test_hybrid_in_the_layout_channels_last_answers_the_same():
    model = build_model("hybrid", (3, 17, 19), widths=[16], channels=8).eval()
    nn.init.normal_(model.head.weight, std=0.1)
    x = draw((3, 17, 19))
    expected = model(x)
    last = model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(last(x), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "shape"),
    [("mlp", (2,)), ("mlp", (1, 8, 8)), ("conv", (1, 9, 8)), ("hybrid", (1, 9, 8))],
)
def test_the_seed_decides_the_weights(architecture, shape):
    def weights(seed):
        torch.manual_seed(seed)
        return build_model(architecture, shape).state_dict()

    first, again, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize(("architecture", "shape"), [("mlp", (1, 8, 8)), ("conv", (3, 9, 8))])
def test_every_parameter_gets_a_gradient(architecture, shape):
    model = build_model(architecture, shape, activation="silu", normalisation="layer")
    model(draw(shape)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize(
    ("architecture", "shape"), [("mlp", (2,)), ("conv", (1, 5, 6)), ("hybrid", (3, 5, 6))]
)
def test_float64_agrees_with_float32(architecture, shape):
    model = build_model(architecture, shape).eval()
    x = draw(shape)
    precise = copy.deepcopy(model).double()(x.double())
    torch.testing.assert_close(model(x), precise.float(), atol=1e-5, rtol=1e-4)


def test_mlp_is_the_stated_formula():
    model = build_model("mlp", (3,), widths=[5], activation="relu", input_gain=3.0)
    first, _, last = model.layers
    x = draw((3,))
    expected = torch.relu(3 * x @ first.weight.T + first.bias) @ last.weight.T + last.bias
    torch.testing.assert_close(model(x), expected)


def test_parameter_count_of_an_mlp():
    # 2x4 + 4, 4x4 + 4, two normalisations of 2 x 4, 4x2 + 2
    model = build_model("mlp", (2,), widths=[4, 4], normalisation="batch")
    assert parameter_count(model) == 12 + 20 + 16 + 10
    next(model.parameters()).requires_grad_(False)
    assert parameter_count(model) == 12 + 20 + 16 + 10 - 8
    assert parameter_count(model, trainable_only=False) == 58


def test_batch_normalisation_follows_the_batch_in_training_and_the_running_values_after():
    model = build_model("mlp", (2,), widths=[8], normalisation="batch")
    layer = model.layers[1]
    assert isinstance(layer, nn.BatchNorm1d)
    x = draw((2,), 256) * 5 + 3
    for _ in range(200):
        model(x)
    trained = model(x)
    model.eval()
    torch.testing.assert_close(model(x), trained, atol=0.02, rtol=0.02)
    torch.testing.assert_close(model(x[:1]), model(x)[:1])
    assert not torch.allclose(model.train()(x[:2]), trained[:2], atol=0.02)


def test_layer_normalisation_does_not_mix_the_points_of_a_batch():
    for architecture, shape in (("mlp", (6,)), ("conv", (1, 9, 9)), ("hybrid", (1, 9, 9))):
        model = build_model(architecture, shape, normalisation="layer")
        x = draw(shape)
        torch.testing.assert_close(model(x)[:1], model(x[:1]), atol=1e-5, rtol=1e-4)


def test_all_that_leaves_the_conv_model_passes_the_bottleneck():
    model = build_model("conv", (1, 8, 8), base_channels=4, latent_dim=3).eval()
    x = draw((1, 8, 8))
    torch.testing.assert_close(model(x), model.decode(model.encode(x)))
    jacobian = torch.autograd.functional.jacobian(
        lambda v: model.double()(v.reshape(1, 1, 8, 8)).flatten(), x[0].double().flatten()
    )
    assert torch.linalg.matrix_rank(jacobian, rtol=1e-9) <= 3


@pytest.mark.parametrize("architecture", ["mlp", "conv", "hybrid"])
def test_a_small_image_set_can_be_learnt(architecture):
    torch.manual_seed(0)
    options = {
        "mlp": {"widths": [64]},
        "conv": {"base_channels": 8, "latent_dim": 16},
        "hybrid": {"widths": [64], "channels": 8},
    }
    model = build_model(architecture, (1, 9, 9), **options[architecture])
    x = draw((1, 9, 9), 8).tanh()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(300):
        loss = (model(x) - x).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.05 * x.var()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "shape", "options"),
    [
        ("mlp", (2,), {"widths": [8]}),
        ("conv", (1, 9, 7), {"base_channels": 2, "latent_dim": 3}),
        ("hybrid", (1, 9, 7), {"widths": [8], "channels": 4}),
    ],
)
def test_models_compile_without_graph_breaks(architecture, shape, options):
    model = build_model(architecture, shape, **options).eval()
    compiled = torch.compile(model, fullgraph=True)
    x = draw(shape)
    torch.testing.assert_close(compiled(x), model(x), atol=1e-5, rtol=1e-4)


def test_models_trace_to_a_full_graph():
    for architecture, shape in (("mlp", (2,)), ("conv", (1, 9, 7)), ("hybrid", (1, 9, 7))):
        model = build_model(architecture, shape, normalisation="batch")
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        x = draw(shape)
        torch.testing.assert_close(compiled(x), model(x))
        torch._dynamo.reset()


@pytest.mark.parametrize(
    ("architecture", "shape", "options", "kind", "fragment"),
    [
        (
            "transformer",
            (2,),
            {},
            ValueError,
            "architecture: expected one of mlp, conv, hybrid, got 'transformer'",
        ),
        ("mlp", (2,), {"depth": 3}, ValueError, "depth: architecture 'mlp' has no such option"),
        (
            "mlp",
            (2,),
            {"activation": "gelu"},
            ValueError,
            "activation: expected 'relu' or 'silu', got 'gelu'",
        ),
        (
            "mlp",
            (2,),
            {"normalisation": "group"},
            ValueError,
            "normalisation: expected 'none', 'batch' or 'layer', got",
        ),
        ("mlp", (2,), {"widths": []}, ValueError, "widths: expected at least one"),
        (
            "mlp",
            (2,),
            {"widths": [8, 0]},
            ValueError,
            r"widths: expected at least one width, all >= 1, got \[8, 0\]",
        ),
        ("mlp", (2,), {"widths": [8.5]}, ValueError, r"widths\.0: expected a valid integer, .* got 8\.5"),
        ("mlp", (2,), {"input_gain": 0.0}, ValueError, "input_gain: expected greater than 0, got 0.0"),
        (
            "mlp",
            (2,),
            {"input_gain": float("nan")},
            ValueError,
            "input_gain: expected a finite number, got nan",
        ),
        ("mlp", (), {}, ValueError, "sample_shape: expected"),
        ("mlp", (2.5,), {}, TypeError, "sample_shape: expected whole numbers, got 2.5"),
        ("conv", (2,), {}, ValueError, "sample_shape: a convolutional model expects"),
        ("conv", (2, 8, 8), {}, ValueError, "C 1 or 3"),
        ("conv", (1, 1, 8), {}, ValueError, "H, W of at least 2"),
        ("conv", (1, 8, 8), {"depth": 4}, ValueError, "depth: 4 halvings .* expected at most 3"),
        (
            "conv",
            (1, 8, 8),
            {"latent_dim": 0},
            ValueError,
            "latent_dim: expected greater than or equal to 1, got 0",
        ),
    ],
)
def test_wrong_options_are_named(architecture, shape, options, kind, fragment):
    with pytest.raises(kind, match=fragment):
        build_model(architecture, shape, **options)


@pytest.mark.parametrize(("architecture", "shape"), [("mlp", (2,)), ("conv", (1, 8, 8))])
def test_a_wrong_input_shape_is_named(architecture, shape):
    model = build_model(architecture, shape)
    with pytest.raises(ValueError, match=r"x: expected shape \(B, "):
        model(torch.zeros(4, 3, 3))


def test_the_options_name_the_architecture_they_belong_to():
    assert list(MODELS) == ["mlp", "conv", "hybrid"]
    for name, network in MODELS.items():
        assert network.Options().architecture == name
        assert network.Options().build_options().keys() <= model_options(name).keys()


def test_options_and_their_defaults_are_listed():
    assert model_options("mlp") == {
        "widths": (128, 128, 128),
        "activation": "relu",
        "normalisation": "none",
        "input_gain": 1.0,
    }
    assert set(model_options("conv")) == {
        "base_channels", "depth", "latent_dim", "activation", "normalisation",
    }  # fmt: skip
