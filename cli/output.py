"""What the commands print: results to stdout, everything else to stderr."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from naign_ext.evaluation import Results
    from naign_ext.report.tables import MetricRow


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


def print_metrics(measured: "Results", features: str = "") -> None:
    """The tables of a run's metrics, each with what the baselines score in the columns at its right."""
    from naign_ext.report import tables

    rows = tables.metric_rows(measured)
    for group in dict.fromkeys(row.group for row in rows):
        results().print(_group_table(group, [row for row in rows if row.group == group], features))
        results().print()
    if rows:
        others = tables.baselines_sentence(measured)
        legend = "v lower is better, ^ higher is better, 1 one is best"
        results().print(legend + (f"; without f: {others}" if others else ""), style="dim")
        results().print()
    restored = tables.restoration_rows(measured)
    if restored:
        columns = ["", *tables.RESTORATION_COLUMNS]
        lines = [[row.what, *row.numbers] for row in restored]
        print_table("restoration of held-out images", columns, lines, numbers=columns[1:])
        sentence = tables.accuracy_sentence(measured)
        if sentence:
            results().print(sentence, style="dim")
        results().print()


def _group_table(group: str, rows: Sequence["MetricRow"], features: str) -> Table:
    """One group of metrics: a column for f(z) or f, for f(f(z)), and for each baseline that has any of them."""
    from naign_ext.report.tables import baseline_columns

    baselines = baseline_columns(rows)
    twice = any(row.twice for row in rows)
    title = f"{group}, compared by {features}" if twice and features else group
    made = Table(
        title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 1, 0, 0)
    )
    made.add_column("", no_wrap=True)
    made.add_column("", no_wrap=True, style="dim")
    for name in ("f(z)", "f(f(z))") if twice else ("f",):
        made.add_column(name, justify="right", header_style="dim", no_wrap=True)
    for name in baselines:
        made.add_column(name, justify="right", header_style="dim", style="dim", min_width=5)
    for row in rows:
        cells = [row.title, MARKS[row.better], row.value, *([row.twice] if twice else [])]
        made.add_row(*cells, *(row.baselines.get(name, "") for name in baselines))
    return made
