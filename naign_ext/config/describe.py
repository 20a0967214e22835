"""The configuration's fields in words, for help texts and for the flags of commands."""

import builtins
import types
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from naign_ext.config.fields import CHOSEN, TrainConfig
from naign_ext.options import Options


@dataclass(frozen=True)
class FieldHelp:
    """A field of the configuration for help texts and flags.

    key: dotted. type: in words. value_type: the plain type of a value that is not None, such as int.
    choices: the values there are, where they can be listed.
    """

    key: str
    type: str
    default: Any
    description: str
    group: str
    value_type: builtins.type = str
    choices: tuple[str, ...] = ()


def describe_fields() -> list[FieldHelp]:
    """Every field that a user may set, by its dotted key, sections unfolded, in the order of the groups."""
    fields = list(_walk(TrainConfig, ""))
    groups = list(dict.fromkeys(field.group for field in fields))
    return sorted(fields, key=lambda field: groups.index(field.group))


def _walk(options: type[Options], prefix: str) -> Iterator[FieldHelp]:
    for name, info in options.model_fields.items():
        if name in CHOSEN and options is TrainConfig:
            yield from _chosen(name)
        elif isinstance(info.default, Options):
            yield from _walk(type(info.default), f"{prefix}{name}.")
        elif isinstance(info.json_schema_extra, dict):
            yield _help(f"{prefix}{name}", info, str(info.json_schema_extra["group"]))


def _chosen(section: str) -> Iterator[FieldHelp]:
    """The fields of every entry of a section's registry; those that the default has not say whose they are."""
    registry, key, default = CHOSEN[section]
    names = [default, *(name for name in registry if name != default)]
    found: dict[str, FieldHelp] = {}
    for name in names:
        only = "" if name == default else f" Only with {registry.kind} {name}."
        for field in _walk(registry[name].Options, f"{section}."):
            found.setdefault(field.key, replace(field, description=field.description + only))
    which = f"{section}.{key}"
    purposes = {name: registry[name].Options.model_fields[key].description for name in names}
    found[which] = replace(
        found[which],
        type=" | ".join(names),
        choices=tuple(names),
        description=_which(registry.kind, purposes),
    )
    yield from found.values()


def _which(kind: str, purposes: dict[str, str | None]) -> str:
    """What an entry is chosen for, where the entries say so."""
    if len(set(purposes.values())) == 1:
        return f"Which {kind}."
    return "; ".join(f"{name}: {(purpose or '').rstrip('.')}" for name, purpose in purposes.items()) + "."


def _help(key: str, info: FieldInfo, group: str) -> FieldHelp:
    kinds = [kind for kind in _members(info.annotation) if kind is not types.NoneType]
    choices = get_args(kinds[0]) if get_origin(kinds[0]) is Literal else ()
    plain = kinds[0] if isinstance(kinds[0], type) else str
    words = " | ".join(map(_words, _members(info.annotation)))
    return FieldHelp(key, words, info.default, info.description or "", group, plain, choices)


def _members(annotation: Any) -> tuple[Any, ...]:
    """The types of a union, or the one type."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(member for kind in get_args(annotation) for member in _members(kind))
    return (annotation,)


def _words(kind: Any) -> str:
    if kind is types.NoneType:
        return "none"
    arguments = get_args(kind)
    if get_origin(kind) is Literal:
        return " | ".join(arguments)
    if get_origin(kind) is tuple:
        inner = [" | ".join(map(_words, _members(a))) for a in arguments if a is not Ellipsis]
        return f"list of {inner[0]}" if Ellipsis in arguments else f"[{', '.join(inner)}]"
    return str(kind.__name__)
