"""``apex-rt bench`` from the outside: rows, JSON, the latency table, deadlines by it, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from apex_runtime.benchmark import report as report_module
from apex_runtime.bundle.load import open_engine
from apex_runtime.routing.latency_table import LatencyTable, TableKey, table_path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("APEX_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def tables(cache: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(cache.rglob("*.json"))]


def test_rows_of_budgets_and_batches(apex_rt, validate, tiny_bundle: Path, nuclei_fixture: Path, cache: Path) -> None:
    output = tiny_bundle / "deep" / "bench.json"
    ran = apex_rt(
        "bench",
        tiny_bundle,
        "--budget",
        "1,0.5",
        "--budget",
        "100%",
        "--batch",
        "1,2",
        "--repeat",
        "3",
        "--threads",
        "1",
        "--data",
        nuclei_fixture / "images",
        "-o",
        output,
    )
    assert ran.code == 0, ran.err
    document = json.loads(output.read_text())
    validate("bench", document)
    assert [(row["budget"], row["tiles"], row["batch"], row["samples"]) for row in document["rows"]] == [
        (budget, tiles, batch, 3) for batch in (1, 2) for budget, tiles in (("1", 1), ("0.5", 8), ("100%", 16))
    ]
    for row in document["rows"]:
        assert row["graph"]["median"] < row["with_copies"]["median"] < row["end_to_end"]["median"]
        assert all(row[name]["median"] <= row[name]["p95"] for name in ("graph", "with_copies", "end_to_end"))
        assert row["budget"] in ran.out
    assert document["contract"]["threads"] == 1 and document["contract"]["source"] == "given"
    assert 20e6 < document["peak_memory"]["resident_bytes"] < 100e9
    assert document["latency_tables"] == [] and tables(cache) == [], "three rounds have no 95th percentile"
    assert "it needs 20 rounds" in ran.err


def test_the_ladder_writes_the_table_that_deadlines_are_planned_by(apex_rt, validate, tiny_onnx: Path, cache: Path) -> None:
    ran = apex_rt("bench", tiny_onnx, "--repeat", "20", "--batch", "1,3", "--json")
    assert ran.code == 0, ran.err
    document = json.loads(ran.out)
    validate("bench", document)
    assert [row["tiles"] for row in document["rows"]] == [1, 2, 4, 8, 12, 16] * 2
    assert document["contract"]["source"] == "shipped samples"
    found = tables(cache)
    assert len(found) == 2 and {table["key"]["batch"] for table in found} == {1, 3}
    for table in found:
        validate("latency", table)
        rows = [row for row in document["rows"] if row["batch"] == table["key"]["batch"]]
        for name, key in (("p50", "median"), ("p95", "p95")):
            highest = np.maximum.accumulate([row["end_to_end"][key] for row in rows])
            assert [point[name] for point in table["points"]] == highest.tolist()
    written = table_path(TableKey.of(open_engine(tiny_onnx), None, 1))
    least, most = (LatencyTable.model_validate_json(written.read_text()).points[index].p95 for index in (0, -1))
    ran = apex_rt("bench", tiny_onnx, "--budget", f"{most + 1}ms", "--repeat", "1", "--json")
    (row,) = json.loads(ran.out)["rows"]
    assert (row["budget"], row["tiles"]) == (f"{most + 1}ms", 16)
    ran = apex_rt("bench", tiny_onnx, "--budget", f"{least / 2}ms", "--repeat", "1")
    assert ran.code == 2 and "Give at least" in ran.err


def test_a_part_of_the_ladder_does_not_replace_the_table(apex_rt, tiny_onnx: Path, cache: Path) -> None:
    apex_rt("bench", tiny_onnx, "--repeat", "20")
    (before,) = tables(cache)
    ran = apex_rt("bench", tiny_onnx, "--budget", "1,4", "--repeat", "20")
    assert ran.code == 0 and "no latency table written" in ran.err
    assert tables(cache) == [before]


def test_a_deadline_without_a_table_names_the_command_that_makes_it(apex_rt, tiny_onnx: Path) -> None:
    ran = apex_rt("bench", tiny_onnx, "--budget", "8ms", "--threads", "1", "--batch", "2")
    assert ran.code == 2 and "latency_table_missing" in ran.err
    assert f"apex-rt bench {tiny_onnx} --threads 1 --batch 2" in ran.err


def test_a_cache_folder_that_cannot_be_written_spoils_no_report(
    apex_rt, tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("APEX_CACHE_DIR", str(tmp_path / "file"))
    ran = apex_rt("bench", tiny_onnx, "--repeat", "20", "--json")
    assert ran.code == 0 and json.loads(ran.out)["latency_tables"] == [] and "not written" in ran.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--repeat", "3", "--seconds", "2"], "Give one of them"),
        (["--batch", "0"], "--batch 0"),
        (["--batch", "257"], "--batch 257"),
        (["--batch", "x"], "not a whole number"),
        (["--budget", "lots"], "is not a budget"),
        (["--tiles", "1,1"], "level"),
        (["--data", "not there"], "no such file"),
        (["--device", "cuda"], "cuda"),
        (["--seconds", "0"], "--seconds"),
    ],
)
def test_wrong_usage_measures_nothing(apex_rt, tiny_onnx: Path, arguments: list[str], words: str, cache: Path) -> None:
    ran = apex_rt("bench", tiny_onnx, *arguments)
    assert ran.code in (1, 2) and words in ran.err and ran.out == "" and not cache.exists()


def test_seconds_bound_the_measurement(apex_rt, tiny_onnx: Path) -> None:
    """Fewer seconds than a round takes are one round."""
    document = json.loads(apex_rt("bench", tiny_onnx, "--budget", "1", "--seconds", "0.000001", "--json").out)
    assert document["rows"][0]["samples"] == 1


def test_ctrl_c_reports_what_was_measured(tiny_onnx: Path, tmp_path: Path, validate) -> None:
    command = [sys.executable, "-m", "apex_runtime.cli.main", "bench", str(tiny_onnx), "--budget", "1,16"]
    run = subprocess.Popen(
        [*command, "--seconds", "3000", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"APEX_CACHE_DIR": str(tmp_path)},
    )
    assert run.stderr is not None
    first = run.stderr.readline()  # the progress after some seconds: rounds were done
    assert first.startswith("bench: "), first
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=120)
    assert run.returncode == 1 and "interrupted" in err and "Traceback" not in err
    document = json.loads(out)
    validate("bench", document)
    assert document["status"] == "interrupted" and all(row["samples"] >= 1 for row in document["rows"])


def test_rows_of_another_division_among_levels_stay_out_of_the_table() -> None:
    """With two levels a deadline is shared out by the file's ratio; ``--tiles`` is not."""
    from apex_runtime.benchmark.measure import Cell, Measured
    from apex_runtime.model_info import TileInfo
    from apex_runtime.routing.budget import parse_budget, parse_levels

    grid = TileInfo(tile=32, halo=0, rows=2, cols=2, depth=2, ratio=(1, 2))

    def measured(cell: Cell, value: float) -> Measured:
        times = {name: [value] * 20 for name in ("graph", "with_copies", "end_to_end")}
        return Measured(cell, times)

    rows = [
        measured(Cell(parse_budget("1"), (1, 0), 1), 2.0),
        measured(Cell(parse_levels("4,1"), (4, 1), 1), 99.0),
        measured(Cell(parse_budget("6"), (2, 4), 1), 5.0),
        measured(Cell(parse_budget("20"), (4, 16), 1), 7.0),
        measured(Cell(parse_budget("20"), (4, 16), 2), 50.0),
    ]
    key = TableKey(
        model_sha256="0" * 64, backend="b", backend_version="", machine="m", device="cpu", input=(128, 128), threads=1, batch=1
    )
    found = report_module.latency_table(key, rows, grid, {})
    assert isinstance(found, LatencyTable)
    assert [(point.tiles, point.p95) for point in found.points] == [(1, 2.0), (6, 5.0), (20, 7.0)]
    assert report_module.row(rows[2], 2)["per_level"] == [2, 4]
