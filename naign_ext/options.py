"""What every section of a configuration is made of."""

import functools
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from naign_ext.registry import Registry

MOST_STEPS = 99_999_999
"""Updates of a run at most, as many as the names of its checkpoints have digits for, and what is counted in them."""
MOST_ROWS = 1 << 31
"""Rows at most, of data, a batch or a pool, so that no count of numbers or bytes overflows."""
_MOST_SHOWN, _MOST_QUOTED = 80, 200
"""Characters of a wrong value in an error's text, and of another library's error."""


def option(default: Any, description: str, group: str, **limits: Any) -> Any:
    """A configuration field with a description and the group it is shown under in the help."""
    return Field(default, description=description, json_schema_extra={"group": group}, **limits)


class Options(BaseModel):
    """Base of every configuration section: immutable, no unknown keys, finite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    not_from_preset: ClassVar[tuple[str, ...]] = ()
    """Fields whose default here stands against a preset's value, which was made for another objective."""

    renamed: ClassVar[Mapping[str, str]] = {}
    """Names that fields had before -> their names. Both are read, the former with a UserWarning."""

    @model_validator(mode="before")
    @classmethod
    def _read_former_names(cls, values: Any) -> Any:
        return cls.with_current_names(values) if isinstance(values, Mapping) else values

    @classmethod
    def with_current_names(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """values with the fields that are given by a former name under their names.

        Raises:
            ValueError: a field is given under both names.
        """
        current = dict(values)
        for former, name in cls.renamed.items():
            if former not in current:
                continue
            if name in current:
                raise ValueError(f"{former}: is the former name of {name}; expected one of them, got both")
            _warn_renamed(cls, former, name)
            current[name] = current.pop(former)
        return current


@functools.cache
def _warn_renamed(options: type[Options], former: str, name: str) -> None:
    """Once in a process for each name, however many configurations are read."""
    warnings.warn(f"{former}: is called {name} in {options.__name__}; rename it", UserWarning, stacklevel=2)


def chosen_from(
    registry: Registry[Any], key: str, default: str, *, ignore_others: bool = False
) -> BeforeValidator:
    """For a field that holds the ``Options`` of one entry of a registry: of the one that the section names under key.

    Looked up when a configuration is read, so that entries may be registered at any time.
    ignore_others: fields that only other entries have are dropped; else they are errors.
    """

    def choose(section: Any) -> Any:
        if isinstance(section, Options):
            return section
        if not isinstance(section, Mapping):
            raise ValueError(f"expected a section with fields such as {key}")
        options = options_of(registry, key, section.get(key, default))
        if ignore_others:
            others = {name for entry in registry.values() for name in entry.Options.model_fields}
            dropped = others - set(options.model_fields)
            section = {name: value for name, value in section.items() if name not in dropped}
        return options.model_validate(section)

    return BeforeValidator(choose)


def options_of(registry: Registry[Any], key: str, name: Any) -> type[Options]:
    """The Options of the entry of that name; a ValidationError at key where there is none."""
    if isinstance(name, str) and name in registry:
        options: type[Options] = registry[name].Options
        return options
    kind = PydanticCustomError("unknown_name", "expected one of {names}", {"names": ", ".join(registry)})
    wrong = InitErrorDetails(type=kind, loc=(key,), input=name)
    raise ValidationError.from_exception_data(registry.kind, [wrong])


def explain(wrong: ErrorDetails) -> str:
    """One of a ValidationError's errors in a line: what was expected and what came; the field is not named."""
    text = wrong["msg"].removeprefix("Value error, ").replace("Input should be ", "expected ", 1)
    if wrong["type"] == "model_type":
        text = "expected a section of fields"
    # What validators of whole sections raise names the values itself.
    if wrong["type"] == "value_error" and isinstance(wrong["input"], BaseModel | Mapping):
        return text
    return f"{text}, got {shown(wrong['input'])}"


def shown(value: Any) -> str:
    """The beginning of a value's repr, for errors."""
    try:
        return shortened(repr(value))
    # Python writes no int of more than 4300 digits, nor what contains one.
    except ValueError:
        return f"{type(value).__name__} with a number of thousands of digits"


def in_a_line(error: Exception) -> str:
    """The beginning of the text of another library's error, which may quote what it met."""
    return " ".join(str(error).split())[:_MOST_QUOTED]


def shortened(text: str) -> str:
    """The beginning of a text that may be long, for errors."""
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
