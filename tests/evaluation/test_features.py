"""Feature spaces and the cached classifier: what they answer, and what they say when something is missing."""

import importlib.util
import json
import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import nn

from naign_ext.data import Dataset
from naign_ext.evaluation import SPACES, FeaturesUnavailableError, dataset_classifier, feature_space
from naign_ext.evaluation import classifier as classifier_module
from naign_ext.vision import import_torchvision


def pictures(labels=True):
    rng = torch.Generator().manual_seed(0)
    classes = torch.arange(100) % 2
    images = torch.where(classes[:, None, None, None] > 0, 0.5, -0.5) + 0.2 * torch.randn(
        100, 1, 6, 6, generator=rng
    )
    return Dataset(
        name="tiny/pictures",
        kind="image",
        train=images[:80],
        heldout=images[80:],
        train_labels=classes[:80] if labels else None,
        heldout_labels=classes[80:] if labels else None,
    )


def test_the_classifier_is_trained_once_and_kept(tmp_path, monkeypatch):
    dataset = pictures()
    first, accuracy = dataset_classifier(dataset, tmp_path)
    files = list(tmp_path.iterdir())
    assert [file.suffix for file in files] == [".safetensors"]
    assert files[0].name.startswith("tiny-pictures-")
    with safe_open(files[0], "pt") as stored:
        assert stored.metadata()["accuracy_heldout"] == str(accuracy) == "1.0"
    monkeypatch.setattr(classifier_module, "fit_classifier", None)
    state = torch.get_rng_state()
    second, again = dataset_classifier(dataset, tmp_path)
    assert torch.equal(state, torch.get_rng_state())
    assert again == accuracy
    assert torch.equal(first.features(dataset.heldout), second.features(dataset.heldout))


def test_a_kept_classifier_that_is_too_large_is_not_read(tmp_path):
    dataset = pictures()
    first, _ = dataset_classifier(dataset, tmp_path)
    (file,) = tmp_path.iterdir()
    with file.open("r+b") as hole:
        hole.truncate(1 << 40)
    assert classifier_module._read(file, dataset.sample_shape, int(dataset.train_labels.max()) + 1) is None
    again, _ = dataset_classifier(dataset, tmp_path)
    assert torch.equal(first.features(dataset.heldout), again.features(dataset.heldout))
    assert file.stat().st_size < 1 << 24


def test_training_a_classifier_touches_no_generator(monkeypatch):
    """Neither torch's own nor those of GPUs, which torch.manual_seed would seed as well."""
    seeded = []
    for name in ("manual_seed", "manual_seed_all"):
        monkeypatch.setattr(torch.cuda, name, seeded.append)
    before = torch.get_rng_state()
    data = pictures()
    first, second = (
        classifier_module.fit_classifier(data.train, data.train_labels, steps=2) for _ in range(2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert not seeded
    for one, other in zip(first.head.parameters(), second.head.parameters(), strict=True):
        assert torch.equal(one, other)


def test_other_data_and_damaged_files_are_trained_anew(tmp_path):
    dataset = pictures()
    dataset_classifier(dataset, tmp_path)
    file = next(tmp_path.iterdir())
    weights = load_file(file)
    next(iter(weights.values())).view(-1)[0] = math.nan
    for contents in (b"damaged", save(weights)):
        file.write_bytes(contents)
        found, accuracy = dataset_classifier(dataset, tmp_path)
        assert (found.classes, accuracy) == (2, 1.0)
    other = Dataset(
        name=dataset.name,
        kind="image",
        train=dataset.train + 0.1,
        heldout=dataset.heldout[:0],
        train_labels=dataset.train_labels,
    )
    assert dataset_classifier(other, tmp_path)[1] is None
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path):
    (tmp_path / "file").write_text("")
    assert dataset_classifier(pictures(), tmp_path / "file" / "below")[1] == 1.0


def test_the_default_folder_is_the_environments(tmp_path, monkeypatch):
    monkeypatch.setenv("NAIGN_CACHE", str(tmp_path / "cache"))
    assert classifier_module.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("NAIGN_CACHE")
    monkeypatch.setenv("NAIGN_DATA", str(tmp_path))
    assert classifier_module.cache_folder() == tmp_path / "classifiers"


def test_pixels_and_components():
    dataset = pictures()
    x = dataset.heldout
    assert torch.equal(feature_space("pixels", dataset)(x), x.flatten(1))
    components = feature_space("pca", dataset)(dataset.train)
    assert components.shape == (80, 36)
    # A rotation: distances stay, the coordinates are uncorrelated and in falling order of variance.
    torch.testing.assert_close(
        torch.pdist(components), torch.pdist(dataset.train.flatten(1)), rtol=1e-4, atol=1e-4
    )
    covariance = components.T.cov()
    off_diagonal = covariance - torch.diag(covariance.diagonal())
    assert off_diagonal.abs().max() < 1e-4 * covariance.max()
    assert (covariance.diagonal().diff() < 1e-6).all()


def test_classifiers_features():
    dataset = pictures()
    classifier, _ = dataset_classifier(dataset)
    space = feature_space("classifier", dataset, classifier=classifier)
    assert torch.equal(space(dataset.heldout), classifier.features(dataset.heldout))
    with pytest.raises(FeaturesUnavailableError, match="no labels to train a classifier on"):
        feature_space("classifier", pictures(labels=False))


def test_inception_from_a_weights_file(tmp_path):
    network = import_torchvision("models").inception_v3(weights=None, aux_logits=True, init_weights=False)
    file = tmp_path / "inception.pth"
    torch.save(network.state_dict(), file)
    dataset = pictures()
    found = feature_space("inception", dataset, weights=file)(dataset.heldout[:2])
    assert found.shape == (2, 2048)
    assert found.isfinite().all()
    file.write_bytes(b"not weights")
    with pytest.raises(FeaturesUnavailableError, match="is no Inception v3"):
        feature_space("inception", dataset, weights=file)


def test_missing_weights_are_told_in_words(tmp_path, monkeypatch):
    monkeypatch.delenv("NAIGN_FEATURE_WEIGHTS", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    dataset = pictures()
    with pytest.raises(FeaturesUnavailableError, match=r"inception_v3_google.*--feature-weights"):
        feature_space("inception", dataset)
    with pytest.raises(FeaturesUnavailableError, match=r"DINOv2 needs a folder with config\.json"):
        feature_space("dinov2", dataset)
    monkeypatch.setenv("NAIGN_FEATURE_WEIGHTS", str(tmp_path / "elsewhere"))
    with pytest.raises(FeaturesUnavailableError, match="elsewhere"):
        feature_space("inception", dataset)


def test_dinov2_from_a_folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dinov2"}))
    if importlib.util.find_spec("transformers") is None:
        with pytest.raises(FeaturesUnavailableError, match="needs the package transformers"):
            feature_space("dinov2", pictures(), weights=tmp_path)
        return
    import_torchvision()
    import transformers

    tiny = transformers.Dinov2Config(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=28
    )
    transformers.Dinov2Model(tiny).save_pretrained(tmp_path)
    found = feature_space("dinov2", pictures(), weights=tmp_path)(pictures().heldout[:3])
    assert found.shape == (3, 24)
    assert found.std(0).max() > 0


def test_vectors_and_unknown_names_are_refused():
    rows = Dataset(name="rows", kind="vector", train=torch.randn(9, 3), heldout=torch.randn(9, 3))
    with pytest.raises(ValueError, match="inception is for images"):
        feature_space("inception", rows)
    with pytest.raises(ValueError, match=f"features: expected one of {', '.join(SPACES)}, got 'vgg'"):
        feature_space("vgg", rows)
    assert isinstance(feature_space("pca", rows).map(rows.heldout), torch.Tensor)
    assert not isinstance(feature_space("pixels", rows), nn.Module)
