"""`python -m naign_bench knn|loss|plot`: the benchmarks without the rest of the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from naign_bench.fused_loss import run_loss
from naign_bench.harness import load
from naign_bench.imle_knn import run_knn
from naign_bench.plot import draw
from naign_bench.tables import show
from rich.console import Console

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Benchmarks of naign beside their peers.",
)
_errors = Console(stderr=True)
Names = Annotated[list[str] | None, typer.Argument(help="workloads or sets: quick, full, cuda")]
Json = Annotated[Path | None, typer.Option("--json", help="write the results to this file")]
Device = Annotated[str, typer.Option(help="cpu or cuda")]
Threads = Annotated[int | None, typer.Option(help="threads of every peer")]
Dtype = Annotated[str, typer.Option(help="float32, float16 or bfloat16")]
Peers = Annotated[list[str] | None, typer.Option("--peer", help="only these peers; repeat the option")]
Repeats = Annotated[int, typer.Option(help="timed rounds")]
Seed = Annotated[int, typer.Option(help="seed of data, order and grid")]
Memory = Annotated[bool, typer.Option(help="measure peak memory")]


def _say(line: str) -> None:
    _errors.print(line, style="dim", highlight=False)


@app.command()
def knn(
    *,
    workloads: Names = None,
    json: Json = None,
    device: Device = "cpu",
    threads: Threads = None,
    dtype: Dtype = "float32",
    k: Annotated[int | None, typer.Option("-k", help="neighbours, instead of the workloads' own")] = None,
    peer: Peers = None,
    repeats: Repeats = 7,
    seed: Seed = 0,
    grid: Annotated[int, typer.Option(help="random shapes")] = 0,
    memory: Memory = True,
) -> None:
    """Exact nearest neighbours."""
    results = run_knn(
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
        progress=_say,
    )
    show(results)


@app.command()
def loss(
    *,
    workloads: Names = None,
    json: Json = None,
    device: Device = "cpu",
    threads: Threads = None,
    dtype: Dtype = "float32",
    peer: Peers = None,
    repeats: Repeats = 11,
    seed: Seed = 0,
    memory: Memory = True,
) -> None:
    """Fused loss, forward and backward."""
    results = run_loss(
        workloads or None,
        device=device,
        threads=threads,
        dtype=dtype,
        peers=peer or None,
        repeats=repeats,
        seed=seed,
        memory=memory,
        json_path=json,
        progress=_say,
    )
    show(results)


@app.command()
def plot(
    results: Annotated[Path, typer.Argument(help="a file written with --json")],
    picture: Annotated[Path, typer.Argument(help="PNG, SVG or PDF to write")],
) -> None:
    """Figure of a results file."""
    draw(load(results), picture)


def main() -> None:
    """Run the command; a wrong argument or file is told in one line, exit code 2."""
    try:
        app()
    except (ValueError, OSError) as error:
        _errors.print(str(error), style="red", highlight=False)
        sys.exit(2)


if __name__ == "__main__":
    main()
