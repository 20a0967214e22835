"""The configuration of a run: its fields, presets, and where their values come from."""

from naign_ext.config.describe import FieldHelp, describe_fields
from naign_ext.config.fields import RESUMABLE, TrainConfig
from naign_ext.config.presets import PRESETS, merge, preset_values
from naign_ext.config.resolve import (
    differing_fields,
    flattened,
    is_moved,
    load_config,
    resolve_config,
    save_config,
    shared_values,
    validate_config,
    with_absolute_paths,
    with_changes,
)
from naign_ext.config.settings import ConfigError, overrides, parse_settings

__all__ = [
    "PRESETS",
    "RESUMABLE",
    "ConfigError",
    "FieldHelp",
    "TrainConfig",
    "describe_fields",
    "differing_fields",
    "flattened",
    "is_moved",
    "load_config",
    "merge",
    "overrides",
    "parse_settings",
    "preset_values",
    "resolve_config",
    "save_config",
    "shared_values",
    "validate_config",
    "with_absolute_paths",
    "with_changes",
]
