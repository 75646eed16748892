"""Calls side by side: as many as there are lanes, none after a stop, none lost. No clocks: by order of events."""

from __future__ import annotations

import threading

import pytest

from apex_runtime.pipeline.lanes import Lanes

PATIENCE = 60.0


def test_one_lane_is_the_thread_of_the_caller() -> None:
    with Lanes() as lanes:
        for begin in (lanes.begin, lanes.beside):
            found = begin(threading.get_ident)
            assert found is not None and found.done() and found.result() == threading.get_ident()
        with pytest.raises(KeyError):
            lanes.begin({}.__getitem__, "missing")
        assert lanes.begin(len, "abc") is not None, "a failure leaves the lane free"


def test_as_many_calls_at_a_time_as_there_are_lanes_and_no_more() -> None:
    together, go, begun = threading.Barrier(4), threading.Event(), []

    def work(number: int) -> int:
        begun.append(number)
        if number < 3:
            together.wait(PATIENCE)
            assert go.wait(PATIENCE)
        return number

    with Lanes(3) as lanes:
        futures = [lanes.begin(work, number) for number in range(3)]
        fourth = threading.Thread(target=lambda: futures.append(lanes.begin(work, 3)))
        fourth.start()
        together.wait(PATIENCE)
        assert 3 not in begun, "a lane is free before it was left"
        go.set()
        fourth.join(PATIENCE)
    assert [future.result(0) for future in futures if future is not None] == [0, 1, 2, 3], "the block ends when all have"


def test_a_failure_comes_with_its_own_result() -> None:
    with Lanes(2) as lanes:
        bad, *good = [lanes.begin(lambda number: 6 // number, number) for number in (0, 1, 2, 3)]
    assert bad is not None and isinstance(bad.exception(), ZeroDivisionError)
    assert [future.result() for future in good if future is not None] == [6, 3, 2]


@pytest.mark.parametrize("count", [1, 2])
def test_nothing_begins_after_a_stop(count: int) -> None:
    stop, begun = threading.Event(), []
    with Lanes(count, stop) as lanes:
        first = lanes.begin(begun.append, 1)
        stop.set()
        for _again in range(count + 1):
            assert lanes.begin(begun.append, 2) is None
    assert first is not None and begun == [1]


def test_who_waits_for_a_lane_is_turned_away_by_a_stop() -> None:
    stop, go, answers = threading.Event(), threading.Event(), []
    with Lanes(2, stop) as lanes:
        for _lane in range(2):
            lanes.begin(go.wait, PATIENCE)
        late = threading.Thread(target=lambda: answers.append(lanes.begin(answers.append, "begun")))
        late.start()
        stop.set()
        go.set()
        late.join(PATIENCE)
    assert answers == [None]


def test_what_begins_calls_itself_takes_turns_with_the_caller() -> None:
    with Lanes(2) as lanes:
        theirs, ours = threading.Event(), threading.Event()

        def scene() -> bool:
            theirs.set()
            mine = lanes.begin(ours.wait, PATIENCE)
            return mine is not None and mine.result()

        found = lanes.beside(scene)
        assert theirs.wait(PATIENCE)
        lanes.begin(ours.set)
        assert found.result(PATIENCE)
