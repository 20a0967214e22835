"""Figures of a results file: ratios and roofline of the search, bandwidth of the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naign_bench.harness import OURS, Results, Row, by

from naign_ext.pictures import check_picture_name, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with every kind of colour blindness; black is ours.
_COLOURS = {
    "naign": "#000000",
    "naign prepared": "#7f7f7f",
    "faiss": "#D55E00",
    "torch": "#0072B2",
    "torch fp32": "#0072B2",
    "torch tf32": "#004B75",
    "torch bf16": "#56B4E9",
    "torch compile": "#CC79A7",
    "torch cdist": "#9AD0EE",
    "flash-kmeans": "#8C510A",
    "flash-kmeans bf16": "#BF812D",
    "sklearn": "#009E73",
    "cKDTree": "#7CCBAF",
    "gemm fp32": "#E69F00",
    "gemm tf32": "#B37B00",
    "gemm bf16": "#F0E442",
    "copy": "#E69F00",
}
_OTHER = "#999999"
_MARKERS = {"naign": "o", "naign prepared": "D", "faiss": "s", "torch fp32": "^", "gemm fp32": "v"}
# With more workloads than this, dots of all workloads take the place of bars.
_MOST_BARS = 14
_DPI = 200
_FAINT = "#555555"
_STYLE: Any = {
    "font.size": 8.5,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    "svg.fonttype": "none",
}


def draw(results: Results, path: Path | str) -> Path:
    """Write the figure of a results object to path (PNG, SVG or PDF by its ending) and return the path.

    ValueError where no measured row is in the results.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    check_picture_name(Path(path))
    rows = [row for row in results.rows if row["status"] == "ok"]
    if not rows:
        raise ValueError("results: expected at least one measured row, got none")
    with mpl.rc_context(_STYLE), results.using():
        figure = Figure(layout="constrained")
        FigureCanvasAgg(figure)
        _DRAWN[results.header["kind"]](figure, results.header, rows)
        return save_figure(figure, Path(path), _DPI)


def _draw_search(figure: Figure, header: Mapping[str, Any], rows: Sequence[Row]) -> None:
    compared = [row for row in rows if row["peer"] != OURS and row["ratio_naign"] is not None]
    workloads = by("workload", compared)
    many = len(workloads) > _MOST_BARS
    height = 1.6 + sum(0.13 * len(group) + 0.15 for group in workloads.values())
    figure.set_size_inches(11.5, 5.0 if many else max(4.6, height))
    if not compared:
        _roofline(figure.add_subplot(), header, rows)
        return
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
    if many:
        _ratio_dots(left, compared)
    else:
        _ratio_bars(left, workloads)
    _roofline(right, header, rows)
    figure.supxlabel(_machine(header), fontsize=7.5, color=_FAINT)


def _ratio_bars(axes: Axes, workloads: Mapping[str, Sequence[Row]]) -> None:
    """Bars from 1 to the ratio on a logarithmic axis: to the right naign is faster, to the left the peer."""
    position, ticks, labels, named = 0.0, [], [], set()
    for rows in workloads.values():
        start = position
        for row in rows:
            ratio, peer = row["ratio_naign"], row["peer"]
            wrong = bool(row["mismatches"])
            axes.barh(
                position,
                math.log10(ratio),
                height=0.86,
                color=_COLOURS.get(peer, _OTHER),
                hatch="////" if wrong else None,
                edgecolor="white" if wrong else "none",
                linewidth=0,
                label=None if peer in named else peer,
            )
            axes.annotate(
                _digits(ratio),
                (math.log10(ratio), position),
                xytext=(3 if ratio >= 1 else -3, 0),
                textcoords="offset points",
                ha="left" if ratio >= 1 else "right",
                va="center",
                fontsize=6.5,
            )
            named.add(peer)
            position += 1
        ticks.append((start + position - 1) / 2)
        labels.append(_label(rows[0]))
        position += 1.2
    axes.set_yticks(ticks, labels)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    _logarithmic_ticks(axes, [row["ratio_naign"] for rows in workloads.values() for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_title("Time of each peer over the time of imle_knn")
    axes.set_xlabel("right of 1: imle_knn is faster; hatched: the peer named wrong neighbours")
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.09), ncols=5, fontsize=7.5)


def _ratio_dots(axes: Axes, rows: Sequence[Row]) -> None:
    """One line of dots for each peer, a dot for each workload; the smallest ratio is written beside it."""
    groups = by("peer", rows)
    for position, (peer, group) in enumerate(groups.items()):
        ratios = sorted(row["ratio_naign"] for row in group)
        xs = [math.log10(ratio) for ratio in ratios]
        shifts = [0.18 * (number % 5 - 2) / 2 for number in range(len(xs))]
        ys = [position + shift for shift in shifts]
        axes.scatter(
            xs, ys, s=16, color=_COLOURS.get(peer, _OTHER), edgecolor="white", linewidth=0.4, zorder=3
        )
        worst = f"worst {_digits(ratios[0])}"
        axes.annotate(worst, (xs[0], position - 0.3), ha="center", va="bottom", fontsize=6.5)
    axes.set_yticks(range(len(groups)), list(groups))
    axes.set_ylim(len(groups) - 0.4, -0.8)
    axes.axvline(0, color="black", linewidth=0.8)
    _logarithmic_ticks(axes, [row["ratio_naign"] for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_title(f"Time of each peer over the time of imle_knn, {len(by('workload', rows))} shapes")
    axes.set_xlabel("right of 1: imle_knn is faster")


def _logarithmic_ticks(axes: Axes, ratios: Sequence[float]) -> None:
    """Ticks at 1, 2, 5 in every decade that the ratios reach, with room for the labels of the bars."""
    low, high = math.log10(min(*ratios, 1.0)), math.log10(max(*ratios, 1.0))
    room = 0.09 * max(high - low, 0.3)
    axes.set_xlim(low - (room if low < 0 else room / 3), high + room)
    decades = range(math.floor(low), math.ceil(high) + 1)
    steps = (1, 2, 5) if high - low < 2.5 else (1,)
    values = [step * 10.0**decade for decade in decades for step in steps]
    inside = [value for value in values if low - room <= math.log10(value) <= high + room]
    axes.set_xticks([math.log10(value) for value in inside], [f"{value:g}x" for value in inside])


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _label(row: Row) -> str:
    shape = " x ".join(str(length) for length in row["shape"])
    details = f"{row['data']}, k = {row['k']}" if row["k"] > 1 else row["data"]
    return f"{shape}\n{details}"


def _roofline(axes: Axes, header: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Rate against arithmetic intensity: 2 N M D operations over the 4 (N + M) D bytes of both inputs."""
    intensity = [_intensity(row) for row in rows]
    low, high = min(intensity) / 2, max(intensity) * 2.5
    roofs = [(header["peaks"].get(name), label, style) for name, label, style in _ROOFS]
    height = 0.0
    for peak, label, style in sorted((roof for roof in roofs if roof[0] is not None), key=lambda r: r[0]):
        _roof(axes, (low, high), peak, header["peaks"].get("copy_gbs"), style)
        height = max(peak, 1.6 * height)
        axes.annotate(
            f"{label}\n{peak:.0f}",
            (high, height),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
        )
    for peer, group in by("peer", rows).items():
        axes.scatter(
            [_intensity(row) for row in group],
            [row["gflops"] for row in group],
            s=34 if peer in _MARKERS else 20,
            marker=_MARKERS.get(peer, "o"),
            color=_COLOURS.get(peer, _OTHER),
            edgecolor="white",
            linewidth=0.5,
            zorder=4 if peer.startswith(OURS) else 3,
            label=peer,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.grid(which="major")
    axes.set_title("Rate against the machine's matrix products")
    axes.set_xlabel("operations per byte of input, N M / 2 (N + M) in fp32")
    axes.set_ylabel("2 N M D / time, GFLOP/s")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=5, fontsize=7.5, handletextpad=0.2)


_ROOFS = (
    ("fp32_gflops", "fp32", "-"),
    ("bf16_gflops", "bf16", "--"),
    ("int8_gops", "int8", ":"),
)


def _roof(axes: Axes, span: tuple[float, float], peak: float, copy: float | None, style: str) -> None:
    """A peak, and below its ridge the rate at which memory delivers the operands."""
    ridge = span[0] if copy is None else min(max(peak / copy, span[0]), span[1])
    xs = [span[0], ridge, span[1]]
    ys = [peak if copy is None else min(peak, copy * x) for x in xs]
    axes.plot(xs, ys, style, color="#444444", linewidth=1.1, zorder=2)


def _intensity(row: Row) -> float:
    return float(row["n"] * row["m"] / (2 * (row["n"] + row["m"])))


def _draw_loss(figure: Figure, header: Mapping[str, Any], rows: Sequence[Row]) -> None:
    workloads = by("workload", rows)
    figure.set_size_inches(7.5, 1.6 + sum(0.2 * len(group) + 0.15 for group in workloads.values()))
    axes = figure.subplots()
    position, ticks, labels, named = 0.0, [], [], set()
    for group in workloads.values():
        start = position
        for row in group:
            peer = row["peer"]
            colour = _COLOURS.get(peer, _OTHER)
            axes.barh(position, row["gbs"], 0.86, color=colour, label=None if peer in named else peer)
            axes.annotate(
                f"{row['gbs']:.1f}",
                (row["gbs"], position),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
            )
            named.add(peer)
            position += 1
        ticks.append((start + position - 1) / 2)
        shape = " x ".join(str(length) for length in group[0]["shape"])
        labels.append(f"{shape}\n{group[0]['terms']} terms, {group[0]['norm']}, {group[0]['dtype']}")
        position += 1
    axes.set_yticks(ticks, labels)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.grid(axis="x")
    axes.margins(x=0.08)
    axes.set_title("Loss, forward and backward")
    axes.set_xlabel("GB/s of the bytes that must move: inputs read once, gradients written once")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=4, fontsize=7.5)
    figure.supxlabel(_machine(header), fontsize=7.5, color=_FAINT)


def _draw_pool(figure: Figure, header: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Time and peak memory against the pool's size, a line for each workload, and the line of proportion."""
    figure.set_size_inches(9.5, 3.8)
    left, right = figure.subplots(1, 2)
    for group, colour in zip(by("workload", rows).values(), ("#0072B2", "#D55E00", "#009E73"), strict=False):
        label = f"{group[0]['n']:,} rows of {group[0]['d']}"
        sizes, taken = [row["m"] for row in group], [row["median_s"] for row in group]
        left.plot(sizes, [taken[-1] * m / sizes[-1] for m in sizes], ":", color=colour, linewidth=1)
        left.plot(sizes, taken, "o-", color=colour, label=label, markersize=4)
        known = [row for row in group if row["peak_memory_bytes"] is not None]
        peaks = [row["peak_memory_bytes"] / 1e6 for row in known]
        right.plot([row["m"] for row in known], peaks, "o-", color=colour, label=label, markersize=4)
    for axes, title, unit in ((left, "Time of a match", "seconds"), (right, "Peak memory of a match", "MB")):
        axes.set_xscale("log")
        axes.set_title(title)
        axes.set_xlabel("latents in the pool")
        axes.set_ylabel(unit)
        axes.grid()
    left.set_yscale("log")
    right.set_ylim(bottom=0)
    left.legend(fontsize=7.5, title="dotted: in proportion", title_fontsize=7.5)
    figure.supxlabel(_machine(header), fontsize=7.5, color=_FAINT)


def _draw_train(figure: Figure, header: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """A bar for each run, an update's milliseconds by stage."""
    figure.set_size_inches(8.5, 1.6 + 0.34 * len(rows))
    axes = figure.subplots()
    colours = (
        "#56B4E9",
        "#009E73",
        "#000000",
        "#CC79A7",
        "#E69F00",
        "#D55E00",
        "#F0E442",
        "#0072B2",
        "#bbbbbb",
    )
    stages = list(rows[0]["shares"])
    for stage, colour in zip(stages, colours, strict=False):
        lefts = [1e3 * row["median_s"] * _sum_before(row["shares"], stage) for row in rows]
        widths = [1e3 * row["median_s"] * row["shares"][stage] for row in rows]
        axes.barh(range(len(rows)), widths, 0.8, left=lefts, color=colour, label=stage)
    axes.set_yticks(range(len(rows)), [f"{row['workload']}, {row['peer']}" for row in rows])
    axes.invert_yaxis()
    axes.grid(axis="x")
    axes.set_title("An update's time")
    axes.set_xlabel("milliseconds")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=5, fontsize=7.5)
    figure.supxlabel(_machine(header), fontsize=7.5, color=_FAINT)


def _sum_before(shares: Mapping[str, float], stage: str) -> float:
    names = list(shares)
    return sum(shares[name] for name in names[: names.index(stage)])


_DRAWN = {"imle_knn": _draw_search, "fused_loss": _draw_loss, "pool": _draw_pool, "train": _draw_train}


def _machine(header: Mapping[str, Any]) -> str:
    versions = header["versions"]
    found = [f"{name} {versions[name]}" for name in ("naign", "torch", "faiss-cpu") if versions.get(name)]
    where = f"{header['device_name']}, {header['threads']} threads"
    return f"{where}; {', '.join(found)}; {header['date'][:10]}"
