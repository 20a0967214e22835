"""docs/metrics.md is in step with the registry."""

import re
from pathlib import Path

import pytest

from naign_ext.evaluation import METRICS
from naign_ext.evaluation.listing import BEGIN, main, metrics_list, with_list

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_list_in_the_docs_is_that_of_the_registry():
    page = PAGE.read_text(encoding="utf-8")
    assert with_list(page) == page, "run: python -m naign_ext.evaluation.listing docs/metrics.md"


def test_the_list_names_every_metric_once():
    assert re.findall(r"^\| `(\w+)`", metrics_list(), flags=re.M) == [
        about.name
        for group in ("projection", "samples", "ood", "likelihood", "restoration")
        for about in METRICS.values()
        if about.group == group
    ]


def test_every_metric_is_defined_in_words():
    defined = PAGE.read_text(encoding="utf-8").partition(BEGIN)[0]
    # Totals are the data's, and the number of rows is told below the table.
    names = set(METRICS) - {"modes_total", "classes_total", "rows_judged"}
    assert {name for name in names if f"`{name}`" not in defined} == set()


def test_a_list_is_written_anew(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "before\n<!-- begin: made from the registry -->\nold\n<!-- end: made from the registry -->\n"
    )
    main(str(page))
    text = page.read_text()
    assert text.startswith("before\n") and metrics_list() in text and "old" not in text.split("\n")
    with pytest.raises(ValueError, match="page: expected the marks"):
        with_list("no marks")
