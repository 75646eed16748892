"""What ``apex-rt inspect`` says, held against counts made by hand and by onnx itself, and against damaged files."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tiny_model import tiny_info, tiny_proto

from apex_runtime.engine_facts import engine_facts
from apex_runtime.errors import ApexError, BundleError, ModelError, UsageError


@pytest.fixture(scope="module")
def nano(repo_root: Path) -> Path:
    return repo_root / "engines" / "nuclei-nano"


@pytest.fixture(scope="module")
def facts(nano: Path) -> dict:
    return engine_facts(nano)


def test_ops_functions_and_weights_are_those_of_the_file(nano: Path, facts: dict, validate) -> None:
    validate("inspect", facts)
    validate("precision", facts["precision"])
    model = onnx.load(nano / "model.onnx")
    text = onnx.printer.to_text(model.graph)
    for item in facts["ops"]:
        name = item["op"] if item["domain"] == "ai.onnx" else f"{item['domain']}.{item['op']}"
        assert len(re.findall(rf"= {re.escape(name)} ?[<(]", text)) == item["count"], name
    assert sum(item["count"] for item in facts["ops"]) == len(model.graph.node)
    calls = Counter(node.op_type for node in model.graph.node if node.domain == "apex")
    assert {item["name"]: item["calls"] for item in facts["functions"]} == dict(calls)
    for function, item in zip(model.functions, facts["functions"], strict=True):
        assert item["nodes"] == len(function.node) == sum(op["count"] for op in item["ops"])
    arrays = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    assert facts["weights"]["numbers"] == sum(array.size for array in arrays)
    assert facts["weights"]["bytes"] == sum(array.nbytes for array in arrays)
    assert facts["opsets"] == {"ai.onnx": 20, "apex": 1}


def test_cost_tiles_classes_and_hashes(nano: Path, facts: dict) -> None:
    manifest = json.loads((nano / "manifest.json").read_text())
    assert facts["file"]["sha256"] == manifest["artefacts"][0]["sha256"]
    assert facts["checkpoint_sha256"] == hashlib.sha256((nano / "checkpoint.pt").read_bytes()).hexdigest()
    assert facts["bundle"]["manifest_sha256"] == hashlib.sha256((nano / "manifest.json").read_bytes()).hexdigest()
    assert facts["bundle"]["backend"] == "ort-cpu" and facts["bundle"]["compute_capabilities"] == []
    assert facts["tiles"]["count"] == 64 and facts["tiles"]["levels"] == [[8, 8, 64]]
    cost = facts["gflops"]
    assert cost["all_tiles"] == pytest.approx(cost["base"] + 64 * cost["per_tile"])
    assert facts["classes"] == manifest["classes"]
    for kind in ("inputs", "outputs"):
        assert [(item["name"], item["dtype"]) for item in facts[kind]] == [
            (item["name"], item["dtype"]) for item in manifest[kind]
        ]
    assert facts["inputs"][0]["shape"] == ["batch", 512, 512, 3]


def test_a_bare_model_says_the_same_about_itself(nano: Path, facts: dict, validate) -> None:
    bare = engine_facts(nano / "model.onnx")
    validate("inspect", bare)
    assert bare["bundle"] is None
    assert {**bare, "bundle": facts["bundle"]} == facts


def test_nodes_in_branches_count(tmp_path: Path) -> None:
    """An If whose branches hold two Identity and a Neg: four nodes beside those of the tiny model."""
    model = tiny_proto(tiny_info())
    before = Counter(node.op_type for node in model.graph.node)

    def branch(name: str, *ops: str) -> onnx.GraphProto:
        words = [f"{name}{index}" for index in range(len(ops) + 1)]
        nodes = [helper.make_node(op, [a], [b]) for op, a, b in zip(ops, ["grey", *words[1:]], words[1:], strict=False)]
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(words[-1], onnx.TensorProto.FLOAT, None)])

    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    either = helper.make_node(
        "If", ["yes"], ["unused"], then_branch=branch("t", "Identity", "Neg"), else_branch=branch("e", "Identity")
    )
    model.graph.node.append(either)
    onnx.save(model, tmp_path / "model.onnx")
    counts = {item["op"]: item["count"] for item in engine_facts(tmp_path / "model.onnx")["ops"]}
    added = {op: counts[op] - before[op] for op in ("If", "Identity", "Neg")}
    assert added == {"If": 1, "Identity": 2, "Neg": 1}


@pytest.mark.parametrize(
    ("name", "content", "error", "words"),
    [
        ("best.pt", b"x", UsageError, "apex-train export"),
        ("gone.onnx", None, UsageError, "no such engine"),
        ("noise.onnx", b"\x00noise" * 10, ModelError, "not an ONNX file"),
        ("empty.onnx", b"", ModelError, "empty"),
        ("folder/readme", b"", BundleError, "not an engine bundle"),
        ("folder/manifest.json", b"{", BundleError, "not a manifest"),
    ],
)
def test_what_is_no_engine_is_refused_with_a_remedy(
    tmp_path: Path, name: str, content: bytes | None, error: type[ApexError], words: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    with pytest.raises(error) as caught:
        engine_facts(path.parent if path.parent != tmp_path else path)
    assert words in str(caught.value) and caught.value.remedy and path.parent.name in caught.value.message


def rehash(bundle: Path, name: str) -> None:
    """Make the manifest agree with a file that was changed."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    data = (bundle / name).read_bytes()
    for item in manifest["artefacts"]:
        if item["path"] == name:
            item |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (bundle / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"profile": "fp32", "nodes": [1]}', '{"profile": 1, "nodes": []}', "[" * 100_000]
)
def test_a_changed_bundle_is_refused_and_a_false_record_too(tiny_bundle: Path, content: str) -> None:
    (tiny_bundle / "precision.json").write_text(content)
    with pytest.raises(BundleError, match="changed after"):
        engine_facts(tiny_bundle)
    rehash(tiny_bundle, "precision.json")
    with pytest.raises(BundleError, match="not a record of precisions"):
        engine_facts(tiny_bundle)


def test_a_graph_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    model = tiny_proto(tiny_info())
    del model.functions[:]
    add = next(node for node in model.graph.node if node.op_type == "Relu")
    add.op_type, add.domain = "SelectionKey", "apex"
    model.functions.append(
        helper.make_function(
            "apex",
            "SelectionKey",
            ["a"],
            ["b"],
            [helper.make_node("SelectionKey", ["a"], ["b"], domain="apex")],
            [helper.make_opsetid("apex", 1)],
        )
    )
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="contradicts itself"):
        engine_facts(tmp_path / "model.onnx")


def test_inspect_prints_it(apex_rt, nano: Path, validate) -> None:
    ran = apex_rt("inspect", nano)
    assert ran.code == 0
    for words in ("model.onnx", "8 x 8 of 64 pixels", "nucleus", "Conv 72", "apex.TilePack", "GFLOPs", "float32", "ort-cpu"):
        assert words in ran.out
    ran = apex_rt("inspect", nano / "model.onnx", "--json")
    validate("inspect", json.loads(ran.out))
    assert apex_rt("inspect", nano / "checkpoint.pt").code == 2
    assert apex_rt("inspect", "").code == 2
