"""What the repository carries: links that lead somewhere, pictures and results that stay small."""

import re
import subprocess
from pathlib import Path

import pytest

from naign_ext.pictures import MOST_BYTES

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MOST_JSON = 150_000


def targets(page: Path) -> list[str]:
    """Where the relative links and images of a page lead, without what follows #."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'<(?:img|a)[^>]*(?:src|href)="([^"]+)"', text)
    return [link.partition("#")[0] for link in found if not re.match(r"[a-z]+:|#", link)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_images_are_there(page: Path) -> None:
    assert [link for link in targets(page) if not (page.parent / link).exists()] == []


def test_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text('![a](b/c.png) [d](e.md#f) [g](https://h) [i](#j) <img src="k.png">\n```\n[l](m)\n```\n')
    assert targets(page) == ["b/c.png", "e.md", "k.png"]


def test_every_picture_is_shown_and_small() -> None:
    pictures = set((ROOT / "docs").rglob("*.png"))
    shown = {(page.parent / link).resolve() for page in PAGES for link in targets(page)}
    assert pictures and pictures <= shown
    assert {path.name: path.stat().st_size for path in pictures if path.stat().st_size > MOST_BYTES} == {}


def test_every_claim_has_one_picture_and_one_file() -> None:
    from naign_ext.reproduce.claims import CLAIMS
    from naign_ext.reproduce.results import SEARCHES

    expected = {f"{name}{ending}" for name in CLAIMS for ending in (".json", ".png")} | {SEARCHES}
    assert {path.name for path in (ROOT / "docs" / "results").iterdir()} == expected


def test_results_are_small() -> None:
    files = [*(ROOT / "docs" / "results").glob("*.json"), *(ROOT / "bench" / "results").glob("*.json")]
    assert files
    assert {path.name: path.stat().st_size for path in files if path.stat().st_size > MOST_JSON} == {}


def test_the_page_of_results_is_made_of_the_files_beside_it(tmp_path: Path) -> None:
    from naign_ext.reproduce.results import write_page

    (tmp_path / "results").symlink_to(ROOT / "docs" / "results")
    assert write_page(tmp_path / "results").read_text() == (ROOT / "docs" / "results.md").read_text()


def test_results_of_benchmarks_are_read() -> None:
    from naign_bench.harness import load

    for path in (ROOT / "bench" / "results").glob("*.json"):
        if not path.name.startswith(("exactness", "photos")):
            assert load(path).rows, path.name


def test_no_pdf_is_tracked() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    done = subprocess.run(["git", "ls-files", "*.pdf"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == ""
