"""key=value settings: what they mean, and one line that names the key where they mean nothing."""

import time

import pytest
import yaml

from naign_ext.config import ConfigError, load_config, overrides, parse_settings, resolve_config
from naign_ext.config.settings import read_yaml

MEANT = [
    ([], {}),
    (["a=1"], {"a": 1}),
    ([" a =1"], {"a": 1}),
    (["a.b=1", "a.c=x"], {"a": {"b": 1, "c": "x"}}),
    (["a=1", "a=2"], {"a": 2}),
    (["a.b=1", "a.b=2"], {"a": {"b": 2}}),
    (["a={b: 1, c: 2}", "a.c=3"], {"a": {"b": 1, "c": 3}}),
    (["a.b=1", "a={c: 3}"], {"a": {"b": 1, "c": 3}}),
    (["a.b=1", "a=2"], {"a": 2}),
    (["a=null"], {"a": None}),
    (["a="], {"a": None}),
    (["a=~", "b=true", "c=.5"], {"a": None, "b": True, "c": 0.5}),
    (["a=b=c"], {"a": "b=c"}),
    (["a=-="], {"a": "-="}),
    (["a=folder:/x=y/z"], {"a": "folder:/x=y/z"}),
    (["a='1'"], {"a": "1"}),
    (["a=[1, [2, 3]]"], {"a": [1, [2, 3]]}),
    (["größe=ß", "a='☃'"], {"größe": "ß", "a": "☃"}),
    (["objective=imle"], {"objective": {"name": "imle"}}),
    (["objective=imle", "objective.pool_size=3"], {"objective": {"name": "imle", "pool_size": 3}}),
    (["objective={name: imle}"], {"objective": {"name": "imle"}}),
    (["objective=null"], {"objective": {"name": None}}),
]


@pytest.mark.parametrize(("texts", "values"), MEANT, ids=str)
def test_settings_are_nested_values(texts, values):
    assert parse_settings(texts) == values


UNREADABLE = [
    (["steps"], r"--set: expected key=value, got 'steps'"),
    (["=3"], r"--set: expected key=value, got '=3'"),
    ([" =3"], r"--set: expected key=value, got ' =3'"),
    ([""], r"--set: expected key=value, got ''"),
    (["a..b=1"], r"--set a\.\.b: expected names joined by single dots"),
    ([".a=1"], r"--set \.a: expected names"),
    (["a.=1"], r"--set a\.: expected names"),
    (["a" + ".a" * 9 + "=1"], r"--set a\.a.*: expected at most 8 names, got 10"),
    (["a" + ".a" * 100_000 + "=1"], r"--set a(\.a)+\.*: expected at most 8 names, got 100001"),
    (["log.every=[1"], r"--set log\.every: not YAML: .*line 1, column 3"),
    (["a=[" * 5 + "["], r"--set a: not YAML"),
    (["a=" + "[" * 20_000], r"--set a: nested too deeply"),
    (["a=" + "{a: " * 20_000], r"--set a: nested too deeply"),
    (["a=&x [1]", "a=*x"], r"--set a: not YAML: references \(\*name\) are not read here"),
    (["a=[&x [1], *x]"], r"--set a: not YAML: references"),
    (["a=&x [*x]"], r"--set a: not YAML: references"),
    (["a=!!python/object/apply:os.system [ls]"], r"--set a: not YAML: could not determine a constructor"),
    (["a=="], r"--set a: not YAML: could not determine a constructor"),
    (["a=!own 3"], r"--set a: not YAML: could not determine a constructor"),
    (["a={b: 1, b: 2}"], r"--set a: not YAML: the key 'b' is given twice"),
    (["a={[1]: 2}"], r"--set a: not YAML: found unhashable key"),
    (["a=1\n---\n2"], r"--set a: not YAML: but found another document"),
    (["a=\x00"], r"--set a: not YAML: unacceptable character"),
    (["a=\udcff"], r"--set a: not YAML: unacceptable character"),
    (["a=2020-13-45"], r"--set a: cannot be read: month must be in 1\.\.12"),
    (["a=" + "9" * 5000], r"--set a: cannot be read: .*4300"),
    (["model=3", "model.widths=[5]"], r"--set model\.widths: model was set to 3 before; it is either"),
    (["a.b=null", "a.b.c=1"], r"--set a\.b\.c: a\.b was set to None before"),
    (
        ["objective=imle", "objective.name.x=1"],
        r"--set objective\.name\.x: objective\.name was set to 'imle'",
    ),
]


@pytest.mark.parametrize(("texts", "message"), UNREADABLE, ids=lambda v: str(v)[:40])
def test_what_cannot_be_read_names_the_key_in_one_line(texts, message):
    with pytest.raises(ConfigError, match="^" + message) as caught:
        parse_settings(texts)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 300


WRONG = [
    ("steps.x=3", r"steps: expected a valid integer, got \{'x': 3\}"),
    ("steps=[3]", r"steps: expected a valid integer, got \[3\]"),
    ("steps=2020-01-01", r"steps: .*date"),
    ("log=3", r"log: expected a section of fields, got 3"),
    ("log=null", r"log: expected a section of fields, got None"),
    ("optimiser=fast", r"optimiser: expected a section of fields, got 'fast'"),
    ("model=conv", r"model: expected a section with fields such as architecture, got 'conv'"),
    ("model.architecture=vit", r"model\.architecture: expected one of mlp, conv, hybrid, got 'vit'"),
    ("model.architecture=[mlp]", r"model\.architecture: expected one of mlp, conv, hybrid, got \['mlp'\]"),
    ("model.architecture=null", r"model\.architecture: expected one of mlp, conv, hybrid, got None"),
    ("model.width=[5]", r"model\.width: no such field; did you mean model\.widths\?"),
    ("model.widths=5", r"model\.widths: expected a valid tuple, got 5"),
    ("model.widths=[5.5]", r"model\.widths\.0: expected a valid integer"),
    (
        "model.widths=[" + "7, " * 1000 + "0]",
        r"model\.widths: expected at least one width, all >= 1, got \[7, ",
    ),
    ("optimiser.betas=[0.9]", r"optimiser\.betas\.1: Field required"),
    ("objective=[1]", r"objective\.name: expected one of naign, .*, got \[1\]"),
    ("objective=null", r"objective\.name: expected one of naign, .*, got None"),
    ("objective.nmae=imle", r"objective\.nmae: no such field; did you mean objective\.name\?"),
    ("log.evry.x=1", r"log\.evry: no such field; did you mean log\.every\?"),
    ("optimizer.lr=1", r"optimizer: no such field"),
    ("größe=3", r"größe: no such field"),
    ("log={every: 3, 7: 8}", r"log\.7: "),
    ("device=cuda:x", r"device: expected auto, cpu, cuda or cuda:N, got 'cuda:x'"),
    ("dataset=no", r"dataset: expected a name, got False"),
    ("dataset=lfw10", r"dataset: expected one of .*, got 'lfw10'; did you mean lfw100\?"),
    ("dataset=folder:", r"dataset: expected a name, got \{'folder': None\}"),
    ("dataset='folder:'", r"dataset: expected a path after folder:, got 'folder:'"),
]


@pytest.mark.parametrize(("setting", "message"), WRONG, ids=lambda v: v[:40])
def test_wrong_settings_name_the_field_in_one_line(setting, message):
    with pytest.raises(ConfigError, match="^" + message) as caught:
        resolve_config("digits", settings=[setting])
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 400


def test_lists_become_tuples_and_names_may_be_in_any_script(tmp_path):
    settings = ["model.widths=[5, 6]", "optimiser.betas=[0.5, 1e-3]", "dataset=folder:/tmp/bäume=☃"]
    config = resolve_config(settings=settings)
    assert (config.model.widths, config.optimiser.betas) == ((5, 6), (0.5, 1e-3))
    assert config.dataset == "folder:/tmp/bäume=☃"


def test_settings_win_over_flags_and_absent_flags_are_left_out():
    found = overrides(
        {"steps": 3, "log.every": 4, "device": None, "objective": "ign"}, ["steps=5", "log.samples=6"]
    )
    assert found == {"steps": 5, "log": {"every": 4, "samples": 6}, "objective": {"name": "ign"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: 1\nsteps: 2\n", r"a\.yaml: not YAML: the key 'steps' is given twice"),
        ("log: {every: 1, every: 2}", r"a\.yaml: not YAML: the key 'every' is given twice"),
        ("log: " + "[" * 20_000, r"a\.yaml: nested too deeply"),
        ("log: [1", r"a\.yaml: not YAML: .*line 1, column 8"),
        ("log: !!python/name:os.system", r"a\.yaml: not YAML: could not determine"),
        ("seed: " + "9" * 5000, r"a\.yaml: cannot be read: Exceeds the limit"),
        ("seed: 0x" + "f" * 5000, r"seed: expected .*, got int with a number of thousands of digits"),
        ("log: [" + "1," * 30_001 + "]", r"a\.yaml: not YAML: more than 30000 values"),
        ("x" * (8 << 20) + "x", r"a\.yaml: has 8388609 bytes, more than the 8388608 a file may have"),
    ],
    ids=lambda v: v[:30],
)
def test_files_are_read_by_the_same_rules(tmp_path, text, message):
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(file)
    assert len(str(caught.value).splitlines()) == 1


def test_files_may_refer_to_their_own_parts(tmp_path):
    file = tmp_path / "a.yaml"
    shared = [1, 2]
    file.write_text(yaml.safe_dump({"data_parameters": {"a": shared, "b": shared}}))
    assert "*id" in file.read_text()
    assert load_config(file).data_parameters == {"a": [1, 2], "b": [1, 2]}
    file.write_text("log: &x {every: *x}")
    with pytest.raises(ConfigError, match=r"a\.yaml: a section contains itself"):
        resolve_config("digits", file=file)


@pytest.mark.parametrize("section", ["{{{}}}", "[{}]"], ids=["mappings", "lists"])
def test_references_that_multiply_are_refused_at_once(tmp_path, section):
    lines = ["a0: &a0 {x: 1}"]
    for level in range(1, 12):
        names = (f"k{i}: *a{level - 1}" if section == "{{{}}}" else f"*a{level - 1}" for i in range(9))
        lines.append(f"a{level}: &a{level} {section.format(', '.join(names))}")
    (tmp_path / "many.yaml").write_text("\n".join(lines))
    start = time.perf_counter()
    with pytest.raises(ConfigError, match=r"many.yaml: .*stand for more than 30000 values"):
        read_yaml(tmp_path / "many.yaml")
    assert time.perf_counter() - start < 5


def test_what_has_no_end_is_never_read(tmp_path):
    file = tmp_path / "a.yaml"
    for target in ("/dev/zero", "/dev/null", str(tmp_path)):
        file.symlink_to(target)
        with pytest.raises(ConfigError, match=r"a\.yaml: cannot be read: "):
            load_config(file)
        file.unlink()
