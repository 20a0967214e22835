"""What every section of a configuration is made of."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field


def option(default: Any, description: str, group: str, **limits: Any) -> Any:
    """A configuration field with a description and the group it is shown under in the help."""
    return Field(default, description=description, json_schema_extra={"group": group}, **limits)


class Options(BaseModel):
    """Base of every configuration section: immutable, no unknown keys, finite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    not_from_preset: ClassVar[tuple[str, ...]] = ()
    """Fields whose default here stands against a preset's value, which was made for another objective."""
