"""The configuration: presets, precedence, errors that name the field, help."""

import re

import pytest
import yaml

from naign_ext.config.presets import PRESETS, merge, preset_values
from naign_ext.config.schema import (
    ConfigError,
    TrainConfig,
    describe_fields,
    differing_fields,
    load_config,
    resolve_config,
    save_config,
    validate_config,
)
from naign_ext.data import dataset_names
from naign_ext.objectives import ImleOptions


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


def test_merging_presets_changes_neither_side():
    a, b = {"x": {"y": 1}}, {"x": {"z": 2}}
    assert merge(a, b) == {"x": {"y": 1, "z": 2}} and a == {"x": {"y": 1}} and b == {"x": {"z": 2}}
    preset_values("default", "digits")["objective"]["pool_size"] = -1
    assert preset_values("default", "digits")["objective"]["pool_size"] > 0
