"""What the commands print: results to stdout, everything else to stderr."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from naign_ext.report.page import FigureRow


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
    print(json.dumps(plain(value), indent=2, allow_nan=False))


def plain(value: Any) -> Any:
    """value as json can write it: paths as text, infinities and NaN as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and value - value != 0:
        return None
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [plain(item) for item in value]
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


MARKS = {"lower is better": "v", "higher is better": "^", "1 is best": "1", "": ""}


def print_figures(figures: Mapping[str, float], features: str = "") -> None:
    """The tables of a run's figures, each with what trivial competitors score in the columns at its right."""
    from naign_ext.report.page import accuracy_sentence, baselines_sentence, figure_rows, restoration_rows

    rows = figure_rows(figures)
    for group in dict.fromkeys(row.group for row in rows):
        results().print(_group_table(group, [row for row in rows if row.group == group], features))
        results().print()
    legend = "v lower is better, ^ higher is better, 1 one is best" if rows else ""
    others = baselines_sentence(figures)
    if legend:
        results().print(legend + (f"; without f: {others}" if others else ""), style="dim")
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


def _group_table(group: str, rows: Sequence["FigureRow"], features: str) -> Table:
    """One group of figures: a column for f(z), for f(f(z)), and for each baseline that has any of them."""
    baselines = list(dict.fromkeys(name for row in rows for name in row.anchors))
    twice = any(row.twice for row in rows)
    title = f"{group}, compared by {features}" if group == "samples" and features else group
    made = Table(
        title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 1, 0, 0)
    )
    made.add_column("", no_wrap=True)
    made.add_column("", no_wrap=True, style="dim")
    made.add_column("f(z)" if group == "samples" else "f", justify="right", header_style="dim", no_wrap=True)
    if twice:
        made.add_column("f(f(z))", justify="right", header_style="dim", no_wrap=True)
    for name in baselines:
        made.add_column(name, justify="right", header_style="dim", style="dim", min_width=5)
    for row in rows:
        cells = [row.title, MARKS[row.better], row.value, *([row.twice] if twice else [])]
        made.add_row(*cells, *(row.anchors.get(name, "") for name in baselines))
    return made
