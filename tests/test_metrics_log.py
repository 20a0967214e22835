"""A run's log: all numbers in metrics.jsonl, and TensorBoard's events where TensorBoard works."""

import json
import sys
import threading
import types

import pytest

from naign_ext.json_files import LARGEST_LINE
from naign_ext.metrics_log import LARGEST_LOG, MetricsLog, read_metrics, truncate_metrics
from naign_ext.untrusted import DamagedFileError

RECORDS = [
    {"kind": "train", "step": step, "loss": 1.0 / step, "seconds": 0.5, "terms": {}} for step in (1, 2, 3)
]


def write(run, *, tensorboard=True):
    with MetricsLog(run, 0, tensorboard=tensorboard) as log:
        for record in RECORDS:
            log.write(record)


class BrokenWriter:
    """Fails in one of a writer's calls."""

    def __init__(self, *args, **kwargs):
        self._call("__init__")

    def add_scalar(self, *args):
        self._call("add_scalar")

    def close(self):
        self._call("close")

    def _call(self, name):
        if name == self.fails:
            raise OSError(28, "No space left on device")


@pytest.mark.parametrize("error", ["TypeError('Descriptors')", "AttributeError('no version')"])
def test_a_broken_tensorboard_is_said_and_done_without(tmp_path, monkeypatch, error):
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "__init__.py").write_text(f"raise {error}")
    for name in [n for n in sys.modules if n.startswith(("tensorboard", "torch.utils.tensorboard"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(RuntimeWarning, match=r"TensorBoard cannot be used \(" + error.partition("(")[0]):
        write(tmp_path)
    assert read_metrics(tmp_path) == RECORDS


@pytest.mark.parametrize("call", ["__init__", "add_scalar", "close"])
def test_a_writer_that_fails_ends_the_events_alone(tmp_path, monkeypatch, call):
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = type("Writer", (BrokenWriter,), {"fails": call})
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    hook = threading.excepthook
    with pytest.warns(RuntimeWarning, match="No space left on device") as told:
        write(tmp_path)
    assert len(told) == 1 and threading.excepthook == hook
    assert read_metrics(tmp_path) == RECORDS


def test_errors_of_other_threads_are_passed_on_and_the_writers_are_not(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    heard = []
    monkeypatch.setattr(threading, "excepthook", lambda args: heard.append(args.exc_value))
    writers = type("Writers", (threading.Thread,), {"__module__": "tensorboard.summary.writer"})

    def fail():
        raise OSError("full")

    with MetricsLog(tmp_path, 0, tensorboard=True):
        for kind in (writers, threading.Thread):
            thread = kind(target=fail)
            thread.start()
            thread.join()
            assert len(heard) == (kind is threading.Thread)


TRAIN = {"kind": "train", "step": 4, "loss": 1.5, "seconds": 0.1, "terms": {"imle": None}, "lr": 1e-3}
DAMAGED = {
    "not JSON": "{x}",
    "not JSON but NaN": '{"kind": "train", "step": NaN}',
    "nested": "[" * 100_000,
    "another value": "[1, 2]",
    "nothing": "null",
    "no step": json.dumps({"kind": "train"}),
    "step as text": json.dumps(TRAIN | {"step": "4"}),
    "step is true": json.dumps(TRAIN | {"step": True}),
    "step of 30 digits": json.dumps(TRAIN | {"step": 10**30}),
    "no loss": json.dumps({k: v for k, v in TRAIN.items() if k != "loss"}),
    "terms": json.dumps(TRAIN | {"terms": [1]}),
    "a term as text": json.dumps(TRAIN | {"terms": {"imle": "1"}}),
    "another number as text": json.dumps(TRAIN | {"lr": "1"}),
    "validation": json.dumps({"kind": "validation", "step": 4, "score": []}),
    "kind": json.dumps({"kind": ["train"], "step": 4}),
    "too long": json.dumps({"kind": "note", "step": 4, "text": "x" * LARGEST_LINE}),
}


@pytest.mark.parametrize("line", DAMAGED.values(), ids=DAMAGED)
def test_a_line_that_is_no_record_is_named(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_text(f"{json.dumps(TRAIN)}\n{line}\n{json.dumps(TRAIN)}\n")
    with pytest.raises(
        DamagedFileError, match=r"^damaged: .*metrics\.jsonl: line 2 .*; remove the line$"
    ) as caught:
        read_metrics(tmp_path)
    assert len(str(caught.value)) < 400
    with pytest.raises(DamagedFileError):
        truncate_metrics(tmp_path, 9)


def test_what_has_no_end_is_never_read(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/zero")
    with pytest.raises(DamagedFileError, match="not a regular file"):
        read_metrics(tmp_path)
    with pytest.raises(DamagedFileError, match="not a regular file"):
        write(tmp_path, tensorboard=False)
    (tmp_path / "metrics.jsonl").unlink()
    with (tmp_path / "metrics.jsonl").open("wb") as file:
        file.truncate(LARGEST_LOG + 1)
    with pytest.raises(DamagedFileError, match="more than the"):
        read_metrics(tmp_path)


@pytest.mark.parametrize("rest", [b'{"kind": "tr', b"\0" * 100, b"\xff\xfe"])
def test_a_line_that_was_cut_off_is_left_out_and_mended(tmp_path, rest):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(json.dumps(TRAIN).encode() + b"\n" + rest)
    assert read_metrics(tmp_path) == [TRAIN]
    write(tmp_path, tensorboard=False)
    assert read_metrics(tmp_path) == [TRAIN, *RECORDS]


def test_a_last_record_without_its_end_of_line_is_whole(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(TRAIN))
    assert read_metrics(tmp_path) == [TRAIN]
    write(tmp_path, tensorboard=False)
    assert read_metrics(tmp_path) == [TRAIN, *RECORDS]
