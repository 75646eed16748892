"""``apex-rt bench record``, ``check`` and ``trend`` from the outside; nothing here depends on how long anything takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_measurement import made_measurement

from apex_runtime.errors import ApexError
from apex_runtime.regression import record as record_module
from apex_runtime.regression import workload
from apex_runtime.regression.rounds import Samples


@pytest.fixture
def recorded(apex_rt, tiny_onnx: Path, tmp_path: Path) -> Path:
    path = tmp_path / "deep" / "baseline.json"
    ran = apex_rt("bench", "record", tiny_onnx, "-o", path, "--budget", "1,0.5", "--repeat", "2")
    assert ran.code == 0, ran.err
    return path


def changed(path: Path, name: str, factor: float) -> Path:
    """The measurement with one metric that many times its value."""
    document = json.loads(path.read_text())
    document["metrics"][name]["value"] *= factor
    other = path.with_name("changed.json")
    other.write_text(json.dumps(document))
    return other


def test_a_baseline_has_what_a_check_needs(recorded: Path, validate, tiny_onnx: Path) -> None:
    document = json.loads(recorded.read_text())
    validate("baseline", document)
    times = [f"{kind}@{budget}" for kind in ("graph_over_anchor", "graph_ms", "graph_wall_ms") for budget in ("1", "0.5")]
    assert set(document["metrics"]) == {*times, "anchor_ms", "peak_memory_bytes"}
    assert document["measured"]["rounds"] == 2 and document["contract"]["threads"] == 1
    for budget in ("1", "0.5"):
        own, wall = (document["metrics"][f"{kind}@{budget}"]["value"] for kind in ("graph_ms", "graph_wall_ms"))
        assert 0 < own <= wall + 1e-3
    assert 0 < document["metrics"]["graph_over_anchor@1"]["value"] < 1, "the tiny model is smaller than the anchor"


def test_a_check_measures_as_the_baseline_was_measured(
    apex_rt, recorded: Path, tiny_bundle: Path, validate, tmp_path: Path
) -> None:
    """How fast this machine is now does not matter: what is allowed is a thousand times as much."""
    output = tmp_path / "check.json"
    arguments = ["--baseline", recorded, "--repeat", "2", "--ratio", "1000", "--json", "-o", output]
    ran = apex_rt("bench", "check", tiny_bundle, *arguments)
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    validate("check", report)
    assert report == json.loads(output.read_text()) and report["verdict"] == "pass"
    assert [row["name"] for row in report["metrics"] if row["judged"]] == [
        "graph_over_anchor@1",
        "graph_over_anchor@0.5",
        "peak_memory_bytes",
    ]


def test_two_files_are_compared_without_measuring(apex_rt, recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload, "open_engine", lambda *_arguments: pytest.fail("an engine was opened"))
    assert apex_rt("bench", "check", recorded, "--baseline", recorded).code == 0
    slower = changed(recorded, "graph_over_anchor@0.5", 1.15)
    ran = apex_rt("bench", "check", slower, "--baseline", recorded)
    assert ran.code == 1 and "graph_over_anchor@0.5: 15.0 % more" in ran.out and "fail" in ran.out
    assert apex_rt("bench", "check", recorded, "--baseline", slower).code == 0, "faster is no failure"
    assert apex_rt("bench", "check", slower, "--baseline", recorded, "--ratio", "graph_over_anchor@0.5=0.2").code == 0
    assert apex_rt("bench", "check", slower, "--baseline", recorded, "--abs", "graph_*=100").code == 0
    larger = changed(recorded, "peak_memory_bytes", 1.2)
    assert apex_rt("bench", "check", larger, "--baseline", recorded).code == 1
    milliseconds = changed(recorded, "graph_ms@1", 1.2)
    assert apex_rt("bench", "check", milliseconds, "--baseline", recorded).code == 0
    assert apex_rt("bench", "check", milliseconds, "--baseline", recorded, "--absolute").code == 1


class SlowedClock:
    """A stopwatch that gives the anchor 40 ms and the engine what it is told to take, call after call."""

    def __init__(self, milliseconds: float) -> None:
        self.milliseconds = milliseconds

    def run(self, calls, _anchor, patience, enough, _stop) -> Samples:
        from apex_runtime.own_time import Turn

        turns = {budget: [Turn(2 * self.milliseconds, self.milliseconds)] * 12 for budget in calls}
        return Samples(turns, {budget: [Turn(40.0, 40.0)] * 12 for budget in calls}, 1.0)


@pytest.mark.parametrize(("slowdown", "code"), [(1.0, 0), (1.05, 0), (1.15, 1)])
def test_a_planted_slowdown_ends_with_exit_code_1(
    apex_rt, tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slowdown: float, code: int
) -> None:
    monkeypatch.setattr(record_module, "run_rounds", SlowedClock(10.0).run)
    monkeypatch.setattr(record_module, "peak_resident_bytes", lambda: 10**8)
    path = tmp_path / "b.json"
    assert apex_rt("bench", "record", tiny_onnx, "-o", path, "--budget", "4").code == 0
    assert json.loads(path.read_text())["metrics"]["graph_over_anchor@4"]["value"] == 0.25
    monkeypatch.setattr(record_module, "run_rounds", SlowedClock(10.0 * slowdown).run)
    ran = apex_rt("bench", "check", tiny_onnx, "--baseline", path, "--json")
    report = json.loads(ran.out)
    assert ran.code == code and report["verdict"] == ("fail" if code else "pass")
    assert [row["name"] for row in report["metrics"] if row["verdict"] == "fail"] == ["graph_over_anchor@4"] * code


def test_another_machine_is_refused_by_name(apex_rt, recorded: Path) -> None:
    document = json.loads(recorded.read_text())
    document["circumstances"]["machine"]["processor"] = "Another One"
    document["contract"]["backend_version"] = "0.0.1"
    recorded.with_name("there.json").write_text(json.dumps(document))
    ran = apex_rt("bench", "check", recorded, "--baseline", recorded.with_name("there.json"))
    assert ran.code == 1 and "another processor" in ran.out and "Another One" in ran.out and "0.0.1" in ran.out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["record", "{onnx}"], 2, "--output"),
        (["record", "{onnx}", "-o", "{new}", "--seconds", "1", "--repeat", "1"], 2, "Give one of them"),
        (["record", "{onnx}", "-o", "{new}", "--budget", "8ms"], 2, "deadline"),
        (["record", "{onnx}", "-o", "{new}", "--budget", "lots"], 2, "is not a budget"),
        (["record", "{onnx}", "-o", "{new}", "--device", "cuda"], 1, "cuda"),
        (["record", "nowhere", "-o", "{new}"], 2, "no such engine"),
        (["record", "{onnx}", "-o", "{onnx}"], 2, "it is what is read"),
        (["record", "{onnx}", "-o", "{base}/b.json"], 2, "cannot be written"),
        (["check", "{base}", "--baseline", "{base}", "-o", "{base}"], 2, "it is what is read"),
        (["trend", "{new}", "--add", "{base}", "--plot", "{base}/t.svg"], 2, "cannot be written"),
        (["check", "{onnx}"], 2, "--baseline"),
        (["check", "{onnx}", "--baseline", "nowhere.json"], 2, "no such file"),
        (["check", "{base}", "--baseline", "{damaged}"], 1, "not a measurement"),
        (["check", "{damaged}", "--baseline", "{base}"], 1, "not a measurement"),
        (["check", "{base}", "--baseline", "{base}", "--ratio", "fast"], 2, "--ratio"),
        (["check", "{base}", "--baseline", "{base}", "--abs", "nothing=1"], 2, "no such metric"),
        (["check", "{base}", "--baseline", "{base}", "--seconds", "1"], 2, "measured already"),
        (["trend", "nowhere.jsonl"], 2, "no such file"),
        (["trend", "{new}", "--add", "{damaged}"], 1, "not a measurement"),
        (["trend", "{new}", "--add", "{base}", "--plot", "trend.png"], 2, ".svg"),
        (["trend", "{damaged}"], 1, "damaged line 1"),
        (["trend", "{empty}"], 2, "has no lines"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    apex_rt, tiny_onnx: Path, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    (tmp_path / "damaged.json").write_text('{"format_version": 7}\n')
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "base.json").write_text(json.dumps(made_measurement()))
    names = {"damaged": "damaged.json", "empty": "empty.jsonl", "base": "base.json", "new": "new.json"}
    places = {name: tmp_path / file for name, file in names.items()} | {"onnx": tiny_onnx}
    before = sorted(tmp_path.iterdir())
    ran = apex_rt("bench", *(word.format(**places) for word in arguments))
    assert ran.code == code and words in ran.err and sorted(tmp_path.iterdir()) == before


def test_names_are_shown_as_they_are(apex_rt, tmp_path: Path) -> None:
    """A bracket in a file is no markup of the terminal's."""
    document = made_measurement()
    document["metrics"]["graph_over_anchor@[/b]"] = document["metrics"].pop("graph_over_anchor@0.25")
    document["circumstances"]["machine"]["processor"] = "[red]processor[/b]"
    (tmp_path / "base.json").write_text(json.dumps(document))
    for words in (
        ("check", tmp_path / "base.json", "--baseline", tmp_path / "base.json"),
        ("trend", tmp_path / "t.jsonl", "--add", tmp_path / "base.json"),
    ):
        ran = apex_rt("bench", *words)
        assert ran.code == 0 and "graph_over_anchor@[/b]" in ran.out.replace("\n", ""), ran.err


def test_a_checkpoint_is_no_subject_of_a_gate(apex_rt, tmp_path: Path, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    opened = workload.open_engine(tiny_onnx)
    monkeypatch.setattr(workload, "open_engine", lambda *_arguments: replace(opened, executed="torch"))
    ran = apex_rt("bench", "record", "best.pt", "-o", tmp_path / "b.json")
    assert ran.code == 2 and "checkpoint" in ran.err and "apex-train export" in ran.err


def test_an_interrupted_measurement_writes_nothing(tiny_onnx: Path) -> None:
    import threading

    from apex_runtime.regression.rounds import Patience

    stop = threading.Event()
    stop.set()
    opened = workload.open_workload(tiny_onnx, workload.Settings(("1",)))
    with pytest.raises(ApexError, match="nothing was written"):
        record_module.record(opened, Patience(1.0), lambda _samples: True, stop)


def test_a_trend_grows_and_is_drawn(apex_rt, recorded: Path, tmp_path: Path, validate) -> None:
    trend, picture = tmp_path / "trend.jsonl", tmp_path / "trend.svg"
    assert apex_rt("bench", "trend", trend, "--add", recorded).code == 0
    document = json.loads(recorded.read_text()) | {"created_utc": "2030-01-01T00:00:00+00:00"}
    later = recorded.with_name("later.json")
    later.write_text(json.dumps(document))
    ran = apex_rt("bench", "trend", trend, "--add", later, "--plot", picture, "--json")
    rows = json.loads(ran.out)
    assert ran.code == 0 and [row["created_utc"] for row in rows][1] == "2030-01-01T00:00:00+00:00" and len(rows) == 2
    for row in rows:
        validate("trend", row)
    assert picture.read_text().startswith("<svg")
    ran = apex_rt("bench", "trend", trend)
    assert ran.code == 0 and "2030-01-01" in ran.out
    assert apex_rt("bench", "trend", trend, "--add", later).code == 2
