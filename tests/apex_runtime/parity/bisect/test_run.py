"""The search as a whole: what is the same, what is refused, what a second start takes from the first."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from graph_faults import SHIPPED, TINY, op, with_fault
from onnx import TensorProto, helper
from tiny_model import tiny_info, tiny_proto

from apex_runtime.backends.reasons import ReasonCode, backend_error
from apex_runtime.errors import ModelError, UsageError
from apex_runtime.parity.bisect.case import Whole
from apex_runtime.parity.bisect.journal import Journal
from apex_runtime.parity.bisect.report import lines
from apex_runtime.parity.bisect.slices import Graph
from apex_runtime.precision.half_graph import with_half_nodes
from apex_runtime.precision.tensor_types import half_inputs, tensor_types

FAULT = TINY["tiles permuted"]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Targets of every slice that ran, in order."""
    done: list[tuple[str, ...]] = []
    run = Graph.run

    def counted(self: Graph, targets, feeds):
        done.append(tuple(targets))
        return run(self, targets, feeds)

    monkeypatch.setattr(Graph, "run", counted)
    return done


def test_a_model_equals_itself(tiny, blobs, searching, validate, tmp_path) -> None:
    found = searching(tiny, tiny, blobs)
    assert found.verdict == "same" and found.start is None and found.slices == []
    assert found.aligned > 60 and found.without == 0
    assert [path.name for path in (tmp_path / "found").iterdir()] == ["bisect.json"]
    validate("bisect", json.loads((tmp_path / "found" / "bisect.json").read_text()))


def test_the_stored_schema_is_the_schema_of_the_code(repo_root: Path) -> None:
    stored = json.loads((repo_root / "apex_runtime" / "schemas" / "bisect.schema.json").read_text())
    made = Journal.model_json_schema()
    assert {**stored, "title": "", "$schema": ""} == {**made, "title": "", "$schema": ""}


def test_other_names_are_recognised(tiny, blobs, searching) -> None:
    """Every tensor but inputs and outputs is called otherwise; the fault is still found, and under the reference's name."""
    candidate = with_fault(tiny, FAULT)
    kept = {value.name for value in (*tiny.graph.input, *tiny.graph.output)} | {item.name for item in tiny.graph.initializer}
    for node in candidate.graph.node:
        for names in (node.input, node.output):
            names[:] = [name if name in kept or not name else f"other.{name}" for name in names]
    found = searching(tiny, candidate, blobs)
    assert found.without == 0
    assert found.finding is not None and [node.name for node in found.finding.reference_nodes] == ["tiled"]


def test_a_fault_in_half_precision_is_told_from_rounding(shipped_path, sample, searching) -> None:
    model = onnx.load(shipped_path)
    types = tensor_types(model)
    halved = {node.name: half_inputs(node, types, model) for node in model.graph.node if node.op_type == "Conv"}
    half = with_half_nodes(model, {name: taken for name, taken in halved.items() if taken}, types)
    found = searching(model, with_fault(half, SHIPPED["pads of a convolution"]), sample)
    assert found.key.precision == "fp16" and found.finding is not None
    assert [node.name for node in found.finding.reference_nodes] == ["node_conv2d_30"]
    assert [change for change in found.finding.changes if "pads" in change]
    assert found.finding.outputs[0].candidate is not None and found.finding.outputs[0].candidate.dtype == "float16"


def test_a_function_that_was_put_in_line(tiny, blobs, searching, tmp_path) -> None:
    """ONNX Runtime's optimiser leaves no call: what the body became is found in the candidate, the call in the reference."""
    onnx.save(with_fault(tiny, TINY["the body of the keys"]), tmp_path / "called.onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "inline.onnx")
    onnxruntime.InferenceSession(tmp_path / "called.onnx", options, providers=["CPUExecutionProvider"])
    candidate = onnx.load(tmp_path / "inline.onnx")
    assert not candidate.functions
    helper.set_model_props(candidate, {item.key: item.value for item in tiny.metadata_props})
    found = searching(tiny, candidate, blobs).finding
    assert found is not None and [node.name for node in found.reference_nodes] == ["key"]
    assert found.changes == ["op: SelectionKey, in the candidate Sub"]
    assert {node.op for node in found.candidate_nodes} == {"Add", "Mul", "Neg", "Sub"}
    folder, story = tmp_path / "found", "\n".join(lines(searching(tiny, candidate, blobs), tmp_path / "found"))
    assert "and 1 more" in story and (folder / "minimal.onnx").is_file()


def test_a_candidate_that_does_not_run(tiny, blobs, searching) -> None:
    """The mean of two dimensions that are not there: nothing but this node can say so, wherever the slice begins."""
    found = searching(tiny, with_fault(tiny, op("mean", "Unsqueeze")), blobs)
    assert found.start is not None and not found.start.runs
    assert found.finding is not None and [node.name for node in found.finding.reference_nodes] == ["mean"]


@pytest.mark.parametrize("slices", [0, 1, 3])
def test_a_second_start_goes_on_where_the_first_was_stopped(slices: int, tiny, blobs, searching, tmp_path, monkeypatch) -> None:
    candidate = with_fault(tiny, FAULT)
    whole = searching(tiny, candidate, blobs)
    journal = tmp_path / "found" / "bisect.json"
    text = journal.read_text()
    journal.unlink()
    stopped_after(slices, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        searching(tiny, candidate, blobs)
    monkeypatch.undo()
    part = Journal.model_validate_json(journal.read_bytes())
    assert part.verdict == "unfinished" and part.slices == whole.slices[:slices]
    assert searching(tiny, candidate, blobs) == whole
    assert journal.read_text() == text


def stopped_after(slices: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies in the candidate's run of the next slice after so many."""
    run, left = Graph.run, [slices]

    def dying(self: Graph, targets, feeds):
        if self.path.name == "1.onnx":
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
        return run(self, targets, feeds)

    monkeypatch.setattr(Graph, "run", dying)


def test_finished_slices_are_not_run_again(tiny, blobs, searching, runs, tmp_path, monkeypatch) -> None:
    candidate = with_fault(tiny, FAULT)
    whole = searching(tiny, candidate, blobs)
    compared = [set(probed.excess) for probed in whole.slices]
    journal = tmp_path / "found" / "bisect.json"
    value = json.loads(journal.read_text())
    journal.write_text(json.dumps({**value, "verdict": "unfinished", "finding": None, "slices": value["slices"][:-1]}))
    monkeypatch.setattr(Whole, "run", None)  # nor is the first difference looked for again
    runs.clear()
    assert searching(tiny, candidate, blobs) == whole
    again = [set(targets) for targets in runs]
    assert compared[-1] in again
    assert len(runs) <= 5, "the values that are fed, the last slice on both sides, what is written down"


def test_a_finished_search_runs_nothing(tiny, blobs, searching, runs, monkeypatch) -> None:
    whole = searching(tiny, with_fault(tiny, FAULT), blobs)
    runs.clear()
    monkeypatch.setattr(Whole, "run", None)
    assert searching(tiny, with_fault(tiny, FAULT), blobs) == whole
    assert runs == []


def test_a_journal_of_another_search_is_refused(tiny, blobs, searching) -> None:
    searching(tiny, with_fault(tiny, FAULT), blobs)
    with pytest.raises(UsageError, match="another search: not the same budgets"):
        searching(tiny, with_fault(tiny, FAULT), blobs, budget="0.25")
    with pytest.raises(UsageError, match="not the same candidate sha256") as caught:
        searching(tiny, with_fault(tiny, TINY["a Relu"]), blobs)
    assert "another folder" in caught.value.remedy


Spoil = Callable[[dict], object]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda value: value.clear(),
        lambda value: value.update(slices=[{"fed": []}]),
        lambda value: value.update(schema_version=2),
        lambda value: value.update(more=1),
        lambda value: value["slices"][0].update(excess={"tiled": "far"}),
    ],
)
def test_a_damaged_journal_is_refused(spoil: Spoil, tiny, blobs, searching, tmp_path) -> None:
    edit(spoil, tiny, blobs, searching, tmp_path)
    with pytest.raises(UsageError, match="a damaged one"):
        searching(tiny, with_fault(tiny, FAULT), blobs)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda value: value["slices"][1].update(fed=["images"]),
        lambda value: value["slices"][1].update(excess={"images": 3.0}),
    ],
)
def test_a_journal_of_other_slices_is_refused(spoil: Spoil, tiny, blobs, searching, tmp_path) -> None:
    edit(spoil, tiny, blobs, searching, tmp_path)
    with pytest.raises(UsageError, match="other slices"):
        searching(tiny, with_fault(tiny, FAULT), blobs)


@pytest.mark.parametrize(
    "start", [{"tiles": [99]}, {"image_sha256": "0"}, {"budget": "7"}, {"outputs": {}}, {"outputs": {"x": []}}]
)
def test_a_journal_that_begins_elsewhere_is_refused(start: dict, tiny, blobs, searching, tmp_path) -> None:
    edit(lambda value: value["start"].update(start), tiny, blobs, searching, tmp_path)
    with pytest.raises(UsageError, match="does not fit"):
        searching(tiny, with_fault(tiny, FAULT), blobs)


def edit(spoil: Spoil, tiny, blobs, searching, folder: Path) -> None:
    """An unfinished journal with something wrong in it."""
    searching(tiny, with_fault(tiny, FAULT), blobs)
    journal = folder / "found" / "bisect.json"
    value = {**json.loads(journal.read_text()), "verdict": "unfinished", "finding": None}
    spoil(value)
    journal.write_text(json.dumps(value))


def test_a_file_that_is_no_journal_is_refused(tiny, blobs, searching, tmp_path) -> None:
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "bisect.json").write_bytes(b"\xff\x00")
    with pytest.raises(UsageError, match="damaged"):
        searching(tiny, tiny, blobs)
    (tmp_path / "found" / "bisect.json").unlink()
    (tmp_path / "found").rmdir()
    (tmp_path / "found").write_text("")
    with pytest.raises(UsageError, match="not a folder"):
        searching(tiny, tiny, blobs)


def test_models_of_different_kinds_are_refused(tiny, blobs, searching) -> None:
    with pytest.raises(UsageError, match="not the same model: classes"):
        searching(tiny, tiny_proto(tiny_info(classes=2)), blobs)


def test_eight_bits_are_refused(tiny, blobs, searching) -> None:
    candidate = onnx.ModelProto()
    candidate.CopyFrom(tiny)
    for name, value in (("step", np.float32(0.1)), ("zero_point", np.int8(0))):
        candidate.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    candidate.graph.node.append(helper.make_node("QuantizeLinear", ["grey", "step", "zero_point"], ["codes"]))
    with pytest.raises(UsageError, match="does not judge eight bits"):
        searching(tiny, candidate, blobs)


def test_a_reference_that_gives_nan_is_nothing_to_compare_with(tiny, blobs, searching) -> None:
    with pytest.raises(ModelError, match="The reference itself gives NaN or Inf in boxes"):
        searching(with_fault(tiny, TINY["a NaN in a weight"]), tiny, blobs)


def test_where_every_part_agrees_no_node_is_named(tiny, blobs, searching, monkeypatch) -> None:
    """The whole graph differs, as after an optimiser's mistake, and no slice does."""
    run = Whole.run

    def wrong(self: Whole, *arguments):
        outputs = run(self, *arguments)
        return {**outputs, "boxes": outputs["boxes"] + 9} if self.graph.path.name == "1.onnx" else outputs

    monkeypatch.setattr(Whole, "run", wrong)
    found = searching(tiny, tiny, blobs)
    assert found.verdict == "unexplained" and found.finding is None and found.slices


def test_a_slice_of_the_reference_that_fails_is_no_finding(tiny, blobs, searching, monkeypatch) -> None:
    run = Graph.run

    def failing(self: Graph, targets, feeds):
        if self.path.name == "0.onnx":
            raise backend_error(ReasonCode.EXECUTION_FAILED, "the reference fails")
        return run(self, targets, feeds)

    monkeypatch.setattr(Graph, "run", failing)
    with pytest.raises(Exception, match="the reference fails"):
        searching(tiny, with_fault(tiny, FAULT), blobs)


def test_types_of_a_slice(shipped_path) -> None:
    types = Graph(onnx.load(shipped_path), shipped_path).types
    assert types["tile_pack"] == TensorProto.FLOAT and types["tile_ids"] == TensorProto.INT64
