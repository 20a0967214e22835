"""The list of metrics in docs/metrics.md, made from the registry.

``python -m naign_ext.evaluation.listing docs/metrics.md`` writes it anew.
"""

import sys
from pathlib import Path

from naign_ext.evaluation.registry import GROUPS, Metric, in_order
from naign_ext.evaluation.results import BEST, MAP, ONCE, TWICE
from naign_ext.evaluation.subjects import DataSubject, Restored, SampleSet

BEGIN, END = "<!-- begin: made from the registry -->", "<!-- end: made from the registry -->"


def metrics_list() -> str:
    """A Markdown table for each group: name, what it is, which way is good, what data it needs, its baselines."""
    sections = []
    for group, heading in GROUPS.items():
        lines = [
            f"**{heading}** (`--metrics {group}`)",
            "",
            "| metric | of | better | what | needs | baselines | family |",
            "|---|---|---|---|---|---|---|",
            *(_line(about) for about in in_order() if about.group == group),
        ]
        sections.append("\n".join(lines))
    return "\n\n".join(sections)


def _line(about: Metric) -> str:
    baselines = "all" if about.baselines is None else ", ".join(about.baselines)
    cells = (
        f"`{about.name}`",
        _subjects(about),
        about.better,
        about.text.replace("|", "\\|"),
        ", ".join(about.needs),
        "" if about.of is DataSubject else baselines,
        "" if about.family is None else f"`{about.family}`",
    )
    return f"| {' | '.join(cells)} |"


def _subjects(about: Metric) -> str:
    if about.of is DataSubject:
        return "data"
    if about.of is Restored:
        return f"{MAP}, {BEST}"
    return f"{ONCE}, {TWICE}" if about.of is SampleSet else MAP


def with_list(page: str) -> str:
    """The page with the list between its two marks made anew; ValueError where it lacks them."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"page: expected the marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{metrics_list()}\n\n{END}{after}"


def main(path: str) -> None:
    """Write the list in a page anew."""
    page = Path(path)
    page.write_text(with_list(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
