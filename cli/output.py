"""What the commands print: results to stdout, everything else to stderr."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def results() -> Console:
    """Where answers go."""
    return Console(highlight=False)


def notes() -> Console:
    """Where progress and remarks go."""
    return Console(stderr=True, highlight=False)


def say(text: str, *, markup: bool = True, end: str = "\n") -> None:
    """A remark on stderr, not wrapped, so that paths can be copied."""
    notes().print(text, markup=markup, end=end, soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON value on stdout; numbers that JSON lacks become null."""
    print(json.dumps(_plain(value), indent=2, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and value - value != 0:
        return None
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[str] = ()
) -> Table:
    """A plain table; the columns named in numbers are right-aligned."""
    made = Table(
        title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )
    for name in columns:
        made.add_column(name, justify="right" if name in numbers else "left", header_style="dim")
    for row in rows:
        made.add_row(*row)
    return made


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[str] = ()
) -> None:
    """Print a table to stdout."""
    results().print(table(title, columns, rows, numbers=numbers))


def print_files(paths: Iterable[Path], title: str = "written") -> None:
    """Name the files that were written, one a line."""
    console = results()
    console.print(f"[bold]{title}[/]")
    for path in paths:
        console.print(f"  {path}", markup=False, soft_wrap=True)


def print_figures(figures: Mapping[str, float]) -> None:
    """The tables of a run's figures, with what trivial competitors score."""
    from naign_ext.report import accuracy_sentence, figure_rows, restoration_rows

    rows = figure_rows(figures)
    for group in dict.fromkeys(row.group for row in rows):
        chosen = [row for row in rows if row.group == group]
        columns = ["", "f(z)", "f(f(z))", "", "without f"]
        lines = [[row.title, row.value, row.twice, row.better, row.anchors] for row in chosen]
        used = [i for i in range(len(columns)) if i < 2 or any(line[i] for line in lines)]
        headers = ["" if group != "samples" and columns[i].startswith("f(") else columns[i] for i in used]
        made = Table(title=group, title_justify="left", title_style="bold", box=None, pad_edge=False)
        for i, header in zip(used, headers, strict=True):
            made.add_column(
                header, justify="right" if i in (1, 2) else "left", header_style="dim", no_wrap=i < 4
            )
        for line in lines:
            made.add_row(*(line[i] for i in used))
        results().print(made)
        results().print()
    restored = restoration_rows(figures)
    if restored:
        columns = ["", "PSNR before", "after", "gain dB", "clipped", "filter", "SSIM before", "after "]
        cells = (
            "psnr_before",
            "psnr_after",
            "gain",
            "gain_clipped",
            "filter_gain",
            "ssim_before",
            "ssim_after",
        )
        lines = [[row.what, *(getattr(row, cell) for cell in cells)] for row in restored]
        print_table("restoration of held-out images", columns, lines, numbers=columns[1:])
        sentence = accuracy_sentence(figures)
        if sentence:
            results().print(sentence, style="dim")
        results().print()
