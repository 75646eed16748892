"""Rounds on a clock that tests move: what is paired with what, when there are enough, what a planted slow-down does."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator

import pytest

from apex_runtime.own_time import Turn
from apex_runtime.regression.record import judged_times, steady, times
from apex_runtime.regression.rounds import MIN_ROUNDS, WARM_UP_ROUNDS, Patience, Samples, run_rounds

Subject = Callable[[], object]


class NoisyMachine:
    """Calls cost their share of a speed that changes from round to round and from call to call; nothing takes real time."""

    def __init__(self, seed: int, noise: float = 0.1) -> None:
        self.now = 0.0
        self.calls: list[str] = []
        self._random, self._noise, self._speed = random.Random(seed), noise, 1.0

    def call(self, name: str, milliseconds: float) -> Subject:
        def run() -> None:
            self.calls.append(name)
            if name == "anchor":
                self._speed = self._random.uniform(1, 3)  # somebody else came or left
            self.now += milliseconds * self._speed * self._random.lognormvariate(0, self._noise) / 1000

        return run

    def stopwatch(self, subject: Subject) -> Turn:
        before = self.now
        subject()
        return Turn(wall=2000 * (self.now - before), own=1000 * (self.now - before))

    def run(self, engine: dict[str, float], patience: Patience, enough: Callable[[Samples], bool] = steady) -> Samples:
        calls = {budget: self.call(budget, cost) for budget, cost in engine.items()}
        anchor = self.call("anchor", 40.0)
        return run_rounds(calls, anchor, patience, enough, threading.Event(), self.stopwatch, lambda: self.now)


def never(_samples: Samples) -> bool:
    return False


def test_every_call_of_the_engine_has_one_of_the_anchor_before_it() -> None:
    machine = NoisyMachine(0)
    samples = machine.run({"1": 20.0, "1.0": 90.0}, Patience(1e9, rounds=3))
    assert machine.calls == ["anchor", "1", "anchor", "1.0"] * (3 + WARM_UP_ROUNDS)
    assert samples.rounds == 3 and all(len(turns) == 3 for turns in (*samples.engine.values(), *samples.anchor.values()))


def test_a_machine_whose_speed_changes_threefold_moves_no_quotient() -> None:
    found = judged_times(NoisyMachine(1).run({"0.25": 50.0}, Patience(1e9, rounds=200), never))["graph_over_anchor@0.25"]
    assert found.value == pytest.approx(1.25, rel=0.03) and found.low < 1.25 < found.high
    plain = times(NoisyMachine(1).run({"0.25": 50.0}, Patience(1e9, rounds=200), never))["graph_ms@0.25"]
    assert plain["high"] / plain["low"] > 1.1, "the milliseconds do move, so there was something to compensate"


@pytest.mark.parametrize("seed", range(10))
def test_a_planted_slowdown_is_seen_through_the_noise(seed: int) -> None:
    def value(factor: float, offset: int) -> float:
        samples = NoisyMachine(seed + offset).run({"0.25": 50.0 * factor}, Patience(1e9, rounds=300), never)
        return judged_times(samples)["graph_over_anchor@0.25"].value

    baseline = value(1.0, 1000)
    assert value(1.15, 2000) > baseline * 1.07 > value(1.0, 3000)


def test_it_goes_on_until_there_is_enough_or_the_seconds_are_over() -> None:
    asked: list[int] = []

    def after_twenty(samples: Samples) -> bool:
        asked.append(samples.rounds)
        return samples.rounds >= 20

    assert NoisyMachine(2).run({"1": 20.0}, Patience(1e9), after_twenty).rounds == 20
    assert asked == list(range(MIN_ROUNDS, 21)), "not asked before there must be enough"
    short = NoisyMachine(2).run({"1": 20.0}, Patience(1e-9), never)
    assert short.rounds == MIN_ROUNDS and short.seconds > 0
    long = NoisyMachine(2).run({"1": 20.0}, Patience(10.0), never)
    assert long.rounds > MIN_ROUNDS and 10.0 <= long.seconds < 11.0


def test_an_engine_without_noise_is_steady_at_once() -> None:
    samples = NoisyMachine(3, noise=0.0).run({"1": 20.0}, Patience(1e9))
    assert samples.rounds == MIN_ROUNDS and steady(samples)
    assert not steady(NoisyMachine(3, noise=0.3).run({"1": 20.0}, Patience(0.01)))


def test_a_stop_leaves_whole_rounds() -> None:
    stop, machine = threading.Event(), NoisyMachine(4)

    def stopping() -> Iterator[None]:
        for _call in range(WARM_UP_ROUNDS + 2):
            yield
        stop.set()
        while True:
            yield

    calls = stopping()
    subjects: dict[str, Subject] = {"1": lambda: next(calls), "1.0": lambda: None}
    samples = run_rounds(subjects, None, Patience(1e9), never, stop, machine.stopwatch, lambda: 0.0)
    assert samples.rounds == 3 and len(samples.engine["1.0"]) == 3 and samples.anchor == {}


def test_without_an_anchor_milliseconds_are_judged() -> None:
    samples = Samples({"1": [Turn(8.0, 4.0), Turn(9.0, 6.0), Turn(7.0, 5.0)]}, {}, 1.0)
    assert {name: item.value for name, item in judged_times(samples).items()} == {"graph_ms@1": 5.0}
    assert {name: metric["value"] for name, metric in times(samples).items()} == {"graph_ms@1": 5.0, "graph_wall_ms@1": 8.0}
    assert times(Samples({"1": []}, {})) == {}
