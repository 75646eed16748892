"""``apex-rt bench compare`` on reports that ``bench`` and ``eval`` wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APEX_CACHE_DIR", str(tmp_path / "cache"))


def test_rows_that_differ_in_threads_are_two_tables_unless_that_is_meant(apex_rt, tiny_onnx: Path, tmp_path: Path) -> None:
    files = []
    for threads in ("1", "2"):
        files.append(tmp_path / f"threads-{threads}.json")
        ran = apex_rt("bench", tiny_onnx, "--budget", "1", "--repeat", "1", "--threads", threads, "-o", files[-1])
        assert ran.code == 0, ran.err
    again = tmp_path / "evidence"
    assert apex_rt("bench", tiny_onnx, "--budget", "4", "--repeat", "1", "--threads", "1", "--evidence", again).code == 0
    ran = apex_rt("bench", "compare", files[0], again)
    assert ran.code == 0 and "threads-1.json" in ran.out and "evidence" in ran.out and "Not in the table" not in ran.out
    ran = apex_rt("bench", "compare", *files)
    assert ran.code == 1 and "threads: 1 above, 2 here" in ran.out
    ran = apex_rt("bench", "compare", *files, "--json")
    found = json.loads(ran.out)
    assert ran.code == 1 and not found["comparable"] and found["tables"][1]["differences"] == {"threads": [1, 2]}
    ran = apex_rt("bench", "compare", *files, "--across", "threads", "--json")
    (table,) = json.loads(ran.out)["tables"]
    assert ran.code == 0 and [row["across"]["threads"] for row in table["rows"]] == [{"threads": 1}, {"threads": 2}]


def test_times_and_accuracy_are_never_one_table(apex_rt, repo_root: Path, nuclei_fixture: Path, tmp_path: Path) -> None:
    engine = repo_root / "engines" / "nuclei-nano"
    timed, scored = tmp_path / "bench.json", tmp_path / "eval.json"
    apex_rt("bench", engine, "--budget", "1", "--repeat", "1", "--data", nuclei_fixture / "images", "-o", timed)
    ran = apex_rt("eval", engine, "--data", nuclei_fixture, "--split", "val", "--budget", "1", "--output", scored)
    assert ran.code == 0, ran.err
    ran = apex_rt("bench", "compare", timed, scored)
    assert ran.code == 1 and "evaluator" in ran.out and "segm AP" in ran.out


def test_names_are_shown_as_they_are(apex_rt, tiny_onnx: Path, tmp_path: Path) -> None:
    file = tmp_path / "[red]a[b].json"
    assert apex_rt("bench", tiny_onnx, "--budget", "1", "--repeat", "1", "-o", file).code == 0
    ran = apex_rt("bench", "compare", file)
    assert ran.code == 0 and file.name in ran.out


def test_wrong_usage(apex_rt, tmp_path: Path) -> None:
    assert "the path is empty" in apex_rt("bench", "compare", "").err
    assert apex_rt("bench", "compare").code == 2
    assert apex_rt("bench", "compare", tmp_path / "none.json").code == 2
    assert apex_rt("bench", "compare", tmp_path / "none.json", "--across", "mood").code == 2
    (tmp_path / "old.json").write_text("{}")
    ran = apex_rt("bench", "compare", tmp_path / "old.json")
    assert ran.code == 1 and "no report with a fairness contract" in ran.err
