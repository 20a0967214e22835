"""Values as a user writes them: ``key=value`` settings, flags and YAML files, all read into nested mappings."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from naign_ext.config.presets import Tree, merge
from naign_ext.options import in_a_line, shortened, shown
from naign_ext.untrusted import FileTooLargeError, read_regular_file

_MOST_NAMES = 8
"""Names joined by dots in a key; fields of the configuration have two."""
_MOST_VALUES = 30_000
"""Values in a file once each reference (*name) is replaced by what it stands for."""


_LARGEST_FILE = 8 << 20
"""Bytes of a YAML file."""


class ConfigError(ValueError):
    """A configuration is wrong; the text names each field, what was expected and what came."""


class _Loader(yaml.SafeLoader):
    """YAML in which a key that is given twice is an error, not the last one's value, and references stay bounded."""

    def get_single_node(self) -> yaml.Node | None:
        self._composed = 0
        node = super().get_single_node()
        if node is not None and _count_values(node, {}) > _MOST_VALUES:
            raise yaml.composer.ComposerError(
                problem=f"references (*name) stand for more than {_MOST_VALUES} values"
            )
        return node

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._composed += 1
        if self._composed > _MOST_VALUES:
            raise yaml.composer.ComposerError(problem=f"more than {_MOST_VALUES} values")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(problem=f"the key {shown(key.value)} is given twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _SettingLoader(_Loader):
    """Also without references to other parts of the value, which have no use on a command line."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(problem="references (*name) are not read here")
        return super().compose_node(parent, index)


def parse_settings(texts: Iterable[str]) -> Tree:
    """Nested values from texts ``key=value``: dotted keys, values in YAML, later ones win.

    ``objective=NAME`` stands for ``objective.name=NAME``.

    Raises:
        ConfigError: a text is no key=value, a value is not YAML, or one key is a value in one and a section in another.
    """
    tree: Tree = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"--set: expected key=value, got {shown(text)}")
        names = _split(key.strip())
        where = f"--set {'.'.join(names)}"
        tree = _add(tree, names, _load(value, where, _SettingLoader), where)
    return tree


def overrides(flags: Mapping[str, Any], settings: Iterable[str]) -> Tree:
    """Flags (dotted key -> value, left out where None) and then settings, which win, as nested values."""
    tree: Tree = {}
    for key, value in flags.items():
        if value is not None:
            tree = merge(tree, _nest(_full(key.split("."), value), value))
    return merge(tree, parse_settings(settings))


def read_yaml(path: Path) -> Tree:
    """The mapping in a YAML file, empty for an empty file; ConfigError where it cannot be read or is none."""
    try:
        text = read_regular_file(path, _LARGEST_FILE).decode("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except FileTooLargeError as error:
        raise ConfigError(f"{path}: {error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not YAML: {in_a_line(error)}") from None
    values = _load(text, str(path), _Loader)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected fields 'key: value', got {type(values).__name__}")
    try:
        return merge({}, values)
    except RecursionError:
        raise ConfigError(f"{path}: a section contains itself") from None


def _split(key: str) -> list[str]:
    names = key.split(".")
    if not all(names):
        raise ConfigError(f"--set {shortened(key)}: expected names joined by single dots")
    if len(names) > _MOST_NAMES:
        raise ConfigError(f"--set {shortened(key)}: expected at most {_MOST_NAMES} names, got {len(names)}")
    return names


def _load(text: str, where: str, loader: type[_Loader]) -> Any:
    try:
        return yaml.load(text, loader)
    except yaml.MarkedYAMLError as error:
        raise ConfigError(
            f"{where}: not YAML: {shortened(str(error.problem))}{_place(error.problem_mark)}"
        ) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {in_a_line(error)}") from None
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply") from None
    # Numbers and dates that look like some but are out of range.
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{where}: cannot be read: {in_a_line(error)}") from None


def _count_values(node: yaml.Node, known: dict[int, int]) -> int:
    """Values below a node, those of a reference as often as it is given; known: counts by the nodes' identities."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        # Of a section that contains itself.
        known[id(node)] = 1
        pairs = isinstance(node, yaml.MappingNode)
        below = [part for pair in node.value for part in pair] if pairs else node.value
        known[id(node)] = 1 + sum(_count_values(part, known) for part in below)
    return known[id(node)]


def _place(mark: Any) -> str:
    return f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""


def _add(tree: Tree, names: list[str], value: Any, where: str) -> Tree:
    names = _full(names, value)
    section: Any = tree
    for depth, name in enumerate(names[:-1], 1):
        section = section.get(name, {})
        if not isinstance(section, Mapping):
            raise ConfigError(
                f"{where}: {'.'.join(names[:depth])} was set to {shown(section)} before; it is either a "
                "value or a section of fields"
            )
    return merge(tree, _nest(names, value))


def _full(names: list[str], value: Any) -> list[str]:
    """``objective`` with anything but a section stands for ``objective.name``."""
    return ["objective", "name"] if names == ["objective"] and not isinstance(value, Mapping) else names


def _nest(names: list[str], value: Any) -> Tree:
    result = value
    for name in reversed(names):
        result = {name: result}
    return result  # type: ignore[no-any-return]
