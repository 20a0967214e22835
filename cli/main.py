"""The Typer app `naign`. Commands import what they need when they run, so that --help is quick."""

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer
from naign_cli import bench, data, doctor, evaluate, reproduce, restore, sample, score, train
from naign_cli.fields import FieldsCommand

app = typer.Typer(
    name="naign",
    help="Train networks that are their own projector, and use them: sample, restore, score.\n\n"
    "Exit codes: 0 done, 1 failed, interrupted or done without some images, 2 a mistake in what was asked. "
    "NAIGN_DEBUG=1 shows tracebacks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)
data_app = typer.Typer(help="List data sets and fetch those that need a download.", no_args_is_help=True)
bench_app = typer.Typer(help="Benchmarks beside their peers.", no_args_is_help=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            found = version("naign")
        except PackageNotFoundError:
            from naign_ext import __version__ as found
        typer.echo(f"naign {found}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Options of naign itself."""


app.command("train", cls=FieldsCommand)(train.train)
app.command("sample")(sample.sample)
app.command("restore")(restore.restore)
app.command("score")(score.score)
app.command("evaluate")(evaluate.evaluate)
app.command("reproduce")(reproduce.reproduce)
data_app.command("list")(data.list_datasets)
data_app.command("get")(data.get)
bench_app.command("knn")(bench.knn)
bench_app.command("loss")(bench.loss)
bench_app.command("exactness")(bench.exactness)
bench_app.command("pool")(bench.pool)
bench_app.command("train")(bench.train)
bench_app.command("cost")(bench.cost)
bench_app.command("plot")(bench.plot)
app.add_typer(data_app, name="data")
app.add_typer(bench_app, name="bench")
app.command("doctor")(doctor.doctor)


def run() -> None:
    """Entry point of the command `naign`."""
    app(prog_name="naign")
