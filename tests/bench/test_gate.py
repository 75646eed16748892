"""The campaign that judges the gate: what it plants is what it says, and its count is right."""

from __future__ import annotations

from pathlib import Path

import gate
import numpy as np
import onnx
import pytest
import slower

from apex_runtime.backends.ort import OrtSession
from apex_runtime.regression.workload import calls_of


def test_more_convolutions_change_no_output_and_are_not_thrown_away(repo_root: Path, tmp_path: Path) -> None:
    engine = repo_root / "engines" / "nuclei-nano" / "model.onnx"
    onnx.save(slower.with_more_convolutions(onnx.load(engine), 8), tmp_path / "slower.onnx")
    before, after = (calls_of(OrtSession(path, 1), ["1"])["1"]() for path in (engine, tmp_path / "slower.onnx"))
    assert isinstance(before, dict) and isinstance(after, dict) and before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])
    # what the prototypes are read from is computed with them: without the convolution there would be nothing to add
    nodes = {node.name: node for node in onnx.load(tmp_path / "slower.onnx").graph.node}
    assert nodes["more_add"].output[0] == slower.OUTPUT and nodes["more_add"].input[1] == nodes["more_mul"].output[0]
    assert (
        nodes["more_mul"].input[0] == nodes["more_mean"].output[0] and nodes["more_conv"].input[0] == nodes["more_add"].input[0]
    )


class Worker:
    """A session whose every call takes two seconds of a processor that exists only here."""

    info, name = None, "worker"

    def __init__(self) -> None:
        self.now = 0.0

    def run(self, *_arguments: object) -> dict:
        self.now += 2.0
        return {"answer": np.ones(1)}

    def thread_time(self) -> float:
        self.now += 0.01  # looking takes time, too
        return self.now


def test_the_slower_session_computes_its_share_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker()
    monkeypatch.setattr(slower.time, "thread_time", worker.thread_time)
    outputs = slower.SlowerSession(worker, 0.15).run(np.zeros(1), 1, np.zeros(1))
    assert outputs["answer"] == 1 and worker.now == pytest.approx(2.0 * 1.15, rel=0.03)


def row(planted: str | None, quotient: float, fails: bool, of_time: bool = True) -> dict:
    verdict = "fail" if fails else "pass"
    rest = {"graph_ms@0.25": 2 * quotient, "graph_wall_ms@0.25": 9.0, "peak_memory_bytes": 1.0}
    time_verdict = verdict if of_time else "pass"
    return {
        "planted": planted,
        "verdict": verdict,
        "time_verdict": time_verdict,
        "quotient": quotient,
        "quotients_of_the_rest": rest,
    }


def test_only_time_catches_and_anything_alarms() -> None:
    first, second = gate.KINDS
    rows = [
        row(None, 1.0, False),
        row(None, 1.02, True, of_time=False),
        row(first, 1.15, True),
        row(first, 1.05, False),
        row(second, 1.01, True, of_time=False),
    ]
    found = gate.summary(rows)
    assert (found["planted"], found["caught"], found["clean"], found["false_alarms"]) == (3, 1, 2, 1)
    assert found["spread"]["clean"]["most"] == 1.02 and found["spread"][first]["milliseconds_least"] == 2.1
