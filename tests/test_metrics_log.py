"""A run's log: all numbers in metrics.jsonl, and TensorBoard's events where TensorBoard works."""

import sys
import threading
import types

import pytest

from naign_ext.metrics_log import MetricsLog, read_metrics

RECORDS = [{"kind": "train", "step": step, "loss": 1.0 / step} for step in (1, 2, 3)]


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
