"""The configuration's fields as help."""

from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table


def print_fields(console: Console) -> None:
    """Every field that --set and --config take, in groups, with type, default and description."""
    from naign_ext.config.schema import describe_fields

    console.print(
        "Fields for [bold]--set[/] KEY=VALUE and [bold]--config[/] FILE. Presets change many defaults.\n"
    )
    fields = describe_fields()
    for group in dict.fromkeys(field.group for field in fields):
        grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        grid.add_column(style="bold cyan", no_wrap=True)
        grid.add_column(ratio=1)
        for field in fields:
            if field.group == group:
                kind = f"[yellow]{_escape(field.type)}[/] [dim]({_escape(_default(field.default))})[/]"
                grid.add_row(field.key, f"{_escape(field.description)} {kind}")
        console.print(Panel(grid, title=group, title_align="left", border_style="dim"))


def _default(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(str, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _escape(text: str) -> str:
    return text.replace("[", r"\[")
