"""JSON files of results."""

import json
from pathlib import Path

import numpy as np
import pytest

from naign_ext.json_files import read_json, rounded, write_json

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


def test_what_cannot_be_written_leaves_the_old_file_and_nothing_beside(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert read_json(tmp_path / "a.json") == {"a": 1}
