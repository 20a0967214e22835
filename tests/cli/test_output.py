"""What is printed is shown as it is: names of files are no markup, and no name ends in a traceback."""

import io
import os
import sys

import pytest
from naign_cli.output import as_it_is, busy, notes, print_files, print_table, results, say

NAMES = [
    "photo[red].png",
    "photo[final].png",
    ":smile:.png",
    "a[/b].png",
    "[/]",
    "[bold]x[/bold]",
    r"back\slash[red]",
    "end\\",
    "[link=example.org]y[/link]",
    "{x} %s <b>&amp;</b>",
    "ü 漢 😀",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_printed_as_they_are_everywhere(name, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    results().print(f"AUROC against {name}: 1", soft_wrap=True)
    results().print(name, style="dim")
    print_table(name, ["", name], [[name, "1"], ["row", name]], numbers=[name])
    print_files([tmp_path / name], name)
    say(name)
    notes().print(name)
    told = capsys.readouterr()
    assert told.out.count(name) == 8
    assert told.err.count(name) == 2


@pytest.mark.parametrize("name", NAMES)
def test_what_stays_on_the_terminal_is_shown_as_it_is(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", screen)
    with busy(f"first {name}") as told:
        told(f"then {name}")
    assert f"then {name}" in screen.getvalue()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("caf\udce9.png", r"caf\xe9.png"),
        ("\ud800", r"\ud800"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("two\nlines", "two\nlines"),
        ("\x9b31m", r"\x9b31m"),
    ],
)
def test_what_no_screen_shows_is_escaped(name, shown, capsys):
    assert as_it_is(name) == shown
    results().print(name)
    print_table("", ["name"], [[name]])
    assert capsys.readouterr().out.count(shown) >= 1


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("two\nlines.png", r"two\x0alines.png"),
        ("a\tb", r"a\x09b"),
        ("a\u2028b", r"a\u2028b"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("x" * 200 + "1.png", "1.png"),
    ],
)
def test_a_name_stays_in_its_row_and_in_its_order(name, shown, capsys):
    print_table("", ["name", "score"], [[name, "1"]])
    print_files([name])
    told = capsys.readouterr().out
    assert told.count(shown) == 2
    assert name == shown or len(name) > 100 or name not in told


def test_a_screen_that_lacks_a_letter_shows_its_escape(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    results().print("ü.png")
    print_files([os.fsdecode(b"\xff.png")])
    sys.stdout.flush()
    assert raw.getvalue().decode("ascii").split("\n")[:3] == [r"\xfc.png", "written", r"  \xff.png"]
