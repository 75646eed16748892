"""The file of the trend: only added to, in one step, and never believed half."""

from __future__ import annotations

import json
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest
from made_measurement import made_measurement

from apex_runtime.errors import DataError, UsageError
from apex_runtime.regression.baseline import Measurement
from apex_runtime.regression.trend import Row, add_row, by_series, read_trend, row_of
from apex_runtime.regression.trend_plot import relative, trend_svg


def row(**changes: object) -> Row:
    document = made_measurement(**changes)
    return row_of(Measurement.model_validate_json(json.dumps(document), strict=True), Path("m.json"))


FIRST, SECOND = (row(created_utc=f"2026-11-2{day}T12:00:00+00:00") for day in (1, 2))


def test_lines_follow_the_schema_and_come_back_as_they_were(tmp_path: Path, validate) -> None:
    path = tmp_path / "deep" / "trend.jsonl"
    assert add_row(path, FIRST) == [FIRST] and add_row(path, SECOND) == [FIRST, SECOND]
    assert read_trend(path) == [FIRST, SECOND]
    for line in path.read_text().splitlines():
        validate("trend", json.loads(line))
    assert set(FIRST.metrics) == {"graph_over_anchor@0.25", "peak_memory_bytes"}, "what is judged"


def test_what_is_there_stays_byte_by_byte(tmp_path: Path) -> None:
    path = tmp_path / "trend.jsonl"
    spaced = json.dumps(FIRST.model_dump(), indent=None, separators=(" , ", " :  ")).encode() + b"\n"
    path.write_bytes(spaced)
    add_row(path, SECOND)
    assert path.read_bytes().startswith(spaced) and list(tmp_path.iterdir()) == [path]


def test_damaged_lines_are_named_and_nothing_is_added(tmp_path: Path) -> None:
    path = tmp_path / "trend.jsonl"
    good = FIRST.model_dump_json()
    lines = [good, "{", good, "", good.replace('"format_version":1', '"format_version":9'), good]
    path.write_text("\n".join(lines) + "\n")
    before = path.read_bytes()
    for act in (lambda: read_trend(path), lambda: add_row(path, SECOND)):
        with pytest.raises(DataError, match=r"damaged line 2, 4, 5\."):
            act()
    assert path.read_bytes() == before


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-1", "0", "true", '"1"', "null"])
def test_a_line_with_a_figure_that_is_none_is_damaged(tmp_path: Path, value: str) -> None:
    path = tmp_path / "trend.jsonl"
    line = FIRST.model_dump_json()
    assert "1.25" in line
    path.write_text(line.replace("1.25", value) + "\n")
    with pytest.raises(DataError, match="damaged line 1"):
        read_trend(path)


def test_a_last_line_that_was_cut_off_is_damaged_even_where_it_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "trend.jsonl"
    path.write_text(FIRST.model_dump_json())
    with pytest.raises(DataError, match="damaged line 1"):
        add_row(path, SECOND)


def test_the_same_measurement_is_added_once(tmp_path: Path) -> None:
    path = tmp_path / "trend.jsonl"
    add_row(path, FIRST)
    with pytest.raises(UsageError, match="already"):
        add_row(path, FIRST)
    with pytest.raises(UsageError, match="no such file"):
        read_trend(tmp_path / "other.jsonl")


@pytest.mark.parametrize("value", [float("nan"), 0, None, "1"])
def test_a_measurement_without_its_figures_is_not_added(value: object) -> None:
    document = made_measurement()
    document["metrics"]["graph_over_anchor@0.25"]["value"] = value
    with pytest.raises(DataError, match=r"graph_over_anchor@0\.25"):
        row_of(Measurement.model_validate_json(json.dumps(document), strict=True), Path("m.json"))
    document["metrics"] = {}
    with pytest.raises(DataError, match="no metrics"):
        row_of(Measurement.model_validate_json(json.dumps(document), strict=True), Path("m.json"))


def test_another_machine_or_setting_is_another_series() -> None:
    others = [
        row(processor="q"),
        row(usable_cpus=4),
        row(threads=2),
        row(input=[8, 8]),
        row(backend_version="2"),
        row(clock="wall"),
    ]
    found = by_series([FIRST, *others, SECOND])
    assert len(found) == 7 and found[FIRST.series] == [FIRST, SECOND]
    assert row(model_sha256="e" * 64).series == FIRST.series


def test_the_picture_shows_every_metric_against_the_first() -> None:
    slower = SECOND.model_copy(update={"metrics": {"graph_over_anchor@0.25": 1.5, "new": 7.0}})
    lines = relative([FIRST, slower])
    assert lines["graph_over_anchor@0.25"] == [(0, 1.0), (1, pytest.approx(1.2))]
    assert lines["peak_memory_bytes"] == [(0, 1.0)] and lines["new"] == [(1, 1.0)]
    other = row(processor="<q & r>")
    drawn = xml.fromstring(trend_svg([FIRST, slower, other]))
    kind = "{http://www.w3.org/2000/svg}"
    assert len(drawn.findall(f"{kind}g")) == 2
    points = [line.attrib["points"].split() for line in drawn.iter(f"{kind}polyline")]
    assert sorted(map(len, points)) == [1, 1, 1, 1, 2]
    (rising,) = [pair for pair in points if len(pair) == 2]
    (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in rising)
    assert x2 > x1 and y2 < y1, "slower is higher up"
    assert "<q & r>" in "".join(drawn.itertext())
