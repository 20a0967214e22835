"""What SECURITY.md and docs/guarantees.md promise is held to account by tests that are there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CITED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def functions(file: Path) -> set[str]:
    """Names of the functions of a file."""
    return {node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("page", ["SECURITY.md", "docs/guarantees.md"])
def test_every_test_that_is_cited_is_there(page: str) -> None:
    cited = CITED.findall((ROOT / page).read_text())
    assert len(cited) > 8
    assert [(file, name) for file, name in cited if not (ROOT / file).is_file()] == []
    assert [(file, name) for file, name in cited if name and name not in functions(ROOT / file)] == []


def test_every_guarantee_cites_a_test() -> None:
    points = re.split(r"\n- ", (ROOT / "docs/guarantees.md").read_text())[1:]
    assert [point for point in points if not CITED.search(point)] == []
