"""What the commands print: results to stdout, everything else to stderr."""

import errno
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from naign_ext.evaluation import Results
    from naign_ext.report.tables import MetricRow


_DIRECTIONS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
"""They turn the order of what follows: a name could show another ending than it has."""
_UNPRINTABLE = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff{_DIRECTIONS}]")
_BREAKS = re.compile("[\t\n\u2028\u2029]")


def as_it_is(text: str, encoding: str = "utf-8") -> str:
    """A text as a screen shows it: control characters, bytes that are not UTF-8, and what encoding lacks as escapes."""
    return _UNPRINTABLE.sub(_escape, text).encode(encoding, "backslashreplace").decode(encoding)


def on_one_line(text: str) -> str:
    """A name of a user's file where a line is a row or a file: tabs and line ends as escapes too."""
    return _BREAKS.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    # Python keeps a byte of a file's name that is not UTF-8 as this code.
    byte = code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else code
    return f"\\x{byte:02x}" if byte < 0x100 else f"\\u{byte:04x}"


class LiteralConsole(Console):
    """A console on which every text, also in tables, is shown as it is: names of files hold [red] and :smile: too.

    What is to have a style is a rich Text, or has the style given beside it.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def on_broken_pipe(self) -> NoReturn:
        """The reader is gone: what follows goes nowhere, and whoever prints decides what that means."""
        self.quiet = True
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def render_str(self, text: str, *args: Any, **options: Any) -> Text:
        """Whatever is printed comes through here."""
        return super().render_str(as_it_is(text, self.encoding), *args, **options)


def results() -> Console:
    """Where answers go."""
    return LiteralConsole()


def notes() -> Console:
    """Where progress and remarks go."""
    return LiteralConsole(stderr=True)


def say(text: str, *, markup: bool = False, end: str = "\n") -> None:
    """A remark on stderr, not wrapped, so that paths can be copied; markup: for words of our own alone."""
    notes().print(text, markup=markup, end=end, soft_wrap=True)


@contextmanager
def busy(text: str) -> Iterator[Callable[[str], None]]:
    """A remark that stays on the terminal while something is done; what is yielded puts another in its place."""
    with notes().status(Text(as_it_is(text))) as status:
        yield lambda line: status.update(Text(as_it_is(line)))


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
        # Names of files are folded, not cut: two that begin alike are told apart.
        made.add_column(
            name, justify="right" if name in numbers else "left", header_style="dim", overflow="fold"
        )
    for row in rows:
        made.add_row(*map(on_one_line, row))
    return made


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[str] = ()
) -> None:
    """Print a table to stdout."""
    results().print(table(title, columns, rows, numbers=numbers))


def print_files(paths: Iterable[Path], title: str = "written") -> None:
    """Name the files that were written, one a line."""
    console = results()
    console.print(title, style="bold")
    for path in paths:
        console.print(f"  {on_one_line(str(path))}", soft_wrap=True)


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
