"""The quotient of two engines against NumPy and against rounds that were made up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apex_runtime.benchmark.measure import STAGES, Cell, Measured
from apex_runtime.benchmark.ratios import LEAST_ROUNDS, SETTLED_ROUNDS, pairs, quotient, ratio_row, settled
from apex_runtime.routing.budget import parse_budget

times = st.lists(st.floats(0.01, 1e4), min_size=LEAST_ROUNDS, max_size=40)


@given(times, st.floats(0.1, 10))
def test_a_constant_factor_is_found_whatever_the_machine_did(below: list[float], factor: float) -> None:
    """Noise that hits both alike leaves the quotient alone."""
    found = quotient([value * factor for value in below], below)
    for name in ("ratio", "low", "high"):
        assert found[name] == pytest.approx(factor, abs=1e-4)
    assert found["spread"] == pytest.approx(0, abs=1e-3)


@given(times, st.data())
def test_the_median_lies_in_its_interval(below: list[float], data: st.DataObject) -> None:
    above = data.draw(st.lists(st.floats(0.01, 1e4), min_size=len(below), max_size=len(below)))
    found = quotient(above, below)
    assert found["low"] <= found["ratio"] <= found["high"]
    assert found["ratio"] == pytest.approx(np.median(np.array(above) / np.array(below)), rel=1e-3, abs=1e-4)


def test_few_rounds_have_no_interval_and_a_round_of_one_engine_does_not_count() -> None:
    found = quotient([2.0] * (LEAST_ROUNDS - 1), [1.0] * LEAST_ROUNDS)
    assert found["ratio"] == 2.0 and found["low"] is None and found["spread"] is None


def test_cells_of_the_same_budget_and_batch_are_paired() -> None:
    def item(engine: int, budget: str, batch: int, value: float) -> Measured:
        times = {name: [value] * 6 for name in STAGES}
        return Measured(Cell(parse_budget(budget), 4, batch), engine, times, {name: [0.0] * 6 for name in STAGES})

    measured = [item(0, "1", 1, 2), item(1, "1", 1, 3), item(0, "0.5", 1, 2), item(1, "0.5", 2, 5), item(0, "0.5", 2, 2)]
    found = [ratio_row(*pair) for pair in pairs(measured)]
    assert [(row["budget"], row["batch"], row["end_to_end"]["ratio"]) for row in found] == [("1", 1, 1.5), ("0.5", 2, 2.5)]


def test_what_a_thread_waited_for_a_core_is_not_its_own_time() -> None:
    times = {name: [0.0] * 6 for name in STAGES} | {"graph": [10.0, 30.0] * 3}
    waited = {name: [0.0] * 6 for name in STAGES} | {"graph": [0.0, 20.0] * 3}
    item = Measured(Cell(parse_budget("1"), 4, 1), 0, times, waited)
    assert item.milliseconds("end_to_end") == [10.0, 30.0] * 3 and item.own_milliseconds("end_to_end") == [10.0] * 6
    assert ratio_row(item, Measured(item.cell, 1, times, waited))["graph"]["quartiles"] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("rounds", "noise", "expected"), [(SETTLED_ROUNDS, 0.0, True), (SETTLED_ROUNDS - 1, 0.0, False), (40, 0.3, False)]
)
def test_a_quotient_settles_when_it_is_known_and_not_before_there_were_rounds(rounds: int, noise: float, expected: bool) -> None:
    random = np.random.default_rng(0)
    measured = []
    for engine in (0, 1):
        times = {name: [0.0] * rounds for name in STAGES} | {
            "graph": (10 * np.exp(noise * random.standard_normal(rounds))).tolist()
        }
        measured.append(Measured(Cell(parse_budget("1"), 4, 1), engine, times, {name: [0.0] * rounds for name in STAGES}))
    assert settled(measured) is expected and not settled(measured[:1])
