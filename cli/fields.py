"""The configuration's fields as help, and some of them as flags of a command."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand

if TYPE_CHECKING:
    from naign_ext.config import FieldHelp

FIELDS = "fields"
"""The parameter of a command's function that gets the flags made from fields: dotted key -> value or None."""


def with_field_flags(*keys: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator for the function of a :class:`FieldsCommand`: fields of the configuration that are flags of it.

    keys: dotted; ``objective.name`` becomes ``--objective``.
    """

    def mark(function: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(function).parameters.values() if p.name != FIELDS]
        marked: Any = function
        marked.field_keys = keys
        marked.__signature__ = inspect.Signature(own)
        return function

    return mark


class FieldsCommand(TyperCommand):
    """A command with flags that are fields of the configuration: types, help and choices are those of the fields.

    They are made when the command is used, because the configuration loads torch and ``naign --help`` shall not.
    """

    @functools.cached_property
    def complete(self) -> Any:
        """The same command with all its flags."""
        callback: Any = self.callback
        app = typer.Typer(add_completion=False)
        app.command(self.name)(_with_flags(callback.__wrapped__, callback.field_keys))
        return typer.main.get_command(app)

    def get_params(self, ctx: Any) -> list[Any]:
        """The flags of fields, then the function's own."""
        return list(self.complete.get_params(ctx))

    def invoke(self, ctx: Any) -> Any:
        """Run the function."""
        return self.complete.invoke(ctx)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Options first, then the fields in groups."""
        from naign_cli.output import results

        super().format_help(ctx, formatter)
        print_fields(results())


def _with_flags(function: Callable[..., None], keys: tuple[str, ...]) -> Callable[..., None]:
    from naign_ext.config import describe_fields

    known = {field.key: field for field in describe_fields()}
    names = {key.removesuffix(".name").replace(".", "_"): key for key in keys}

    @functools.wraps(function)
    def call(**given: Any) -> None:
        values = {key: given.pop(name) for name, key in names.items()}
        function(**given, **{FIELDS: {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}})

    flags = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_flag(known[key]))
        for name, key in names.items()
    ]
    parameters = [*flags, *inspect.signature(function, eval_str=True).parameters.values()]
    made: Any = call
    made.__signature__ = inspect.Signature(parameters)
    made.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def _flag(field: "FieldHelp") -> Any:
    """The annotation of a flag; a field with a root in its name is a path, for completion."""
    kind: Any = Path if field.key.endswith("_root") else field.value_type
    choices = f": {', '.join(field.choices)}." if field.choices else "."
    option = typer.Option(
        help=field.description.removesuffix(".") + choices, autocompletion=_completion(field)
    )
    return Annotated[kind | None, option]


def _completion(field: "FieldHelp") -> Callable[[str], list[str]] | None:
    def complete(incomplete: str) -> list[str]:
        return [value for value in _values(field) if value.startswith(incomplete)]

    return complete if field.choices or field.key == "dataset" else None


def _values(field: "FieldHelp") -> list[str]:
    if field.key != "dataset":
        return list(field.choices)
    from naign_ext.data import describe_datasets

    return [info.name.removesuffix("PATH") for info in describe_datasets()]


def print_fields(console: Console) -> None:
    """Every field that --set and --config take, in groups, with type, default and description."""
    from naign_ext.config import describe_fields

    console.print(
        Text.assemble(
            *("Fields for ", ("--set", "bold"), " KEY=VALUE and ", ("--config", "bold")),
            " FILE. Presets change many defaults.\n",
        )
    )
    fields = describe_fields()
    for group in dict.fromkeys(field.group for field in fields):
        grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        grid.add_column(style="bold cyan", no_wrap=True)
        grid.add_column(ratio=1)
        for field in fields:
            if field.group == group:
                default = f"({_default(field.default)})"
                described = Text.assemble(
                    f"{field.description} ", (field.type, "yellow"), " ", (default, "dim")
                )
                grid.add_row(field.key, described)
        console.print(Panel(grid, title=group, title_align="left", border_style="dim"))


def _default(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(str, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)
