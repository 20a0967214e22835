"""What a reproduction leaves: a JSON file and a picture for each claim, and one page of tables over all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from naign_ext.evaluation import Key
from naign_ext.json_files import read_json, reading, rounded, write_json
from naign_ext.reproduce.claims import CLAIMS, Claim
from naign_ext.reproduce.costs import seconds_of
from naign_ext.reproduce.effort import FINAL_SEED
from naign_ext.reproduce.methods import IGN, IGN_SECONDS, METHODS, NAIGN
from naign_ext.reproduce.record import from_json, search_from_json, to_json
from naign_ext.reproduce.study import Study, summarise
from naign_ext.reproduce.verdict import RULE, better_rival, spread
from naign_ext.reproduce.vocabulary import TRUE_DATA, about, baseline_words
from naign_ext.training.callbacks import STAGES

SEARCHES = "ign-search.json"
PER_SEED = ("metrics", "baselines", "true_data")
"""What of a result is a number a seed."""


@dataclass(frozen=True)
class Outcome:
    """A claim's result, as its JSON file has it, and the files written."""

    result: dict[str, Any]
    files: list[Path]


def reproduce_claim(claim: Claim, study: Study, results: Path, *, pdf: bool = False) -> Outcome:
    """Train what is missing, judge, draw, and write RESULTS/CLAIM.json, CLAIM.png and the page; pdf: CLAIM.pdf too.

    Searches of IGN's settings that RESULTS holds are used again where they are of the same runs.
    """
    study.searches = known_searches(results) | study.searches
    evidence = claim.collect(study, claim)
    result = summarise(claim, study, evidence, compared=claim.compared, shown=claim.shown)
    result |= {name: rounded(result[name]) for name in PER_SEED}
    study.say(f"drawing {claim.name}")
    pictures = [results / f"{claim.name}{ending}" for ending in (".png", ".pdf")[: 1 + pdf]]
    for picture in pictures:
        claim.draw(study, evidence, result, picture)
    result["caption"] = claim.caption
    result["left_out"] = [name for name in CLAIMS[claim.name].datasets if name not in claim.datasets]
    write_json(results / f"{claim.name}.json", to_json(result))
    write_json(results / SEARCHES, dict(sorted(study.searches.items())))
    page = write_page(results)
    return Outcome(result, [results / f"{claim.name}.json", *pictures, page])


def known_searches(results: Path) -> dict[str, Any]:
    """The searches of IGN's settings in RESULTS/ign-search.json, by data set."""
    file = results / SEARCHES
    found = read_json(file) or {}
    with reading(file):
        return {dataset: search_from_json(search) for dataset, search in found.items()}


def read_results(results: Path) -> list[dict[str, Any]]:
    """The results there are, in the order of the claims."""
    read = []
    for file in (results / f"{name}.json" for name in CLAIMS):
        found = read_json(file)
        if found is not None:
            with reading(file):
                read.append(from_json(found))
    return read


def write_page(results: Path) -> Path:
    """RESULTS.md beside the folder: verdicts, pictures and tables of every claim that has a JSON file in it."""
    page = results.with_name(f"{results.name}.md")
    found, searches = read_results(results), known_searches(results)
    sections = []
    for result in found:
        # Each alone first, so that one that is damaged is named.
        with reading(results / f"{result['claim']}.json"):
            sections.append(_section(result, results.name))
            _head([result])
            _cost([result])
    sections = [_head(found), *sections, _cost(found)]
    if searches:
        with reading(results / SEARCHES):
            sections.append(_searches(searches, results.name))
    page.write_text("\n\n".join(sections) + "\n", encoding="ascii", errors="backslashreplace")
    return page


def _head(found: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "# The claims of arXiv 2511.02614, reproduced",
        "",
        "Written by `naign reproduce`; do not edit. Every number is the mean over seeds with [smallest, largest]. "
        "Seeds, their data and splits were used for no choice; figures are of the test part of the held-out data, "
        "checkpoints were chosen on its validation part (docs/reproduction.md).",
        "",
        "| " + " | ".join(("claim", "paper", *_verdict_heads())) + " |",
        "|" + "---|" * (2 + len(_verdict_heads())),
    ]
    for result in found:
        cells = [
            f"[{result['title']}](#{_anchor(result['title'])})",
            result["source"],
            *(_verdict(result, method, against) for against in ("ign", "baselines") for method in NAIGN),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", RULE])


def _verdict_heads() -> list[str]:
    return [
        f"{METHODS[m].label} against {words}" for words in ("IGN", "the best trivial baseline") for m in NAIGN
    ]


def _verdict(result: Mapping[str, Any], method: str, against: str) -> str:
    found = result["verdicts"][against][method]
    counts = ", ".join(f"{n} {v}" for v, n in found["comparisons"].items())
    return f"**{found['verdict']}** ({counts})" if counts else "-"


def _anchor(title: str) -> str:
    return "".join(c for c in title.lower() if c.isalnum() or c in " -").replace(" ", "-")


def _section(result: Mapping[str, Any], folder: str) -> str:
    lines = [f"## {result['title']}", "", f"{result['sentence']} ({result['source']})", ""]
    lines += [f"![{result['title']}]({folder}/{result['claim']}.png)", "", result["caption"], ""]
    heads = [
        "data",
        "figure",
        "",
        *(METHODS[m].label for m in METHODS),
        "best trivial",
        "true data",
        "paper / best against IGN",
    ]
    lines += ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += [_row(*row) for row in table_rows(result)]
    environment = result["environment"]
    lines += [
        "",
        f"{environment['date'][:10]}, {environment['processor']}, torch {environment['torch']}, commit "
        f"{environment['commit']}, {result['effort']['in_words']}, seeds {result['seeds'][0]} to "
        f"{result['seeds'][-1]}; "
        f"`{folder}/{result['claim']}.json` holds every value.",
    ]
    if result.get("left_out"):
        lines += ["", f"Not part of this run, though of the claim: {', '.join(result['left_out'])}."]
    return "\n".join(lines)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def table_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """A row for each data set and metric: its name, direction, every method, the best trivial baseline, true data,
    verdicts."""
    rows = []
    for dataset, of_methods in result["metrics"].items():
        keys = list(dict.fromkeys(key for series in of_methods.values() for key in series))
        for key in keys:
            words = about(key)
            values = [_cell(of_methods.get(method, {}).get(key, [])) for method in METHODS]
            verdicts = [
                c["verdict"]
                for method in NAIGN
                for c in result["comparisons"]
                if (c["dataset"], c["key"], c["method"], c["against"]) == (dataset, key, method, "ign")
            ]
            direction = {"lower": "lower is better", "higher": "higher is better", "closer": "1 is best"}
            rows.append(
                [
                    dataset,
                    words.title,
                    direction.get(words.better, ""),
                    *values,
                    _best_baseline(result, dataset, key, words.better),
                    _true_data(result, dataset, key),
                    " / ".join(verdicts),
                ]
            )
    return rows


def _cell(values: Sequence[float | None]) -> str:
    present = [v for v in values if v is not None]
    missing = len(values) - len(present)
    return spread(present) + (f" ({missing} without)" if missing and present else "")


def _best_baseline(result: Mapping[str, Any], dataset: str, key: Key, better: str) -> str:
    baselines = result["baselines"].get(dataset, {}).get(key, {})
    if better == "-" or not baselines:
        return ""
    best = better_rival(list(baselines.values()), better)
    name = next(name for name, values in baselines.items() if values is best)
    return f"{spread(best)} ({baseline_words(key, name)})"


def _true_data(result: Mapping[str, Any], dataset: str, key: Key) -> str:
    known = result["true_data"].get(dataset, {}).get(key, {})
    name = next((name for name in TRUE_DATA if name in known), None)
    return "" if name is None else f"{spread(known[name])} ({baseline_words(key, name)})"


def _cost(found: Sequence[Mapping[str, Any]]) -> str:
    """Milliseconds of an update by stage, and the updates that are equal time."""
    stages = [stage for stage in STAGES if stage != "merge"]
    lines = [
        "## What an update costs",
        "",
        "Milliseconds by stage: medians over short runs of all methods in turns, a thread each (seed "
        f"{FINAL_SEED}). In brackets: the updates of IGN in equal time.",
        "",
        "| data | method | updates | " + " | ".join(stages) + " | together |",
        "|" + "---|" * (4 + len(stages)),
    ]
    seen = set()
    for result in found:
        for dataset, costs in result.get("costs", {}).items():
            facts = result["runs"][dataset]
            for method in (m for m in METHODS if m in costs and (dataset, m) not in seen):
                seen.add((dataset, method))
                updates = str(facts[method]["updates"])
                if method == IGN and IGN_SECONDS in facts:
                    updates += f" ({facts[IGN_SECONDS]['updates']})"
                parts = [1e3 * costs[method].get(stage, 0.0) for stage in stages]
                cells = [f"{v:.2f}" for v in (*parts, 1e3 * seconds_of(costs[method]))]
                lines.append(_row(dataset, METHODS[method].label, updates, *cells))
    return "\n".join(lines)


def _searches(searches: Mapping[str, Any], folder: str) -> str:
    lines = [
        "## How IGN was tuned",
        "",
        f"Settings that won, by mean rank over the figures named, on seeds reported nowhere; `{folder}/{SEARCHES}` "
        "holds every candidate.",
        "",
        "| data | candidates | decided by | chosen | mean rank |",
        "|---|---|---|---|---|",
    ]
    for dataset, search in searches.items():
        chosen = search["candidates"][search["chosen"]]
        settings = ", ".join(f"`{key}={value}`" for key, value in chosen["settings"].items())
        metrics = ", ".join(about(Key.from_json(key)).title for key in search["decided_by"])
        lines.append(_row(dataset, _tried(search), metrics, settings, f"{chosen['mean_rank']:.2f}"))
    return "\n".join(lines)


def _tried(search: Mapping[str, Any]) -> str:
    finalists = str(len(search["candidates"]))
    return f"{len(search['heat']['candidates'])}, then {finalists}" if "heat" in search else finalists
