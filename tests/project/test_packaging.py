"""An installed naign holds every package and every file that its modules read."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def test_every_package_is_named() -> None:
    there = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "naign_ext").rglob("__init__.py")}
    assert set(SETUPTOOLS["packages"]) == there | {"naign_cli", "naign_bench"}


def test_every_file_that_is_no_module_is_named() -> None:
    named = {
        ROOT / package.replace(".", "/") / name
        for package, names in SETUPTOOLS["package-data"].items()
        for name in names
    }
    there = {
        p
        for p in (ROOT / "naign_ext").rglob("*")
        if p.is_file() and p.suffix not in (".py", ".pyc", ".so", ".pyd")
    }
    assert named == there
