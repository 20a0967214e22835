"""JSON files of results."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from naign_ext.json_files import LARGEST_LINE, mend_last_line, read_json, reading, rounded, write_json
from naign_ext.untrusted import LARGEST_JSON, DamagedFileError

VALUE = {
    "none": None,
    "text": 'a "quoted" word',
    "rows": [{"a": 1, "shape": [2, 3]}, {"a": 0.1, "shape": []}, 5],
    "empty": {},
    "flat": {"x": 1e-300, "y": True},
}


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    assert read_json(path) is None
    write_json(path, VALUE)
    assert read_json(path) == VALUE
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_innermost_lists_and_objects_stand_on_one_line(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"seeds": [1, 2], "methods": {"ours": {"fld": [0.5, 1.5]}}})
    assert (tmp_path / "a.json").read_text().splitlines() == [
        "{",
        ' "seeds": [1, 2],',
        ' "methods": {',
        '  "ours": {',
        '   "fld": [0.5, 1.5]',
        "  }",
        " }",
        "}",
    ]


def test_a_number_that_is_not_finite_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, VALUE)
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"rows": [{"a": float("nan")}]})
    assert read_json(path) == VALUE


def test_rounding_keeps_every_float32() -> None:
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    assert np.array_equal(np.array(rounded([float(v) for v in values]), dtype=np.float32), values)
    assert rounded({"a": (1 / 3, 7, None, True)}) == {"a": [0.333333333, 7, None, True]}
    assert len(json.dumps(rounded(1 / 3))) < len(json.dumps(1 / 3))


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b"[1]", "expected an object, got list"),
        (b"null", "expected an object, got NoneType"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_damage_is_named(tmp_path: Path, contents: bytes, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(contents)
    with pytest.raises(DamagedFileError, match=f"^damaged: {path}: {message}$"):
        read_json(path)


def test_what_is_no_regular_file_of_a_sound_size_is_named(tmp_path: Path) -> None:
    for name, target in (("zeros", "/dev/zero"), ("nothing", "missing"), ("folder", str(tmp_path))):
        (tmp_path / name).symlink_to(target)
        with pytest.raises(DamagedFileError, match=f"^damaged: {tmp_path / name}: cannot be read: "):
            read_json(tmp_path / name)
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(LARGEST_JSON + 1)
    with pytest.raises(DamagedFileError, match="bytes, more than the"):
        read_json(tmp_path / "hole")


@pytest.mark.parametrize(
    "use",
    [lambda v: v["b"], lambda v: v["a"]["b"], lambda v: int(v["a"]), lambda v: v.b, lambda v: next(iter([]))],
)
def test_values_of_another_form_are_damage(tmp_path: Path, use: Callable[[Any], Any]) -> None:
    with (
        pytest.raises(DamagedFileError, match="is not what naign writes there"),
        reading(tmp_path / "a.json"),
    ):
        use({"a": "x"})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b""),
        (b"{}\n", b"{}\n"),
        (b"{}\n[1]", b"{}\n[1]\n"),
        (b'{}\n{"a', b"{}\n"),
        (b"{", b""),
        (b"{}\n" * 10 + b"[" * LARGEST_LINE, b"{}\n" * 10),
    ],
    ids=lambda value: str(value)[:12],
)
def test_a_last_line_is_mended(tmp_path: Path, before: bytes, after: bytes) -> None:
    mend_last_line(tmp_path / "none.jsonl")
    path = tmp_path / "a.jsonl"
    path.write_bytes(before)
    mend_last_line(path)
    assert path.read_bytes() == after


def test_what_cannot_be_written_leaves_the_old_file_and_nothing_beside(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert read_json(tmp_path / "a.json") == {"a": 1}


def test_what_is_no_regular_file_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_json(pipe, {"a": [1, 2]})
        assert json.loads(os.read(reader, 1000)) == {"a": [1, 2]}
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]
