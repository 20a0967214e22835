"""From preset, YAML file, flags and settings to the one validated configuration of a run, and to its file and back."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from naign_ext.config.describe import describe_fields
from naign_ext.config.fields import RESUMABLE, TrainConfig, section_options
from naign_ext.config.presets import PRESETS, Tree, merge, preset_values
from naign_ext.config.settings import ConfigError, overrides, read_yaml
from naign_ext.data import find_dataset, with_path
from naign_ext.file_errors import naming
from naign_ext.options import explain, shortened, shown

_MOST_NAMED = 8
"""Wrong fields in an error's text."""


def resolve_config(
    dataset: str | None = None,
    preset: str | None = None,
    *,
    file: str | Path | None = None,
    flags: Mapping[str, Any] | None = None,
    settings: Sequence[str] = (),
) -> TrainConfig:
    """The configuration of a run. Later wins: defaults, preset for the data set, YAML file, flags, settings.

    Args:
        dataset, preset: as on the command line; None leaves them to settings, file, or lfw100 and default.
        file: YAML with the fields of TrainConfig, nested.
        flags: dotted key -> value; None values are left out. ``objective`` alone names the objective.
        settings: texts ``key=value``, dotted keys, values in YAML: ``optimiser.lr=1e-3``.

    Raises:
        ConfigError: an unknown key or a wrong value; the first eight are named.
    """
    written = read_yaml(Path(file)) if file is not None else {}
    given = {"dataset": dataset, "preset": preset, **(flags or {})}
    user = merge(with_current_names(written), with_current_names(overrides(given, settings)))
    chosen = user.get("preset", "default")
    if chosen not in PRESETS:
        raise ConfigError(f"preset: expected one of {', '.join(PRESETS)}, got {shown(chosen)}")
    name = user.get("dataset", TrainConfig.model_fields["dataset"].default)
    if not isinstance(name, str):
        raise ConfigError(f"dataset: expected a name, got {shown(name)}")
    try:
        base = merge({"dataset": name, "preset": chosen}, preset_values(chosen, name))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return validate_config(merge(_fit_objective(base, user), user))


def validate_config(values: Mapping[str, Any]) -> TrainConfig:
    """TrainConfig from nested values, or ConfigError that names the wrong fields, of many the first."""
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        wrong = error.errors()
        more = [f"and {len(wrong) - _MOST_NAMED} more"] if len(wrong) > _MOST_NAMED else []
        raise ConfigError("\n".join([*map(_explain, wrong[:_MOST_NAMED]), *more])) from None


def with_changes(config: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """The configuration with which a run is resumed: new values, nested, for the fields of RESUMABLE.

    Where data are read from a path (``folder:PATH``), the path may be another one: that of a new ``dataset``, or
    ``data_root``, which stands for it. Whether the same data lie there is not looked at. Paths become absolute.

    Raises:
        ConfigError: another field is to change, or a value is wrong.
    """
    if not changes:
        return config
    wanted = with_current_names(changes)
    place = _new_place(config, wanted)
    if place is not None:
        config = config.model_copy(update={"dataset": place})
        wanted = {key: value for key, value in wanted.items() if key not in ("dataset", "data_root")}
    for key in wanted:
        if key not in RESUMABLE:
            raise ConfigError(f"{key}: cannot change when a run is resumed; only {', '.join(RESUMABLE)} can")
    changed = validate_config(merge(config.model_dump(mode="json"), wanted))
    return with_absolute_paths(changed) if "data_root" in wanted else changed


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """The same with paths of data and weights that mean the same in every working directory."""
    path, root = find_dataset(config.dataset)[1], config.data_root
    objective, weights = config.objective, getattr(config.objective, "feature_weights", None)
    if weights is not None:
        objective = objective.model_copy(update={"feature_weights": _absolute(weights)})
    return config.model_copy(
        update={
            "dataset": config.dataset if path is None else with_path(config.dataset, path),
            "data_root": None if root is None else _absolute(root),
            "objective": objective,
        }
    )


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def is_moved(a: str, b: str) -> bool:
    """Whether two names of data sets differ at most in the path they are read from."""
    return a == b or (with_path(b, "/") is not None and with_path(a, "/") == with_path(b, "/"))


def _new_place(config: TrainConfig, wanted: Tree) -> str | None:
    """The data set's name with the path that changes ask for; None where they ask for none, or the name has none."""
    name, root = wanted.get("dataset"), wanted.get("data_root")
    if (name is None and root is None) or with_path(config.dataset, "/") is None:
        return None
    if name is not None and root is not None:
        raise ConfigError("dataset, data_root: expected one of them to say where the data are, got both")
    if isinstance(root, str | Path):
        return with_path(config.dataset, root)
    if isinstance(name, str) and is_moved(config.dataset, name):
        return with_absolute_paths(config.model_copy(update={"dataset": name})).dataset
    return None


def with_current_names(values: Mapping[str, Any]) -> Tree:
    """Nested values with the fields that are given by a former name under their names, so that they can be merged."""
    try:
        current = TrainConfig.with_current_names(values)
        for section, below in current.items():
            options = section_options(section, below)
            if options is not None and isinstance(below, Mapping):
                current[section] = options.with_current_names(below)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return current


def save_config(config: TrainConfig, path: Path) -> None:
    """Write YAML that :func:`load_config` reads back to an equal configuration."""
    with naming(path):
        path.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="ascii")


def load_config(path: str | Path) -> TrainConfig:
    """Read a configuration saved by :func:`save_config`; nothing is added from presets."""
    return validate_config(read_yaml(Path(path)))


def differing_fields(a: TrainConfig, b: TrainConfig) -> list[str]:
    """Dotted keys on which two configurations differ."""
    left, right = (flattened(c.model_dump(mode="json")) for c in (a, b))
    return [key for key in left | right if left.get(key) != right.get(key)]


def flattened(values: Mapping[str, Any], prefix: str = "") -> Tree:
    """Nested values by their dotted keys."""
    result: Tree = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            result |= flattened(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value
    return result


def shared_values(config: TrainConfig) -> Tree:
    """By dotted keys what must be equal in all processes of a job; files may lie elsewhere on each machine."""
    values = flattened(config.model_dump(mode="json", exclude={"data_root", "data_parameters"}))
    values.pop("objective.feature_weights", None)
    return values | {"dataset": with_path(config.dataset, "/") or config.dataset}


def _fit_objective(base: Tree, user: Tree) -> Tree:
    """base without those objective options of the preset that the chosen objective does not have."""
    options = section_options("objective", user.get("objective", {}))
    if options is None:
        return {**base, "objective": {}}
    known = set(options.model_fields) - set(options.not_from_preset)
    kept = {key: value for key, value in base.get("objective", {}).items() if key in known}
    return {**base, "objective": kept}


def _explain(wrong: ErrorDetails) -> str:
    key = ".".join(map(str, wrong["loc"]))
    if wrong["type"] != "extra_forbidden":
        return f"{key}: {explain(wrong)}"
    known = [field.key for field in describe_fields()]
    if key in known:
        section = key.partition(".")[0]
        return f"{key}: no such field of the chosen {section}; leave it out or choose another {section}"
    close = difflib.get_close_matches(shortened(key), known, n=1)
    return f"{shortened(key)}: no such field" + (f"; did you mean {close[0]}?" if close else "")
