"""The log of a run: read back by readers that are not ours."""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from apex_train.engine.logs import RunLog

FIRST = {"epoch": 1, "step": 10, "total": 3.5, "memory": {"allocated": 5, "peak": 7}, "note": "warm-up, first", "lr": None}
SECOND = {"epoch": 2, "step": 20, "total": 2.5, "memory": {"allocated": 6, "peak": 8}, "mAP_bbox": 0.25}
THIRD = {"epoch": 3, "step": 30, "total": 1.5, "mAP_bbox": 0.5}


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def lines(folder: Path) -> list[dict]:
    def refuse(word: str) -> None:
        raise ValueError(f"{word} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in (folder / "log.jsonl").read_text().splitlines()]


def events(folder: Path, tag: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder / "tensorboard"))
    reader.Reload()
    return [(event.step, event.value) for event in reader.Scalars(tag)]


def test_json_lines_and_table_hold_the_history(tmp_path: Path) -> None:
    log = RunLog(tmp_path, tensorboard=False)
    log.write([FIRST])
    log.write([FIRST, SECOND])
    assert lines(tmp_path) == [FIRST, SECOND]
    assert list(table(tmp_path)[0]) == ["epoch", "step", "total", "memory.allocated", "memory.peak", "note", "lr", "mAP_bbox"]
    first, second = table(tmp_path)
    assert (first["memory.peak"], first["note"], first["mAP_bbox"], first["lr"]) == ("7", "warm-up, first", "", "")
    assert (second["memory.allocated"], second["note"], float(second["mAP_bbox"])) == ("6", "", 0.25)
    assert not (tmp_path / "tensorboard").exists()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_what_is_not_finite_is_null_and_empty(tmp_path: Path, value: float) -> None:
    RunLog(tmp_path, tensorboard=False).write([FIRST | {"total": value, "memory": {"allocated": value, "peak": np.int64(7)}}])
    assert lines(tmp_path)[0]["total"] is None
    assert lines(tmp_path)[0]["memory"] == {"allocated": None, "peak": 7}
    assert (table(tmp_path)[0]["total"], table(tmp_path)[0]["memory.allocated"]) == ("", "")


def test_events_are_read_back_by_tensorboard(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.write([FIRST])
    log.write([FIRST, {key: value for key, value in SECOND.items() if key != "mAP_bbox"}])
    log.write([FIRST, SECOND])  # the same epoch again, with its figure
    log.close()
    assert events(tmp_path, "total") == [(10, 3.5), (20, 2.5)]
    assert events(tmp_path, "memory/peak") == [(10, 7.0), (20, 8.0)]
    assert events(tmp_path, "mAP_bbox") == [(20, 0.25)]


def test_a_resumed_run_replaces_the_events_after_its_checkpoint(tmp_path: Path) -> None:
    """The first process wrote three epochs, its checkpoint held one: after the resume the second epoch is another."""
    crashed = RunLog(tmp_path)
    crashed.write([FIRST])
    crashed.write([FIRST, SECOND])
    crashed.write([FIRST, SECOND, THIRD])
    crashed.close()
    resumed = RunLog(tmp_path)
    resumed.write([FIRST, SECOND | {"total": 9.0}])
    resumed.close()
    assert events(tmp_path, "total") == [(10, 3.5), (20, 9.0)]
    assert [line["total"] for line in lines(tmp_path)] == [3.5, 9.0]


def test_without_tensorboard_the_text_is_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # importing it raises ImportError
    log = RunLog(tmp_path)
    log.write([FIRST])
    log.close()
    assert lines(tmp_path) == [FIRST]
    assert not (tmp_path / "tensorboard").exists()


def test_an_empty_history_is_an_empty_log(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.write([])
    log.close()
    assert lines(tmp_path) == [] and table(tmp_path) == []
