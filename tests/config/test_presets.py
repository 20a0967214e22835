"""Presets: those recorded for the data sets there are, fitting and named for one that brings none."""

import json
from pathlib import Path

import pytest
import torch

from naign_ext.config import PRESETS, merge, preset_values, resolve_config
from naign_ext.data import DATASETS, Dataset, dataset, dataset_names, describe_datasets, load_dataset
from naign_ext.data.presets import FITTING, fitting

RECORDED = json.loads((Path(__file__).parent / "preset_values.json").read_text())


def test_every_data_set_is_recorded():
    assert list(RECORDED) == [*dataset_names(), "folder:pictures"]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", RECORDED)
def test_presets_have_the_recorded_values(name, preset):
    assert preset_values(preset, name) == RECORDED[name][preset]


def test_merging_presets_changes_neither_side():
    a, b = {"x": {"y": 1}}, {"x": {"z": 2}}
    assert merge(a, b) == {"x": {"y": 1, "z": 2}} and a == {"x": {"y": 1}} and b == {"x": {"z": 2}}
    preset_values("default", "digits")["objective"]["pool_size"] = -1
    assert preset_values("default", "digits")["objective"]["pool_size"] > 0


@pytest.mark.parametrize(
    ("kind", "shape", "fit"),
    [
        ("vector", (1,), "vectors of low dimension"),
        ("vector", (3,), "vectors of low dimension"),
        ("vector", (4,), "vectors"),
        ("vector", (784,), "vectors"),
        ("image", (1, 8, 8), "small grey images"),
        ("image", (1, 32, 32), "small grey images"),
        ("image", (1, 33, 20), "photos"),
        ("image", (3, 8, 8), "photos"),
    ],
)
def test_a_preset_fits_the_kind_and_the_shape(kind, shape, fit):
    assert fitting(kind, shape) == fit


@pytest.fixture
def registered(monkeypatch):
    """Registers for the length of a test."""
    monkeypatch.setattr(DATASETS, "_entries", dict(DATASETS._entries))
    return dataset


def own(name, shape):
    def load(*, seed=0):
        rows = torch.randn(40, *shape, generator=torch.Generator().manual_seed(seed))
        kind = "vector" if len(shape) == 1 else "image"
        return Dataset(name=name, kind=kind, train=rows[:30], heldout=rows[30:])

    return load


@pytest.mark.parametrize("fit", FITTING)
@pytest.mark.parametrize("preset", PRESETS)
def test_a_data_set_without_presets_gets_valid_ones_that_fit(registered, fit, preset):
    shape = {"vectors of low dimension": (2,), "vectors": (9,), "small grey images": (1, 9, 9)}.get(
        fit, (3, 9, 9)
    )
    kind = "vector" if len(shape) == 1 else "image"
    registered("own", kind=kind, sample_shape=shape, rows=(30, 10), source="a test")(own("own", shape))
    assert describe_datasets()[-1].preset == fit
    config = resolve_config("own", preset)
    assert list(config.model.widths) == FITTING[fit]["default"]["model"]["widths"]
    assert config.steps <= resolve_config("own", "default").steps
    data = load_dataset("own", image_size=config.image_size)
    assert data.sample_shape == shape
    if kind == "vector":
        assert not (config.augment.flip or config.augment.shift or config.augment.jitter)
        assert preset == "paper" or config.objective.restore_weight == 0


def test_a_data_set_may_bring_a_part_of_its_presets(registered):
    part = {"quick": {"steps": 7}}
    registered("own", kind="vector", sample_shape=(9,), source="a test", presets=part)(own("own", (9,)))
    assert describe_datasets()[-1].preset == "vectors"
    assert resolve_config("own", "quick").steps == 7
    assert resolve_config("own", "default").steps == FITTING["vectors"]["default"]["steps"]
    whole = {"default": {"steps": 9}}
    registered("whole", kind="vector", sample_shape=(9,), source="a test", presets=whole)(own("whole", (9,)))
    assert describe_datasets()[-1].preset == "its own"
    assert preset_values("quick", "whole") == preset_values("default", "whole") == {"steps": 9}


def test_a_loader_is_given_what_it_takes_and_the_rest_is_refused(registered):
    seen = {}

    def load(*, seed=0, path=None):
        seen.update(seed=seed, path=path)
        return own("files:PATH", (2,))(seed=seed)

    registered("files:PATH", kind="vector", sample_shape=(2,), source="a test")(load)
    load_dataset("files:some/where", seed=3)
    assert (seen["seed"], str(seen["path"])) == (3, "some/where")
    assert "files:PATH" not in dataset_names()
    with pytest.raises(ValueError, match=r"heldout_fraction: dataset 'files:x' has no such choice"):
        load_dataset("files:x", heldout_fraction=0.5)
    with pytest.raises(ValueError, match=r"dataset: expected a path after files:, got 'files:'"):
        load_dataset("files:")
    with pytest.raises(ValueError, match=r"dataset: 'files:PATH' is registered already"):
        registered("files:PATH", kind="vector", sample_shape=(2,), source="a test")(load)
