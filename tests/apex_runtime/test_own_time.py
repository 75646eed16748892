"""The clock without the time that a thread waits for a core."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from apex_runtime import own_time
from apex_runtime.own_time import clock_name, time_turn


def test_what_the_kernel_counts_as_waiting_is_taken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = iter([1_000_000, 8_000_000])
    clock = iter([0, 20_000_000])
    monkeypatch.setattr(own_time, "waited_nanoseconds", lambda: next(waited))
    monkeypatch.setattr(own_time.time, "perf_counter_ns", lambda: next(clock))
    turn = time_turn(lambda: None)
    assert (turn.wall, turn.own) == (20.0, 13.0)


def test_where_the_kernel_does_not_tell_both_are_the_wall(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(own_time, "_STAT", tmp_path / "none")
    turn = time_turn(lambda: None)
    assert turn.own == turn.wall > 0 and clock_name() == "wall"
    (tmp_path / "odd").write_text("1")
    monkeypatch.setattr(own_time, "_STAT", tmp_path / "odd")
    assert clock_name() == "wall"


def test_more_waiting_than_time_leaves_something_positive(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = iter([0, 10**12])
    monkeypatch.setattr(own_time, "waited_nanoseconds", lambda: next(waited))
    assert time_turn(lambda: None).own > 0


@pytest.mark.skipif(clock_name() == "wall", reason="this system does not tell how long a thread waits for a core")
def test_sleeping_is_own_time_and_the_clock_is_that_of_the_thread() -> None:
    """No bound that a busy machine could break: sleeping cannot take less than it was told to."""
    found: list[float] = []
    thread = threading.Thread(target=lambda: found.append(time_turn(lambda: time.sleep(0.05)).own))
    thread.start()
    thread.join()
    assert found[0] >= 49.0


def test_what_a_call_raises_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        time_turn(lambda: 1 // 0)
