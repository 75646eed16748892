"""Files of measurements: what is read, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_measurement import made_measurement

from apex_runtime.errors import DataError, UsageError
from apex_runtime.regression.baseline import MAX_BYTES, read_measurement


def write(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document))  # json writes NaN, which is the point
    return path


def test_a_made_measurement_is_one(tmp_path: Path, validate) -> None:
    validate("baseline", made_measurement())
    found = read_measurement(write(tmp_path / "b.json", made_measurement()))
    assert found.value("graph_ms@0.25") == 50.0 and found.value("nothing") is None
    assert found.engine.input == (64, 96) and found.circumstances.machine.processor == "p"


@pytest.mark.parametrize("metric", [None, 3.0, "fast", [], {"unit": "ms"}, {"value": float("nan"), "unit": "ms"}])
def test_figures_are_not_judged_while_reading(tmp_path: Path, metric: object) -> None:
    found = read_measurement(write(tmp_path / "b.json", made_measurement({"graph_ms@1": metric})))
    assert list(found.metrics) == ["graph_ms@1"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format_version": 2}, "format_version"),
        ({"format_version": True}, "format_version"),
        ({"format_version": "1"}, "format_version"),
        ({"kind": "apex-x-latency-table"}, "kind"),
        ({"metrics": None}, "metrics"),
        ({"metrics": []}, "metrics"),
        ({"budgets": []}, "budgets"),
        ({"threads": True}, "threads"),
        ({"threads": 0}, "threads"),
        ({"model_sha256": "a"}, "model_sha256"),
        ({"machine": None}, "machine"),
        ({"measured": {}}, "measured"),
    ],
)
def test_another_frame_is_refused_and_named(tmp_path: Path, changes: dict, words: str) -> None:
    metrics = changes.get("metrics", {})
    document = made_measurement(**{name: value for name, value in changes.items() if name != "metrics"})
    document["metrics"] = metrics
    with pytest.raises(DataError, match=words) as error:
        read_measurement(write(tmp_path / "b.json", document))
    assert "bench record" in error.value.remedy and error.value.exit_code == 1


@pytest.mark.parametrize("data", [b"", b"{", b"null", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_document_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "b.json").write_bytes(data)
    with pytest.raises(DataError, match=r"b\.json"):
        read_measurement(tmp_path / "b.json")


def test_an_unknown_field_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="colour"):
        read_measurement(write(tmp_path / "b.json", made_measurement() | {"colour": "red"}))


def test_a_file_that_is_not_there_or_too_large(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_measurement(tmp_path)
    (tmp_path / "b.json").write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(DataError, match="larger"):
        read_measurement(tmp_path / "b.json")
