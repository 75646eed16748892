"""Deadlines against a recorded table: exact K worked out by hand, and what must hold for every table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apex_runtime.bundle.load import open_engine
from apex_runtime.errors import UsageError
from apex_runtime.routing.budget import Budget, parse_budget
from apex_runtime.routing.latency_table import LatencyTable, Point, TableKey, monotone, write_table
from apex_runtime.routing.planner import planned, resolve_deadline, tiles_within

KEY = TableKey(
    model_sha256="a" * 64,
    backend="ort-cpu",
    backend_version="1",
    machine="a processor, 2 cpus",
    device="cpu",
    input=(512, 512),
    threads=2,
    batch=1,
)


def table(rows: Sequence[tuple[int, float]], key: TableKey = KEY) -> LatencyTable:
    points = monotone(Point(tiles=tiles, samples=20, p50=p95 / 2, p95=p95) for tiles, p95 in rows)
    return LatencyTable(key=key, points=points, created_utc="2026-01-01T00:00:00+00:00", circumstances={})


# As recorded on two cores: 8 more tiles cost 8 ms up to 16, then 16 more cost 20 ms.
RECORDED = table([(1, 12.0), (8, 19.0), (16, 27.0), (32, 47.0)])


@pytest.mark.parametrize(
    ("deadline", "expected"),
    [
        ("12ms", 1),
        ("12.999ms", 1),
        ("13ms", 2),  # one millisecond per tile up to here
        ("18.99ms", 7),
        ("19ms", 8),
        ("23.5ms", 12),
        ("27ms", 16),
        ("28.24ms", 16),  # 1.25 ms per tile from here
        ("28.25ms", 17),
        ("46.9ms", 31),
        ("47ms", 32),
        ("1e6ms", 32),  # no more than was measured
    ],
)
def test_the_most_tiles_whose_p95_fits(deadline: str, expected: int) -> None:
    budget = resolve_deadline(parse_budget(deadline), RECORDED)
    assert budget == Budget(deadline, "tiles", expected)


def test_too_short_a_deadline_names_the_least_possible_one_and_that_one_is_possible() -> None:
    slow = table([(1, 12.341), (4, 15.0)])
    with pytest.raises(UsageError, match=r"12\.4ms") as caught:
        resolve_deadline(parse_budget("12ms"), slow)
    assert caught.value.exit_code == 2 and "Give at least 12.4ms" in caught.value.remedy
    assert resolve_deadline(parse_budget("12.4ms"), slow).value == 1


times = st.lists(
    st.tuples(st.integers(1, 400), st.floats(0.1, 500).map(lambda value: round(value, 3) + 0.001)), min_size=1, max_size=12
)


@settings(deadline=None, max_examples=300)
@given(times, st.floats(0.001, 700), st.floats(0.001, 700))
def test_a_later_deadline_never_means_fewer_tiles_and_measured_tiles_fit(
    rows: list[tuple[int, float]], one: float, two: float
) -> None:
    recorded = table([(1, 0.5), *rows])
    first, last = recorded.points[0], recorded.points[-1]
    found = []
    for deadline in sorted((one, two)):
        if deadline < first.p95:
            with pytest.raises(UsageError):
                tiles_within(deadline, recorded, "x")
            continue
        found.append(tiles_within(deadline, recorded, "x"))
        below = [point for point in recorded.points if point.tiles <= found[-1]]
        above = [point for point in recorded.points if point.tiles > found[-1]]
        assert below[-1].p95 <= deadline, "the last measured number of tiles up to K fits"
        assert not above or above[0].p95 > deadline, "the next one does not"
        assert 1 <= found[-1] <= last.tiles
    assert found == sorted(found)


@settings(deadline=None, max_examples=100)
@given(times)
def test_what_is_planned_for_the_time_of_a_point_is_that_point_or_one_as_fast(rows: list[tuple[int, float]]) -> None:
    recorded = table([(1, 0.5), *rows])
    for point in recorded.points:
        as_fast = max(other.tiles for other in recorded.points if other.p95 == point.p95)
        assert tiles_within(point.p95, recorded, "x") == as_fast


@settings(deadline=None, max_examples=100)
@given(times)
def test_the_least_deadline_that_an_error_names_can_be_met(rows: list[tuple[int, float]]) -> None:
    recorded = table([(1, rows[0][1]), *rows])
    with pytest.raises(UsageError) as caught:
        tiles_within(recorded.points[0].p95 / 2, recorded, "x")
    least = parse_budget(caught.value.remedy.removeprefix("Give at least ").removesuffix("."))
    assert recorded.points[0].p95 <= least.value < recorded.points[0].p95 + 0.1001
    tiles_within(least.value, recorded, "x")


def test_other_budgets_pass_and_need_no_table(tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APEX_CACHE_DIR", str(tmp_path / "nothing"))
    opened = open_engine(tiny_onnx)
    for text in ("16", "25%", "2.5gflops"):
        budget = parse_budget(text)
        assert planned(budget, opened) is budget


def test_an_opened_engine_finds_its_table_and_no_other(tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APEX_CACHE_DIR", str(tmp_path))
    opened = open_engine(tiny_onnx, threads=1)
    key = TableKey.of(opened, threads=1, batch=4)
    assert key.backend == "ort-cpu" and key.backend_version and key.input == (128, 128)
    write_table(table([(1, 10.0), (16, 25.0)], key))
    assert planned(parse_budget("20ms"), opened, threads=1, batch=4) == Budget("20ms", "tiles", 11)
    with pytest.raises(UsageError, match="a batch of 4 images with one tile") as caught:
        planned(parse_budget("9ms"), opened, threads=1, batch=4)
    assert caught.value.code == ""
    with pytest.raises(UsageError) as caught:
        planned(parse_budget("20ms"), opened, threads=2, batch=4, engine="my model.onnx")
    assert caught.value.code == "latency_table_missing"
    assert "apex-rt bench 'my model.onnx' --threads 2 --batch 4" in caught.value.remedy


def test_a_limit_stays_and_is_planned_where_it_is_a_deadline(
    tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APEX_CACHE_DIR", str(tmp_path))
    opened = open_engine(tiny_onnx, threads=1)
    eight, twenty = parse_budget("8"), parse_budget("20ms")
    assert resolve_deadline(twenty.at_most(eight), RECORDED) == Budget("20ms", "tiles", 9, limit=eight)
    with pytest.raises(UsageError) as caught:
        planned(eight.at_most(twenty), opened, threads=1)
    assert caught.value.code == "latency_table_missing"
    write_table(table([(1, 10.0), (16, 25.0)], TableKey.of(opened, threads=1, batch=1)))
    meant = Budget("20ms", "tiles", 11)
    assert planned(twenty.at_most(eight), opened, threads=1) == Budget("20ms", "tiles", 11, limit=eight)
    assert planned(eight.at_most(twenty), opened, threads=1) == Budget("8", "tiles", 8, limit=meant)
    assert planned(eight.at_most(eight.at_most(twenty)), opened, threads=1).limit == Budget("8", "tiles", 8, limit=meant)
    with pytest.raises(UsageError, match="budget 9ms"):
        planned(eight.at_most(parse_budget("9ms")), opened, threads=1)
