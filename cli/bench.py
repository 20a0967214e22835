"""`naign bench`: the exact search and the fused loss beside their peers."""

from pathlib import Path
from typing import Annotated

import typer
from naign_cli.arguments import Settings
from naign_cli.guard import guarded
from naign_cli.output import results, say

Workloads = Annotated[
    list[str] | None, typer.Argument(metavar="[WORKLOAD]...", help="Names, or sets: quick, full, cuda.")
]
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write all rows to this file as JSON.")
]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
MOST_THREADS, MOST_ROUNDS, MOST_CASES = 4096, 1_000_000, 10**9
"""Of threads or processes, of timed rounds, and of problems: beyond them a count is a slip."""
Threads = Annotated[
    int | None, typer.Option(min=1, max=MOST_THREADS, help="Threads of every peer; default: torch's.")
]
Dtype = Annotated[str, typer.Option(help="float32, float16 or bfloat16.")]
Peers = Annotated[list[str] | None, typer.Option("--peer", help="Only this peer; may be repeated.")]
Seed = Annotated[int, typer.Option(help="Seed of data and order.")]
Memory = Annotated[
    bool, typer.Option("--memory/--no-memory", help="Measure peak memory, each peer in its own process.")
]
Plot = Annotated[
    Path | None, typer.Option("--plot", metavar="PICTURE", help="Also draw the rows: PNG, SVG or PDF.")
]


def _remark(line: str) -> None:
    say(line)


@guarded
def knn(
    workloads: Workloads = None,
    *,
    json: JsonFile = None,
    device: Device = "cpu",
    threads: Threads = None,
    dtype: Dtype = "float32",
    k: Annotated[
        int | None, typer.Option("-k", min=1, help="Neighbours, instead of the workloads' own.")
    ] = None,
    peer: Peers = None,
    repeats: Annotated[int, typer.Option(min=1, max=MOST_ROUNDS, help="Timed rounds.")] = 7,
    seed: Seed = 0,
    grid: Annotated[int, typer.Option(min=0, max=MOST_CASES, help="That many random shapes.")] = 0,
    memory: Memory = True,
    picture: Plot = None,
) -> None:
    """Exact nearest neighbours: time, rate, peak memory and wrong answers of every peer."""
    from naign_bench.imle_knn import run_knn

    found = run_knn(
        workloads or None,
        device=device,
        threads=threads,
        dtype=dtype,
        k=k,
        peers=peer or None,
        repeats=repeats,
        seed=seed,
        grid_shapes=grid,
        memory=memory,
        json_path=json,
        progress=_remark,
    )
    _show(found, json, picture)


@guarded
def loss(
    workloads: Workloads = None,
    *,
    json: JsonFile = None,
    device: Device = "cpu",
    threads: Threads = None,
    dtype: Dtype = "float32",
    peer: Peers = None,
    repeats: Annotated[int, typer.Option(min=1, max=MOST_ROUNDS, help="Timed rounds.")] = 11,
    seed: Seed = 0,
    memory: Memory = True,
    picture: Plot = None,
) -> None:
    """The fused loss, forward and backward, beside torch's own expression of it."""
    from naign_bench.fused_loss import run_loss

    found = run_loss(
        workloads or None,
        device=device,
        threads=threads,
        dtype=dtype,
        peers=peer or None,
        repeats=repeats,
        seed=seed,
        memory=memory,
        json_path=json,
        progress=_remark,
    )
    _show(found, json, picture)


@guarded
def exactness(
    *,
    cases: Annotated[int, typer.Option(min=1, max=MOST_CASES, help="Random small problems.")] = 100_000,
    seed: Seed = 0,
    json: JsonFile = None,
) -> None:
    """Many small random problems: every answer compared bit for bit with the reference."""
    from naign_bench.exactness import run_exactness

    outcome = run_exactness(cases, seed=seed, json_path=json, progress=_remark)
    say(f"{outcome.cases} problems, {outcome.mismatches} wrong, {outcome.seconds:.0f} s")
    if outcome.mismatches:
        say(f"the first: {outcome.first}")
        raise typer.Exit(1)


@guarded
def pool(
    *,
    full: Annotated[
        bool, typer.Option("--full", help="Up to 10^8 latents in the plane, 10^6 of 784 numbers: minutes.")
    ] = False,
    json: JsonFile = None,
    chunk: Annotated[
        int | None, typer.Option(min=1, help="Rows of the pool in memory; default: by free memory.")
    ] = None,
    device: Device = "cpu",
    threads: Threads = None,
    seed: Seed = 0,
    memory: Memory = True,
    picture: Plot = None,
) -> None:
    """Pools of growing size matched to a data set: time and peak memory."""
    from naign_bench.pool import flatness, growth, run_pool

    found = run_pool(
        "full" if full else "quick",
        chunk=chunk,
        device=device,
        threads=threads,
        seed=seed,
        memory=memory,
        json_path=json,
        progress=_remark,
    )
    _show(found, json, picture)
    for name, exponent in growth(found.rows).items():
        flat = flatness(found.rows).get(name)
        memory_words = "" if flat is None else f"; peak memory of the largest is {flat:.2f} of the smallest"
        say(f"{name}: time grows as M^{exponent:.2f}{memory_words}")


@guarded
def train(
    datasets: Annotated[
        list[str] | None, typer.Argument(metavar="[DATASET]...", help="Default: those that need no download.")
    ] = None,
    *,
    preset: Annotated[str, typer.Option(help="quick, default or paper.")] = "default",
    objectives: Annotated[
        list[str] | None,
        typer.Option("--objective", help="Instead of the preset's: naign, ign, imle, ...; may be repeated."),
    ] = None,
    processes: Annotated[
        list[int] | None,
        typer.Option(min=1, max=MOST_THREADS, help="Also in so many processes; may be repeated."),
    ] = None,
    updates: Annotated[int, typer.Option(min=1, max=MOST_ROUNDS, help="Updates in each of 6 windows.")] = 20,
    repeats: Annotated[
        int, typer.Option(min=1, max=MOST_ROUNDS, help="Runs of each kind, taking turns.")
    ] = 1,
    set_: Settings = None,
    json: JsonFile = None,
    device: Device = "cpu",
    threads: Threads = None,
    picture: Plot = None,
) -> None:
    """Where an update's time goes, by preset, and what more processes make of it."""
    from naign_bench.train import run_train

    found = run_train(
        datasets or None,
        preset=preset,
        objectives=objectives or (),
        processes=processes or (),
        settings=set_ or (),
        updates=updates,
        repeats=repeats,
        device=device,
        threads=threads,
        json_path=json,
        progress=_remark,
    )
    _show(found, json, picture)


@guarded
def cost(
    rows: Annotated[
        Path | None, typer.Argument(metavar="[RESULTS]", help="Of naign bench train --processes 2 --json.")
    ] = None,
) -> None:
    """The model of cost: beside measured runs, and extrapolated to 1024 accelerators (docs/scaling.md)."""
    from naign_bench.cost import compared, extrapolated
    from naign_bench.harness import load
    from naign_cli.output import print_table

    if rows is not None:
        measured = load(rows)
        with measured.using():
            lines = compared(measured.header, measured.rows)
        columns = ["preset", "run", "1 process ms", "measured ms", "model ms", "x 1 process"]
        print_table("the model beside this machine", columns, lines)
    columns = ["problem", "processes", "ms", "most of it", "data points/s"]
    print_table("extrapolated to accelerators", columns, extrapolated())


@guarded
def plot(
    rows: Annotated[Path, typer.Argument(metavar="RESULTS", help="A file written with --json.")],
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="PNG, SVG or PDF to write.")],
) -> None:
    """Draw a results file: time of every peer, and rates beside the machine's own."""
    from naign_bench.harness import load
    from naign_bench.plot import draw

    draw(load(rows), picture)
    say(f"wrote {picture}")


def _show(found: object, json: Path | None, picture: Path | None) -> None:
    from typing import cast

    from naign_bench.harness import Results
    from naign_bench.tables import show

    rows = cast(Results, found)
    show(rows, results())
    if json is not None:
        say(f"wrote {json}")
    if picture is not None:
        from naign_bench.plot import draw

        draw(rows, picture)
        say(f"wrote {picture}")
