"""``apex-rt bench`` from the outside: rows, JSON, the latency table, deadlines by it, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from contracts import made_contract

from apex_runtime.benchmark import report as report_module
from apex_runtime.bundle.load import open_engine
from apex_runtime.errors import DataError
from apex_runtime.fairness.contract import Contract
from apex_runtime.fairness.evidence import read_evidence
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
        assert row["stages"]["graph"] == row["graph"]["median"] and max(row["stages"].values()) < row["end_to_end"]["p95"]
        own = Contract.model_validate(document["fairness"] | {"batch": row["batch"]})
        assert row["contract_sha256"] == own.sha256() and document["fairness"]["batch"] is None
    assert document["contract"]["threads"] == 1 and document["contract"]["source"] == "given"
    assert 20e6 < document["peak_memory"]["resident_bytes"] < 100e9
    assert document["latency_tables"] == [] and tables(cache) == [], "three rounds have no 95th percentile"
    assert "it needs 20 rounds" in ran.err


def test_the_ladder_writes_the_table_that_deadlines_are_planned_by(apex_rt, validate, tiny_onnx: Path, cache: Path) -> None:
    ran = apex_rt("bench", tiny_onnx, "--repeat", "20", "--batch", "1,2", "--json")
    assert ran.code == 0, ran.err
    document = json.loads(ran.out)
    validate("bench", document)
    assert [row["tiles"] for row in document["rows"]] == [1, 2, 4, 8, 12, 16] * 2
    assert document["contract"]["source"] == "shipped samples"
    found = tables(cache)
    assert len(found) == 2 and {table["key"]["batch"] for table in found} == {1, 2}
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
    apex_rt("bench", tiny_onnx, "--budget", "1,16", "--repeat", "20")  # the ends of the ladder are enough for a table
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
    ran = apex_rt("bench", tiny_onnx, "--budget", "1,16", "--repeat", "20", "--json")
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
        (["--budget", ""], "the list is empty"),
        (["--output", "{onnx}"], "it is what is read"),
        (["--output", "{onnx}/x.json"], "cannot be written"),
        (["--evidence", "{onnx}"], "is not an empty folder"),
        (["--evidence", "{onnx}/x"], "cannot be written"),
        (["--output", "{new}", "--evidence", "{new}"], "it is the folder of --evidence"),
    ],
)
def test_wrong_usage_measures_nothing(apex_rt, tiny_onnx: Path, arguments: list[str], words: str, cache: Path) -> None:
    before = tiny_onnx.read_bytes()
    ran = apex_rt("bench", tiny_onnx, *(word.format(onnx=tiny_onnx, new=cache.with_name("new")) for word in arguments))
    assert ran.code in (1, 2) and words in ran.err and ran.out == "" and not cache.exists()
    assert tiny_onnx.read_bytes() == before


def test_a_file_of_the_engine_is_not_overwritten(apex_rt, tiny_bundle: Path) -> None:
    ran = apex_rt("bench", tiny_bundle, "-o", tiny_bundle / "manifest.json")
    assert ran.code == 2 and "it is a part of what is read" in ran.err


def test_layers_that_nobody_can_tell_are_refused_before_anything_is_measured(
    apex_rt, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = replace(open_engine(tiny_onnx), executed="ort-cuda")
    monkeypatch.setattr("apex_runtime.benchmark.job.open_engine", lambda *_arguments: opened)
    monkeypatch.setattr("apex_runtime.cli.bench._measure", lambda *_arguments: pytest.fail("it was measured"))
    ran = apex_rt("bench", tiny_onnx, "--layers")
    assert ran.code == 2 and "--layers" in ran.err and "ort-cuda" in ran.err


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
    from apex_runtime.benchmark.measure import STAGES, Cell, Measured
    from apex_runtime.model_info import TileInfo
    from apex_runtime.routing.budget import parse_budget, parse_levels

    grid = TileInfo(tile=32, halo=0, rows=2, cols=2, depth=2, ratio=(1, 2))

    def measured(cell: Cell, value: float) -> Measured:
        return Measured(cell, stages={name: [value / len(STAGES)] * 20 for name in STAGES})

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
    assert [(point.tiles, round(point.p95, 6)) for point in found.points] == [(1, 2.0), (6, 5.0), (20, 7.0)]
    assert report_module.row(rows[2], 2, made_contract())["per_level"] == [2, 4]


def test_two_engines_take_turns_and_what_differs_is_told(
    apex_rt, validate, tiny_onnx: Path, tiny_bundle: Path, tmp_path: Path, cache: Path
) -> None:
    ran = apex_rt(
        "bench", tiny_onnx, "--against", tiny_bundle, "--budget", "1,0.5", "--repeat", "6", "--json", "-o", tmp_path / "r.json"
    )
    assert ran.code == 0, ran.err
    document = json.loads(ran.out)
    validate("bench", document)
    other = document["against"]
    assert other["engine"]["model_sha256"] == document["engine"]["model_sha256"] and other["differences"] == {}
    assert [(row["budget"], row["tiles"]) for row in other["ratios"]] == [("1", [1, 1]), ("0.5", [8, 8])]
    for item in other["ratios"]:
        for name in ("graph", "with_copies", "end_to_end"):
            assert item[name]["low"] <= item[name]["ratio"] <= item[name]["high"]
            assert item[name]["quartiles"][0] <= item[name]["ratio"] <= item[name]["quartiles"][1]
    assert document["latency_tables"] == [] and tables(cache) == [], "in turn is another circumstance"
    (table,) = json.loads(apex_rt("bench", "compare", tmp_path / "r.json", "--json").out)["tables"]
    assert [row["source"] for row in table["rows"]] == ["r.json"] * 2 + ["r.json, against"] * 2
    assert "two engines in turn" in document["fairness"]["timed"]


def test_layers_have_the_parts_of_the_model(apex_rt, validate, repo_root: Path, tiny_onnx: Path) -> None:
    engine = repo_root / "engines" / "nuclei-nano"
    ran = apex_rt("bench", engine, "--budget", "1,64", "--repeat", "1", "--layers", "--json")
    assert ran.code == 0, ran.err
    document = json.loads(ran.out)
    validate("bench", document)
    few, every = document["layers"]
    assert (few["tiles"], every["tiles"]) == (1, 64)
    for profile in (few, every):
        milliseconds = [row["milliseconds"] for row in profile["nodes"]]
        assert milliseconds == sorted(milliseconds, reverse=True)
        assert {row["region"] for row in profile["nodes"]} == {row["region"] for row in profile["regions"]}
        assert any(row["op"] == "Conv" and row["region"] == "foveal" for row in profile["nodes"])
    of_few, of_every = ({row["region"]: row["milliseconds"] for row in each["regions"]} for each in (few, every))
    assert of_every["foveal"] > 8 * of_few["foveal"], "64 tiles instead of one"
    assert of_few["layout"] < 0.2 * sum(of_few.values()), "nearly all nodes are known"
    ran = apex_rt("bench", tiny_onnx, "--budget", "1", "--repeat", "1", "--layers")
    assert ran.code == 0 and "layers of 1 tiles" in ran.out, "a file whose nodes have no scopes"


def test_an_evidence_bundle_holds_all_of_it(apex_rt, tiny_onnx: Path, tmp_path: Path) -> None:
    folder = tmp_path / "evidence"
    ran = apex_rt("bench", tiny_onnx, "--budget", "1,4", "--batch", "1,2", "--repeat", "3", "--evidence", folder, "--json")
    assert ran.code == 0, ran.err
    head = read_evidence(folder)
    report = json.loads((folder / "report.json").read_text())
    assert report == json.loads(ran.out)
    contracts = json.loads((folder / "contract.json").read_text())
    assert set(contracts) == set(head["contracts"]) == {row["contract_sha256"] for row in report["rows"]}
    for digest, contract in contracts.items():
        assert Contract.model_validate(contract).sha256() == digest
    samples = json.loads((folder / "samples.json").read_text())
    for row, sample in zip(report["rows"], samples, strict=True):
        assert (row["budget"], row["batch"]) == (sample["budget"], sample["batch"])
        assert row["graph"]["median"] == pytest.approx(np.median(sample["milliseconds"]["graph"]), abs=1e-3)
        waited = np.array(list(sample["waited_milliseconds"].values()))
        assert waited.shape == (len(sample["milliseconds"]), 3) and (waited >= 0).all()
    assert {item["backend"] for item in json.loads((folder / "capabilities.json").read_text())} >= {"ort-cpu", "tensorrt"}
    assert head["hashes"][f"engine 0: {tiny_onnx.name}"] == report["engine"]["model_sha256"]
    assert sum(name.startswith("image ") for name in head["hashes"]) == report["contract"]["images"]
    assert str(tmp_path) not in (folder / "evidence.json").read_text()
    ran = apex_rt("bench", tiny_onnx, "--budget", "1", "--repeat", "1", "--evidence", folder)
    assert ran.code == 2 and "never overwritten" in ran.err and json.loads((folder / "report.json").read_text()) == report
    (folder / "samples.json").write_text("[]")
    with pytest.raises(DataError, match="changed since"):
        read_evidence(folder)


def test_a_word_that_is_no_action_is_an_engine(apex_rt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "no such engine" in apex_rt("bench", "comparison").err
    (tmp_path / "compare").mkdir()
    assert "not an engine bundle" in apex_rt("bench", "./compare").err
