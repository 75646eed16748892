"""Tables in the cache folder: written and read back, made monotone, and refused when they are damaged or about something else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apex_runtime.errors import UsageError
from apex_runtime.routing.latency_table import (
    LatencyTable,
    Point,
    TableKey,
    bench_command,
    monotone,
    read_table,
    table_path,
    write_table,
)

COMMAND = "apex-rt bench x"


def key(**changes: object) -> TableKey:
    values = {
        "model_sha256": "0" * 64,
        "backend": "ort-cpu",
        "backend_version": "1.32",
        "machine": "a processor, 2 cpus",
        "device": "cpu",
        "input": (128, 128),
        "threads": None,
        "batch": 1,
    }
    return TableKey.model_validate(values | changes)


def table(of: TableKey) -> LatencyTable:
    points = (Point(tiles=1, samples=20, p50=1.5, p95=2.5), Point(tiles=16, samples=21, p50=4, p95=5))
    return LatencyTable(key=of, points=points, created_utc="2026-01-01T00:00:00+00:00", circumstances={"why": ["a", 1]})


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("APEX_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_table_reads_back_and_nothing_else_is_left(cache: Path) -> None:
    path = write_table(table(key()))
    assert path.parent == cache / "latency" and list(path.parent.iterdir()) == [path]
    assert read_table(key(), "8ms", COMMAND) == table(key())


@pytest.mark.parametrize(
    "changes",
    [
        {"model_sha256": "1" * 64},
        {"backend": "ort-cuda"},
        {"backend_version": "1.33"},
        {"machine": "a processor, 4 cpus"},
        {"device": "cuda"},
        {"input": (128, 256)},
        {"threads": 2},
        {"batch": 4},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_part_of_the_key_counts(changes: dict[str, object]) -> None:
    write_table(table(key()))
    with pytest.raises(UsageError, match="no latency table") as caught:
        read_table(key(**changes), "8ms", COMMAND)
    assert caught.value.code == "latency_table_missing" and COMMAND in caught.value.remedy


def cut(text: str) -> str:
    return text[: len(text) // 2]


def change(**changes: object) -> Callable[[str], str]:
    return lambda text: json.dumps(json.loads(text) | changes)


def change_point(index: int, **changes: object) -> Callable[[str], str]:
    def apply(text: str) -> str:
        value = json.loads(text)
        value["points"][index] |= changes
        return json.dumps(value)

    return apply


DAMAGE: dict[str, tuple[Callable[[str], str], str]] = {
    "cut off": (cut, ""),
    "empty": (lambda text: "", ""),
    "a list": (lambda text: "[]", "record"),
    "too deep": (lambda text: "[" * 100_000, ""),
    "too large": (lambda text: text + " " * 2**20, "larger"),
    "another version": (change(format_version=2), "format_version"),
    "another kind": (change(kind="something"), "kind"),
    "no points": (change(points=[]), "points"),
    "more fields": (change(note="x"), "note"),
    "another key": (change(key=json.loads(key(batch=8).model_dump_json())), "another engine or machine"),
    "times that fall": (change_point(1, p50=1.0, p95=2.0), "does not rise"),
    "tiles twice": (change_point(1, tiles=1), "does not rise"),
    "not from one tile": (change_point(0, tiles=2), "one tile"),
    "p95 below p50": (change_point(1, p50=6), "below its p50"),
    "not a number": (change_point(1, p95=float("nan")), "p95"),
    "endless": (change_point(1, p95=float("inf")), "p95"),
    "no time at all": (change_point(0, p50=0), "p50"),
    "too few samples": (change_point(0, samples=3), "samples"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_or_foreign_file_is_refused_by_name_with_the_remedy(name: str) -> None:
    damage, words = DAMAGE[name]
    path = write_table(table(key()))
    path.write_text(damage(path.read_text()))
    with pytest.raises(UsageError) as caught:
        read_table(key(), "8ms", COMMAND)
    assert caught.value.code == "latency_table_missing"
    assert str(path) in caught.value.message and words in caught.value.message and "8ms" in caught.value.message
    assert caught.value.remedy == f"Make one: {COMMAND}"


def test_bytes_that_are_no_text_and_a_folder_are_refused() -> None:
    path = write_table(table(key()))
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(UsageError, match="not a latency table"):
        read_table(key(), "8ms", COMMAND)
    path.unlink()
    path.mkdir()
    with pytest.raises(UsageError, match="not a latency table"):
        read_table(key(), "8ms", COMMAND)


points = st.builds(
    lambda tiles, p50, more: Point(tiles=tiles, samples=20, p50=p50, p95=p50 + more),
    st.integers(1, 60),
    st.floats(0.1, 100),
    st.floats(0, 50),
)


@settings(deadline=None, max_examples=200)
@given(st.lists(points, min_size=1, max_size=15))
def test_monotone_is_the_running_maximum(measured: list[Point]) -> None:
    found = monotone(measured)
    assert [point.tiles for point in found] == sorted({point.tiles for point in measured})
    for point in found:
        up_to = [other for other in measured if other.tiles <= point.tiles]
        assert point.p50 == max(other.p50 for other in up_to) and point.p95 == max(other.p95 for other in up_to)


def test_the_name_of_the_file_says_nothing_about_the_user(cache: Path) -> None:
    assert set(table_path(key()).stem) <= set("0123456789abcdef")


def test_the_command_repeats_what_differs_from_the_default() -> None:
    assert bench_command("b/", key()) == "apex-rt bench b/"
    assert bench_command("b/", key(threads=2, batch=4, device="cuda:1"), permissive=True) == (
        "apex-rt bench b/ --threads 2 --batch 4 --device cuda:1 --policy permissive"
    )


def test_a_written_table_fits_the_schema_but_for_circumstances(validate) -> None:
    value = json.loads(write_table(table(key())).read_text())
    state = {"governor": None, "megahertz": 2400.0, "load": None}
    machine = {"processor": "p", "cpus": 2, "usable_cpus": 2, "memory_bytes": None, "system": "Linux", "gpus": []}
    value["circumstances"] = {"machine": machine, "before": state, "after": state, "versions": {"python": "3.11"}}
    validate("latency", value)
