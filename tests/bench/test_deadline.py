"""The judge of deadlines on times that are made up."""

from __future__ import annotations

import pytest
from deadline import alternate, judge, table_of, time_of

from apex_runtime.routing.latency_table import TableKey

KEY = TableKey(
    model_sha256="0" * 64, backend="b", backend_version="", machine="m", device="cpu", input=(64, 64), threads=1, batch=1
)


def steady(milliseconds: float, late: int = 0) -> list[float]:
    """A hundred turns, ``late`` of which take a second."""
    return [milliseconds] * (100 - late) + [1000.0] * late


TABLE = table_of({1: steady(10), 8: steady(17), 16: steady(33)}, KEY)


def test_a_deadline_between_points_is_planned_as_that_number_of_tiles() -> None:
    assert time_of(4, TABLE) == pytest.approx(13) and time_of(12, TABLE) == pytest.approx(25)
    judged = {1: steady(10), 4: steady(12, late=7), 8: steady(17), 12: steady(24, late=2), 16: steady(33)}
    row = judge(25.0, judged, TABLE)
    assert (row["planned"], row["late"], row["best"], row["best_late"]) == (12, 0.02, 12, 0.02)
    assert row["points_more_than_best"] == 0


def test_what_was_late_too_often_is_not_the_best_and_costs_the_planned_points() -> None:
    judged = {1: steady(10), 4: steady(12, late=7), 8: steady(17, late=1), 16: steady(33)}
    row = judge(13.5, judged, TABLE)
    assert (row["planned"], row["best"]) == (4, 1)
    assert row["late"] == 0.07 and row["points_more_than_best"] == pytest.approx(7)
    faster = judge(13.5, {1: steady(10), 4: steady(12), 8: steady(13)}, TABLE)
    assert (faster["planned"], faster["best"], faster["points_more_than_best"]) == (4, 8, 0)


def test_where_everything_is_late_the_best_is_the_least() -> None:
    row = judge(13.5, {1: steady(20), 4: steady(21)}, TABLE)
    assert (row["best"], row["best_late"], row["points_more_than_best"]) == (1, 1.0, 0)


def test_both_halves_see_every_image() -> None:
    """Three images, four times through them: image = turn modulo three."""
    made, judging = alternate([float(turn) for turn in range(12)], 3)
    assert made == [0, 1, 2, 6, 7, 8] and judging == [3, 4, 5, 9, 10, 11]
