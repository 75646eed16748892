"""Subjects are timed in turn, the second of two calls."""

from __future__ import annotations

import pytest

from apex_runtime.benchmark.turns import measure, ratio


def test_every_round_runs_every_subject_in_turn() -> None:
    calls: list[str] = []
    samples = measure({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3, warmup=2)
    assert calls == ["a", "a", "b", "b"] * 5 and {name: len(values) for name, values in samples.items()} == {"a": 3, "b": 3}
    assert ratio([2.0, 9.0, 4.0], [1.0, 3.0, 2.0]) == 2.0


def test_the_second_call_of_a_turn_is_timed_on_the_clock_that_is_given() -> None:
    now = [0.0]
    cost = {"a": iter([9.0, 0.001] * 2), "b": iter([9.0, 0.003] * 2)}

    def passing(name: str) -> None:
        now[0] += next(cost[name])

    samples = measure({"a": lambda: passing("a"), "b": lambda: passing("b")}, rounds=2, warmup=0, clock=lambda: now[0])
    assert samples["a"] == pytest.approx([1.0, 1.0]) and samples["b"] == pytest.approx([3.0, 3.0])


def test_what_is_asked_before_a_turn_may_end_it() -> None:
    asked: list[int] = []

    def no() -> None:
        asked.append(len(asked))
        if len(asked) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure({"a": list, "b": list}, rounds=5, warmup=0, before_turn=no)
    assert asked == [0, 1, 2]
