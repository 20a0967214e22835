"""Results on the terminal: a table for each workload, and the worst ratios over all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from naign_bench.harness import OURS, Results, Row, by
from rich.console import Console
from rich.table import Table

Cell = Callable[[Row], str]


def seconds(value: float | None) -> str:
    """A duration with three digits and its unit."""
    if value is None:
        return ""
    for limit, scale, unit in ((1e-3, 1e6, "us"), (1.0, 1e3, "ms")):
        if value < limit:
            return f"{value * scale:.3g} {unit}"
    return f"{value:.3g} s"


def size(value: float | None) -> str:
    """A number of bytes in MB (10^6 bytes)."""
    return "" if value is None else f"{value / 1e6:.1f}"


def times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _number(name: str, pattern: str) -> Cell:
    return lambda row: "" if row[name] is None else pattern.format(row[name])


def _spread(row: Row) -> str:
    """Half the distance of the quartiles, in percent of the median."""
    if row["median_s"] is None:
        return ""
    return f"{50 * (row['q3_s'] - row['q1_s']) / row['median_s']:.0f}%"


def _mismatches(row: Row) -> str:
    return "" if row["mismatches"] is None else f"{row['mismatches']}/{row['checked']}"


def _loss_error(row: Row) -> str:
    """The larger of the relative errors of the loss and of its gradients."""
    errors = [row[name] for name in ("loss_error", "gradient_error") if row[name] is not None]
    return f"{max(errors):.0e}" if errors else ""


_SHARED: dict[str, Cell] = {
    "peer": lambda row: str(row["peer"]),
    "median": lambda row: seconds(row["median_s"]),
    "+-": _spread,
}
_OWN: dict[str, dict[str, Cell]] = {
    "imle_knn": {
        "GFLOP/s": _number("gflops", "{:.1f}"),
        "peak MB": lambda row: size(row["peak_memory_bytes"]),
        "wrong": _mismatches,
        "error": _number("max_relative_error", "{:.0e}"),
        "x naign": lambda row: times(row["ratio_naign"]),
        "x prep.": lambda row: times(row["ratio_prepared"]),
    },
    "fused_loss": {
        "GB/s": _number("gbs", "{:.1f}"),
        "of copy": _number("share_of_copy", "{:.0%}"),
        "peak MB": lambda row: size(row["peak_memory_bytes"]),
        "error": _loss_error,
        "x naign": lambda row: times(row["ratio_naign"]),
    },
}


def _share(*names: str) -> Cell:
    """The part of an update that these stages take."""
    return lambda row: f"{sum(row['shares'].get(name, 0.0) for name in names):.0%}"


_OWN["pool"] = {
    "latents": lambda row: f"{row['m']:,}",
    "chunk": lambda row: f"{row['chunk']:,}",
    "generation": lambda row: seconds(row["generation_s"]),
    "search": lambda row: seconds(row["search_s"]),
    "latents/s": _number("latents_per_s", "{:,.0f}"),
    "peak MB": lambda row: size(row["peak_memory_bytes"]),
}
_OWN["train"] = {
    "data": _share("data"),
    "gen.": _share("generation"),
    "search": _share("search"),
    "forw.": _share("forward"),
    "loss": _share("loss"),
    "backw.": _share("backward"),
    "upd.": _share("update"),
    "merge": _share("merge"),
    "other": _share("other"),
    "s + l": _number("search_and_loss", "{:.1%}"),
    "images/s": _number("images_per_s", "{:,.0f}"),
    "x 1": lambda row: times(row["speedup"]),
}


def show(results: Results, console: Console | None = None) -> None:
    """Print the machine, a table for each workload, and over several workloads the worst ratios."""
    console = console or Console()
    console.print(_machine(results.header))
    groups = by("workload", results.rows)
    for rows in groups.values():
        for table in _tables(rows, {**_SHARED, **_OWN[results.header["kind"]]}, console.width):
            console.print(table)
        for row in rows:
            if row["status"] != "ok":
                console.print(
                    f"  {row['peer']} {row['status']}: {row['reason']}", style="dim", highlight=False
                )
    if len(groups) > 1 and "ratio_naign" in results.rows[0]:
        console.print(_worst_table(results.rows))


def _machine(header: Mapping[str, Any]) -> str:
    peaks = {name: value for name, value in header["peaks"].items() if value is not None}
    rates = ", ".join(
        f"{name.rpartition('_')[0]} {value:.0f} {_UNITS[name.rpartition('_')[2]]}"
        for name, value in peaks.items()
    )
    text = f"{header['device_name']}, {header['threads']} threads\npeaks through torch: {rates or 'not measured'}"
    load, cores = header["load"], header["cores"] or 1
    if load is not None and load > _BUSY * cores:
        text += f"\n[bold red]the machine was busy before this run (load {load:.1f} on {cores} cores)[/]"
    return text


_BUSY = 0.3
# Blanks between two columns.
_GAP = 2
_UNITS = {"gflops": "GFLOP/s", "gops": "Gop/s", "gbs": "GB/s"}


def _tables(rows: Sequence[Row], cells: Mapping[str, Cell], width: int) -> Iterator[Table]:
    """One table; where it is wider than that, several one below the other, each with the peers."""
    first = rows[0]
    keys = [key for key in ("k", "data", "norm", "terms") if key in first]
    details = [_shape(first), first["dtype"], *(f"{key} {first[key]}" for key in keys)]
    title = f"\n{first['workload']}: {', '.join(details)}"
    measured = [row for row in rows if row["status"] == "ok"]
    columns = {name: [cell(row) for row in measured] for name, cell in cells.items()}
    for names in _fitting(columns, width):
        table = _plain_table(title, names[:1], names[1:])
        for i, row in enumerate(measured):
            style = "bold" if row["peer"].startswith(OURS) else None
            table.add_row(*(columns[name][i] for name in names), style=style)
        yield table
        title = ""


def _fitting(columns: Mapping[str, Sequence[str]], width: int) -> list[list[str]]:
    """Names of columns for tables of at most this width, the first column in each."""
    widths = {name: max(map(len, (name, *texts))) for name, texts in columns.items()}
    first, *others = widths
    tables = [[first]]
    for name in others:
        taken = [*tables[-1], name]
        if sum(widths[each] + _GAP for each in taken) - _GAP > width and len(tables[-1]) > 1:
            tables.append([first])
        tables[-1].append(name)
    return tables


def _plain_table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    """A table without lines; the columns of numbers are set flush right."""
    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1), pad_edge=False
    )
    for name in left:
        table.add_column(name, justify="left", no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def worst_ratios(rows: Sequence[Row]) -> dict[str, tuple[float, Row]]:
    """For each peer the smallest `ratio_naign` and its row: where naign does worst against it."""
    worst: dict[str, tuple[float, Row]] = {}
    for row in rows:
        value = row["ratio_naign"]
        if value is None or row["peer"] == OURS:
            continue
        if row["peer"] not in worst or value < worst[row["peer"]][0]:
            worst[row["peer"]] = (value, row)
    return worst


def _worst_table(rows: Sequence[Row]) -> Table:
    title = "\nsmallest multiple of naign's time; below 1 the peer is faster"
    judged = any(row.get("checked") is not None for row in rows)
    table = _plain_table(title, ("peer", "workload", "shape"), ("x naign", "wrong in all")[: 1 + judged])
    for peer, (value, row) in worst_ratios(rows).items():
        own = [entry for entry in rows if entry["peer"] == peer and entry.get("checked") is not None]
        wrong, checked = (sum(entry[name] for entry in own) for name in ("mismatches", "checked"))
        counted = [f"{wrong}/{checked}" if checked else ""] if judged else []
        table.add_row(peer, row["workload"], _shape(row), times(value), *counted)
    return table


def _shape(row: Row) -> str:
    return " x ".join(str(length) for length in row["shape"])
