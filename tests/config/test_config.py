"""The configuration: presets, precedence, errors that name the field, help."""

import re
from pathlib import Path

import pytest
import yaml

from naign_ext.config import (
    PRESETS,
    ConfigError,
    TrainConfig,
    describe_fields,
    differing_fields,
    load_config,
    resolve_config,
    save_config,
    validate_config,
    with_changes,
)
from naign_ext.config.fields import CHOSEN, LogOptions
from naign_ext.data import dataset_names
from naign_ext.models import model_options
from naign_ext.objectives import ImleOptions, NaignOptions


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("dataset", [*dataset_names(), "folder:some/where"])
def test_every_preset_is_valid_for_every_data_set(preset, dataset):
    config = resolve_config(dataset, preset)
    assert (config.dataset, config.preset) == (dataset, preset)
    if preset == "paper":
        objective = config.objective
        weights = ("projection", "denoise", "restore", "idempotence")
        assert [getattr(objective, f"{w}_weight") for w in weights] == [0, 0, 0, 0]
        assert objective.reconstruction_weight == objective.imle_weight == 1
        assert not config.augment.flip and not config.augment.shift


def test_quick_is_never_longer_than_default():
    for dataset in dataset_names():
        assert resolve_config(dataset, "quick").steps <= resolve_config(dataset, "default").steps


def test_later_sources_win(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("seed: 1\nsteps: 11\nbatch_size: 12\nobjective: {pool_size: 13}\n")
    preset = resolve_config("digits")
    config = resolve_config(
        "digits",
        file=file,
        flags={"seed": 2, "steps": 21, "device": None},
        settings=["seed=3", "optimiser.lr=1e-4", "model.widths=[5, 6]"],
    )
    assert (config.seed, config.steps, config.batch_size, config.objective.pool_size) == (3, 21, 12, 13)
    assert config.optimiser.lr == 1e-4 and config.model.widths == (5, 6)
    assert config.objective.denoise_weight == preset.objective.denoise_weight
    assert config.optimiser.betas == (0.9, 0.99) and config.device == "auto"


def test_file_may_choose_data_set_and_preset(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("dataset: trimodal1d\npreset: paper\n")
    assert resolve_config(file=file) == resolve_config("trimodal1d", "paper")
    assert resolve_config("moons", file=file) == resolve_config("moons", "paper")


def test_null_is_a_value_and_an_absent_flag_is_not():
    assert resolve_config("digits", settings=["objective.reject_below=null"]).objective.reject_below is None
    assert resolve_config("digits", flags={"steps": None}).steps == resolve_config("digits").steps


def test_another_objective_leaves_the_presets_options_it_lacks():
    config = resolve_config("digits", flags={"objective": "imle"})
    assert isinstance(config.objective, ImleOptions)
    assert config.objective.pool_size == resolve_config("digits").objective.pool_size
    with pytest.raises(ConfigError, match=r"^objective\.denoise_weight: no such field"):
        resolve_config("digits", flags={"objective": "imle"}, settings=["objective.denoise_weight=1"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("steps=0", r"^steps: .*greater than or equal to 1.*got 0"),
        ("optimiser.lr=fast", r"^optimiser\.lr: .*number.*got 'fast'"),
        ("optimiser.lr=.inf", r"^optimiser\.lr: .*finite"),
        ("optimiser.betas=[0.9, 1.0]", r"^optimiser\.betas: .*\[0, 1\)"),
        ("objective.pool_siz=3", r"^objective\.pool_siz: no such field; did you mean objective\.pool_size\?"),
        ("learning_rate=3", r"^learning_rate: no such field"),
        (
            "objective=vae",
            r"^objective\.name: expected one of naign, ign, imle, adaptive-imle, rs-imle, matching, got 'vae'",
        ),
        ("objective.match=all", r"^objective\.match: .*'batch', 'dataset'.*got 'all'"),
        ("objective.restore_kinds=[rain]", r"^objective\.restore_kinds\.0: .*got 'rain'"),
        ("model.widths=[]", r"^model\.widths: "),
        ("model=3", r"^model: .*got 3"),
        ("device=tpu", r"^device: .*got 'tpu'"),
        ("preset=slow", r"^preset: expected one of quick, default, paper, got 'slow'"),
        ("steps", r"^--set: expected key=value, got 'steps'"),
        ("steps=[", r"^--set steps: .*YAML"),
        ("dataset=7", r"^dataset: expected a name, got 7"),
    ],
)
def test_wrong_values_name_the_field(setting, message):
    with pytest.raises(ConfigError, match=message):
        resolve_config("digits", settings=[setting])


def test_all_wrong_fields_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        validate_config({"steps": -1, "batch_size": "many", "objective": {"imle_weight": -2}})
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["steps", "batch_size", "objective.imle_weight"]


@pytest.mark.parametrize("text", ["[1, 2]", "steps: [", "\x00"])
def test_unusable_files_are_named(tmp_path, text):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        resolve_config("digits", file=file)
    with pytest.raises(ConfigError, match=r"missing\.yaml"):
        resolve_config("digits", file=tmp_path / "missing.yaml")


def test_saved_configuration_reads_back_equal(tmp_path):
    config = resolve_config("lfw100", settings=["objective.reject_below=0.5", "seed=9"])
    config = config.model_copy(update={"data_parameters": {"sha256": {"a": "b"}, "n": 100}})
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["objective"]["name"] == "naign"


def test_differing_fields_are_dotted():
    a = resolve_config("digits")
    b = resolve_config("digits", settings=["seed=4", "optimiser.lr=1", "objective.name=imle"])
    differing = differing_fields(a, b)
    assert {"seed", "optimiser.lr", "objective.name", "objective.denoise_weight"} <= set(differing)
    assert differing_fields(a, a) == []


def test_every_field_a_user_may_set_is_described_in_a_group():
    fields = describe_fields()
    keys = [f.key for f in fields]
    assert len(keys) == len(set(keys))
    assert {"dataset", "optimiser.lr", "objective.pool_size", "log.every", "model.widths"} <= set(keys)
    assert "data_parameters" not in keys
    assert all(f.description.endswith(".") and f.type and f.group for f in fields)
    groups = [f.group for f in fields]
    assert groups == sorted(groups, key=groups.index) and len(set(groups)) == 7
    for f in fields:
        value = "null" if f.default is None else yaml.safe_dump(_plain(f.default), default_flow_style=True)
        only = re.search(r"Only with objective (\S+)\.$", f.description)
        flags = {"objective": only[1] if only else None}
        resolve_config(settings=[f"{f.key}={value.removesuffix('...' + chr(10))}"], flags=flags)


def _plain(value):
    return list(value) if isinstance(value, tuple) else value


def test_configuration_is_immutable():
    with pytest.raises(ValueError, match="frozen"):
        TrainConfig().steps = 3


def test_a_configuration_of_the_first_release_is_read():
    """It has the options of all networks; those of the others fall away."""
    file = Path(__file__).parent / "config_0_1.yaml"
    config = load_config(file)
    recorded = config.data_parameters
    assert recorded["source"] == "scikit-learn load_digits"
    of_then = [
        "steps=1500",
        "model.architecture=mlp",
        "objective.latent_scale=1",
        "objective.foreign_weight=0",
    ]
    expected = resolve_config("digits", "quick", flags={"seed": 3}, settings=of_then)
    assert config == expected.model_copy(update={"data_parameters": recorded})
    assert config.model.build_options() == {
        "widths": [256, 32, 256, 256], "activation": "silu", "normalisation": "batch", "input_gain": 1.0,
    }  # fmt: skip
    values = yaml.safe_load(file.read_text())
    conv = validate_config({**values, "model": {**values["model"], "architecture": "conv"}})
    assert conv.model.build_options() == {
        "base_channels": 32, "latent_dim": 128, "activation": "silu", "normalisation": "batch",
    }  # fmt: skip


def test_the_network_takes_those_options_of_a_preset_that_it_has():
    config = resolve_config("lfw100", settings=["model.architecture=conv", "model.depth=2"])
    preset = resolve_config("lfw100")
    assert (config.model.architecture, config.model.depth) == ("conv", 2)
    assert config.model.activation == preset.model.activation
    assert config.model.normalisation == preset.model.normalisation
    assert not hasattr(config.model, "widths")
    assert config.model.build_options().keys() <= model_options("conv").keys()


@pytest.fixture
def renamed(monkeypatch):
    monkeypatch.setattr(TrainConfig, "renamed", {"batch": "batch_size"})
    monkeypatch.setattr(LogOptions, "renamed", {"interval": "every"})
    monkeypatch.setattr(NaignOptions, "renamed", {"pool": "pool_size"})


@pytest.mark.usefixtures("renamed")
@pytest.mark.filterwarnings("ignore:.* is called .*; rename it")
def test_former_names_are_read_from_every_source_and_win_over_the_preset(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("batch: 12\nlog: {interval: 3}\n")
    with pytest.warns(UserWarning, match="batch: is called batch_size in TrainConfig"):
        config = resolve_config("digits", file=file, settings=["objective.pool=13"])
    assert (config.batch_size, config.log.every, config.objective.pool_size) == (12, 3, 13)
    assert load_config(file).batch_size == 12
    later = resolve_config("digits", file=file, settings=["log.every=4", "batch_size=14"])
    assert (later.batch_size, later.log.every) == (14, 4)
    resumed = with_changes(config, {"log": {"interval": 5}})
    assert resumed == config.model_copy(update={"log": config.log.model_copy(update={"every": 5})})
    with pytest.raises(
        ConfigError, match="batch_size: cannot change when a run is resumed; only steps, device"
    ):
        with_changes(config, {"batch": 5})
    with pytest.raises(
        ConfigError, match="pool: is the former name of pool_size; expected one of them, got both"
    ):
        resolve_config("digits", settings=["objective.pool=1", "objective.pool_size=2"])


def test_every_choice_is_named_as_it_is_registered():
    for section, (registry, key, default) in CHOSEN.items():
        assert getattr(getattr(TrainConfig(), section), key) == default
        for name, entry in registry.items():
            assert getattr(entry.Options(), key) == name


def test_fields_of_another_choice_are_named_as_such_and_not_all_of_them():
    naign = resolve_config("8gaussians").model_dump(mode="json")["objective"]
    with pytest.raises(ConfigError) as caught:
        resolve_config(
            "8gaussians", settings=[f"objective.{k}={v}" for k, v in naign.items()] + ["objective=ign"]
        )
    *named, more = str(caught.value).splitlines()
    assert len(named) == 8 and re.fullmatch(r"and \d+ more", more)
    assert any(
        line
        == "objective.pool_size: no such field of the chosen objective; leave it out or choose another objective"
        for line in named
    )
