"""Seconds by stage."""

import time

from naign_ext.timer import Timer


def test_a_stage_within_another_is_not_counted_in_it(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    timer = Timer()

    def work(seconds):
        now[0] += seconds

    for _ in range(2):
        with timer("loss"):
            work(1.0)
            with timer("search"):
                work(2.0)
                with timer("merge"):
                    work(4.0)
            with timer("forward"):
                work(8.0)
            work(16.0)
    with timer("search"):
        work(32.0)
    assert timer.take() == {"merge": 8.0, "search": 36.0, "forward": 16.0, "loss": 34.0}
    assert timer.take() == {}


def test_a_stage_that_fails_is_counted_and_what_waits_is_called_at_both_ends():
    waits = []
    timer = Timer(lambda: waits.append(1))
    try:
        with timer("search"):
            raise ValueError
    except ValueError:
        pass
    assert len(waits) == 2 and timer.take()["search"] >= 0
