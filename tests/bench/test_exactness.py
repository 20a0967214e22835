"""The random comparison itself: it runs, repeats, and notices a wrong answer."""

import json
from pathlib import Path

import pytest
import torch
from naign_bench import exactness
from naign_cli.main import app
from typer.testing import CliRunner

from naign_ext import Neighbours


def test_no_wrong_answer_among_a_few_thousand(tmp_path: Path) -> None:
    file = tmp_path / "exactness.json"
    done = CliRunner().invoke(
        app, ["bench", "exactness", "--cases", "3000", "--seed", "3", "--json", str(file)]
    )
    assert done.exit_code == 0, done.output
    written = json.loads(file.read_text())
    assert written["cases"] >= 3000
    assert written["mismatches"] == 0
    assert written["header"]["commit"]


def test_every_kind_and_every_method_takes_its_turn() -> None:
    drawn = [exactness._draw(seed) for seed in range(400)]
    assert {batch.kind for batch in drawn} == set(exactness.KINDS)
    assert {batch.method for batch in drawn} == set(exactness.METHODS)
    again = exactness._draw(7)
    assert torch.equal(again.data.nan_to_num(), drawn[7].data.nan_to_num())


def test_a_wrong_answer_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = exactness.imle_knn

    def wrong(*arguments: object, **options: object) -> Neighbours:
        distances, indices = right(*arguments, **options)
        distances = distances.clone()
        distances[0].view(torch.int32)[0] ^= 1
        return Neighbours(distances, indices)

    monkeypatch.setattr(exactness, "imle_knn", wrong)
    outcome = exactness.run_exactness(64)
    assert outcome.mismatches >= 1
    assert outcome.first is not None
    with pytest.raises(ValueError, match="cases: expected at least 1, got 0"):
        exactness.run_exactness(0)
