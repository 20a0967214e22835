"""`naign reproduce`: the paper's claims, one command each."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from naign_cli.guard import Mistake, guarded
from naign_cli.output import busy, notes, print_files, print_json, print_table, results
from rich.text import Text

if TYPE_CHECKING:
    from naign_ext.reproduce.claims import Claim

ALL, REPORT = "all", "report"
_WIDE = 150


def _claims(incomplete: str) -> list[str]:
    from naign_ext.reproduce.claims import CLAIMS

    return [name for name in [*CLAIMS, ALL, REPORT] if name.startswith(incomplete)]


@guarded
def reproduce(
    claim: Annotated[
        str,
        typer.Argument(
            metavar="CLAIM",
            help="trimodal, modes2d, fld-over-training, faces, distance-field, energy-density, ood, restoration, "
            "few-shot, stability, or all; report writes the page again from the JSON files.",
            autocompletion=_claims,
        ),
    ],
    *,
    datasets: Annotated[
        list[str] | None,
        typer.Option("--dataset", help="Only this one of the claim's data sets; may be repeated."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Seeds of every method; default 5, quick 2.")
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Short training and few seeds: tries the commands, proves nothing."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where runs are kept and reused; default runs/reproduce, or runs/reproduce-quick.",
        ),
    ] = None,
    results_: Annotated[
        Path | None,
        typer.Option("--results", metavar="DIR", help="Where JSON and pictures go; default DIR/results."),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Runs trained at a time, a thread each; default: one a processor."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N; CUDA takes one run at a time.")] = "cpu",
    pdf: Annotated[bool, typer.Option("--pdf", help="Write each figure as PDF too, beside its PNG.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Train NAIGN, IGN and trivial baselines, compare them, draw a picture, and say whether the claim holds.

    Runs are kept by a hash of their configuration: a second call continues where the first stopped, and claims
    share runs.
    """
    from naign_ext.reproduce.claims import CLAIMS
    from naign_ext.reproduce.effort import FULL, QUICK
    from naign_ext.reproduce.results import read_results, reproduce_claim, write_page
    from naign_ext.reproduce.study import Study

    root = out or Path("runs") / ("reproduce-quick" if quick else "reproduce")
    folder = results_ or root / "results"
    if claim == REPORT:
        if not read_results(folder):
            raise Mistake(
                f"report: no results in {folder}; run a claim first, or name the folder with --results"
            )
        print_files([write_page(folder)])
        return
    if claim not in (*CLAIMS, ALL):
        raise Mistake(f"claim: expected one of {', '.join([*CLAIMS, ALL, REPORT])}, got {claim!r}")
    chosen = [_restricted(CLAIMS[name], datasets) for name in (CLAIMS if claim == ALL else [claim])]
    effort = QUICK if quick else FULL
    effort = effort if seeds is None else replace(effort, seeds=seeds)
    workers = 1 if device != "cpu" else jobs or len(os.sched_getaffinity(0))
    found = []
    with busy(claim) as told:

        def say(line: str) -> None:
            told(line)
            if not notes().is_terminal:
                notes().print(line)

        study = Study(root, effort, workers, device, say)
        for one in chosen:
            outcome = reproduce_claim(one, study, folder, pdf=pdf)
            found.append(outcome.result)
            if not json:
                print_claim(outcome.result)
                print_files(outcome.files)
                results().print()
    if json:
        from naign_ext.reproduce.record import to_json

        print_json([to_json(one) for one in found] if claim == ALL else to_json(found[0]))


def _restricted(claim: "Claim", datasets: list[str] | None) -> "Claim":
    """The claim on some of its data sets."""
    if not datasets:
        return claim
    kept = tuple(name for name in claim.datasets if name in datasets)
    unknown = [name for name in datasets if name not in claim.datasets]
    if unknown or not kept:
        raise Mistake(
            f"--dataset: {claim.name} is about {', '.join(claim.datasets)}; got {', '.join(datasets)}"
        )
    return replace(claim, datasets=kept)


def print_claim(result: Mapping[str, Any]) -> None:
    """The claim, its metrics as mean [min, max], and the verdicts."""
    from naign_ext.reproduce.methods import METHODS, NAIGN
    from naign_ext.reproduce.results import table_rows

    console = results()
    title = Text.assemble((result["title"], "bold"), f" ({result['source']}): {result['sentence']}")
    console.print(title)
    console.print(result["effort"]["in_words"], style="dim")
    wide = console.width >= _WIDE
    methods = [m.label for m in METHODS.values()]
    columns = ["data", "metric", *methods, *(["best trivial", "true data"] if wide else []), "against IGN"]
    rows = []
    for dataset, metric, direction, *values, baseline, data, verdicts in table_rows(result):
        name = f"{metric} ({direction.split()[0]})" if direction else metric
        rows.append([dataset, name, *values, *([baseline, data] if wide else []), verdicts])
    print_table("", columns, rows, numbers=methods)
    for against, words in (("ign", "against IGN"), ("baselines", "against trivial baselines")):
        for method in NAIGN:
            verdict = result["verdicts"][against][method]
            counts = ", ".join(f"{n} {v}" for v, n in verdict["comparisons"].items())
            console.print(
                Text.assemble(
                    f"{METHODS[method].label}, {words}: ",
                    (verdict["verdict"], "bold"),
                    f" ({counts or 'nothing'})",
                )
            )
