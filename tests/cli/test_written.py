"""Folders of results: the names in them, what makes room, and what is never touched."""

import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from naign_cli.guard import Mistake
from naign_cli.written import LIST, result_stems, results_folder


def write(folder, content, inputs=()):
    with results_folder(folder, list(content), inputs) as results:
        for name, text in content.items():
            results.write(name, text.encode())


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.name != LIST
    }


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["00002.png", "00001.png"], ["00002", "00001"]),
        (["x.png", "x.jpg", "y.png"], ["x.png", "x.jpg", "y"]),
        (["a/b.png", "a_b.png", "a/c.png"], ["a__b.png", "a_b.png", "a_c"]),
        (["X.png", "x.png"], ["X.png", "x.png_2"]),
        (["x.png", "x.png", "x.png_2", "x"], ["x.png", "x.png_3", "x.png_2", "x"]),
        (["x.png", "x.jpg", "x.png.tif"], ["x.png_2", "x.jpg", "x.png"]),
        (["heldout_00000"], ["heldout_00000"]),
        (["/abs/x.png", "../x.png"], ["abs_x", "x"]),
    ],
)
def test_names_of_results(names, expected):
    assert sorted(result_stems(names)) == sorted(expected)


def test_names_of_results_always_differ_and_fit():
    numbers = np.random.default_rng(0)
    letters = ["a", "A", "_", "__", "/", ".png", ".jpg", "_2", "b", "ü" * 100, "漢" * 60]
    for _ in range(300):
        count = int(numbers.integers(1, 9))
        names = ["n" + "".join(numbers.choice(letters, int(numbers.integers(1, 6)))) for _ in range(count)]
        stems = result_stems(names)
        assert len({stem.casefold() for stem in stems}) == len(names)
        assert all("/" not in stem and len(os.fsencode(f"{stem}.png")) <= 255 for stem in stems)


def test_a_second_call_leaves_nothing_of_the_first(tmp_path):
    write(tmp_path, {"stages.png": "1", "images/a.png": "1", "images/b.png": "1"})
    (tmp_path / "images" / "mine.txt").write_text("mine")
    write(tmp_path, {"stages.png": "2", "images/b.png": "2", "images/c.png": "2"})
    kept = {"images/mine.txt": "mine"}
    assert files(tmp_path) == {"stages.png": "2", "images/b.png": "2", "images/c.png": "2", **kept}


def test_what_others_wrote_or_changed_is_kept(tmp_path):
    write(tmp_path, {"images/a.png": "1", "images/b.png": "1"})
    (tmp_path / "images" / "a.png").write_text("changed by hand")
    (tmp_path / "images" / "c.png").write_text("mine")
    before = files(tmp_path)
    for name in ("images/a.png", "images/c.png"):
        with pytest.raises(Mistake, match=f"{name}: is there already, and no earlier call wrote it"):
            write(tmp_path, {name: "2"})
        assert files(tmp_path) == before
    write(tmp_path, {"images/d.png": "2"})
    assert files(tmp_path) == {"images/a.png": "changed by hand", "images/c.png": "mine", "images/d.png": "2"}


def test_links_are_not_written_through(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "own.png").write_text("mine")
    for target in ("own.png", "nowhere.png"):
        link = tmp_path / "out" / target
        link.symlink_to(tmp_path / target)
        with pytest.raises(Mistake, match="is there already"):
            write(tmp_path / "out", {target: "2"})
    assert (tmp_path / "own.png").read_text() == "mine"
    assert not (tmp_path / "nowhere.png").exists()


def test_what_a_call_that_was_cut_short_has_left_makes_room(tmp_path):
    # Killed as it wrote: the list names what it was about to write, and one file is not whole.
    (tmp_path / LIST).write_text(json.dumps({"files": {"a.png": None, "b.png": None}}))
    (tmp_path / "a.png").write_text("1")
    (tmp_path / "b.png.part").write_text("half")
    (tmp_path / "c.png.part").write_text("mine")
    with pytest.raises(Mistake, match=r"c\.png\.part: is there already"):
        write(tmp_path, {"c.png": "2"})
    (tmp_path / "c.png.part").unlink()
    write(tmp_path, {"c.png": "2"})
    assert files(tmp_path) == {"c.png": "2"}


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device"), MemoryError()]
)
def test_a_call_that_is_stopped_keeps_what_is_whole(tmp_path, capsys, error):
    with pytest.raises(type(error)), results_folder(tmp_path, ["a.png", "b.png", "rows.csv"]) as results:
        results.write("a.png", b"1")
        results.append("rows.csv", b"1,2\n3,4\n")
        raise error
    assert files(tmp_path) == {"a.png": "1", "rows.csv": "1,2\n3,4\n"}
    assert "1 files are written and kept; rows.csv holds 2 rows" in capsys.readouterr().err
    # What is kept is known to the next call as its own.
    write(tmp_path, {"c.png": "2"})
    assert files(tmp_path) == {"c.png": "2"}


def test_a_full_disk_cuts_rows_and_files_where_they_are_whole(tmp_path):
    script = """
import resource, signal
from naign_cli.written import results_folder
from pathlib import Path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with results_folder(Path("."), ["a.png", "rows.csv"]) as results:
    results.append("rows.csv", b"1,2\\n" * 100)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    KIND
"""
    for kind, kept in (
        ('results.append("rows.csv", b"3,4\\n" * 1000)', {"rows.csv": "1,2\n" * 100}),
        ('results.write("a.png", bytes(2000))', {"rows.csv": "1,2\n" * 100}),
    ):
        code = script.replace("KIND", kind)
        done = subprocess.run(
            [sys.executable, "-c", code], check=False, cwd=tmp_path, capture_output=True, text=True
        )
        assert "File too large" in done.stderr
        assert files(tmp_path) == kept


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"files": 3}', '{"files": [1]}', "\xff", "[" * 100_000])
def test_a_damaged_list_is_named(tmp_path, content):
    (tmp_path / LIST).write_text(content)
    with pytest.raises(Mistake, match="damaged: "):
        write(tmp_path, {"a.png": "1"})


def test_a_list_never_leads_out_of_its_folder(tmp_path):
    (tmp_path / "out").mkdir()
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    listed = {"../victim.txt": None, str(victim): None, "a/../../victim.txt": None, "..": None, "": None}
    (tmp_path / "out" / LIST).write_text(json.dumps({"files": listed}))
    write(tmp_path / "out", {"a.png": "1"})
    assert victim.read_text() == "mine"


def test_inputs_among_the_results_are_refused(tmp_path):
    write(tmp_path / "out", {"images/a.png": "1"})
    before = files(tmp_path / "out")
    for given in ("out/images/a.png", "out/images", "out", "."):
        with pytest.raises(Mistake, match="--out: "):
            write(tmp_path / "out", {"images/a.png": "2"}, [tmp_path / given])
    assert files(tmp_path / "out") == before
    write(tmp_path / "fresh", {"images/a.png": "2"}, [tmp_path])
