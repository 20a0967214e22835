"""The recipes of CONTRIBUTING.md work as they stand: each example is registered from a file and used by commands."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch
from naign_cli.main import app
from typer.testing import CliRunner

from naign_ext.config import describe_fields, load_config, resolve_config
from naign_ext.data import DATASETS, load_dataset
from naign_ext.evaluation.registry import METRICS
from naign_ext.features import FEATURES
from naign_ext.models import MODELS, build_model
from naign_ext.objectives import OBJECTIVES
from naign_ext.run import Run

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
TINY = ["--set", "log.tensorboard=false", "--set", "log.samples_every=0", "--no-report"]


def naign(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(autouse=True)
def registries(monkeypatch):
    """What a test registers goes with it."""
    for registry in (DATASETS, MODELS, OBJECTIVES, METRICS, FEATURES):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """The example under a heading, imported as a file of its own."""

    def load(heading):
        section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
        (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
        name = f"recipe_{heading.split()[-1]}"
        file = tmp_path / f"{name}.py"
        file.write_text(code)
        spec = importlib.util.spec_from_file_location(name, file)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load


def test_a_data_set(recipe, tmp_path):
    recipe("A data set")
    data = load_dataset("wine")
    info = DATASETS["wine"].info
    assert (data.sample_shape, len(data.train), len(data.heldout)) == (
        info.sample_shape,
        info.train,
        info.heldout,
    )
    assert torch.equal(data.train, load_dataset("wine").train)
    assert not torch.equal(data.train, load_dataset("wine", seed=1).train)
    assert "wine" in naign("data", "list").stdout
    flags = ["--dataset", "wine", "--preset", "quick", "--out", tmp_path / "run"]
    result = naign("train", *flags, "--steps", "60", "--set", "log.every=10", *TINY)
    assert "preset: wine has none of its own; that for vectors stands in" in result.stderr
    assert resolve_config("wine", "quick").steps == 800
    records = [record for record in Run.open(tmp_path / "run").metrics() if record["kind"] == "train"]
    assert records[-1]["terms"]["reconstruction"] < records[0]["terms"]["reconstruction"] / 2


def test_an_objective(recipe, tmp_path):
    module = recipe("An objective")
    assert "objective.norm" in {field.key for field in describe_fields()}
    flags = ["--dataset", "trimodal1d", "--objective", "autoencoder", "--set", "objective.norm=l1"]
    naign("train", *flags, "--steps", "5", "--out", tmp_path / "run", *TINY)
    config = load_config(tmp_path / "run" / "config.yaml")
    assert config.objective == module.AutoencoderOptions(norm="l1")
    naign("train", "--resume", tmp_path / "run", "--steps", "8", "--no-report")


def test_a_network(recipe, tmp_path):
    recipe("A network")
    described = {field.key: field for field in describe_fields()}
    assert described["model.rank"].description == "Rank of the map. Only with architecture linear."
    assert "linear" in described["model.architecture"].choices
    assert build_model("linear", (1, 4, 4), rank=2)(torch.zeros(3, 1, 4, 4)).shape == (3, 1, 4, 4)
    flags = ["--dataset", "moons", "--set", "model.architecture=linear", "--set", "model.rank=1"]
    naign("train", *flags, "--steps", "5", "--out", tmp_path / "run", *TINY)
    assert load_config(tmp_path / "run" / "config.yaml").model.build_options() == {"rank": 1}
    naign("sample", tmp_path / "run", "-n", "2", "--out", tmp_path / "samples", "--device", "cpu")


def test_a_feature_space(recipe, tmp_path):
    recipe("A feature space")
    flags = [
        "--dataset",
        "digits",
        "--set",
        "objective.features=random-conv",
        "--set",
        "objective.pool_size=20",
    ]
    naign("train", *flags, "--steps", "3", "--out", tmp_path / "run", *TINY)
    assert load_config(tmp_path / "run" / "config.yaml").objective.features == "random-conv"
    records = [record for record in Run.open(tmp_path / "run").metrics() if record["kind"] == "train"]
    assert records[-1]["terms"]["imle_features"] > 0


def test_a_metric(recipe, tmp_path):
    recipe("A metric")
    naign("train", "--dataset", "trimodal1d", "--steps", "2", "--out", tmp_path / "run", *TINY)
    shown = naign("evaluate", tmp_path / "run", "--metrics", "spread", "--device", "cpu", "--no-report")
    assert "spread" in shown.stdout


def test_the_files_that_are_named_are_there():
    for name in re.findall(r"`((?:naign_ext|csrc|tests)/[\w/.-]+)`", TEXT):
        if (
            not any(word in name for word in ("NAME", "GROUP", "FAMILY", "SET"))
            and name != "naign_ext/data/wine.py"
        ):
            assert (ROOT / name).exists(), name
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([\w-]+)", TEXT)) <= targets
