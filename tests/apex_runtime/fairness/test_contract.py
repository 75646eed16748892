"""The contract: equal means equal in every field, and a hash of it says so."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from contracts import made_contract
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tiny_model import tiny_info, tiny_proto

from apex_runtime.bundle.load import open_engine
from apex_runtime.fairness.contract import Contract, Hardware, differences, images_sha256, of_engine
from apex_runtime.model_info import Decode

OTHER: dict[str, Any] = {
    "data": "2" * 64,
    "split": "val",
    "images": 7,
    "input": (512, 640),
    "image_policy": "stretch",
    "min_score": 0.05,
    "max_detections": 300,
    "postprocessing": "NMS 0.7",
    "evaluator": "another",
    "precision": "int8",
    "batch": 4,
    "threads": None,
    "device": "cuda:0",
    "timed": "two calls",
    "hardware": Hardware(processor="a processor", usable_cpus=4, gpus=()),
    "versions": {"numpy": "2.1", "onnxruntime": "1.22"},
}


def test_every_field_is_tried() -> None:
    assert set(OTHER) | {"format_version"} == set(Contract.model_fields)


@pytest.mark.parametrize("field", OTHER)
def test_a_change_of_any_field_is_another_contract_and_is_named(field: str) -> None:
    first, second = made_contract(), made_contract(**{field: OTHER[field]})
    assert first.sha256() != second.sha256()
    found = differences(first, second)
    assert {name.partition(".")[0] for name in found} == {field}
    assert differences(first, second, across=[field]) == {}
    assert differences(second, first) == {name: (b, a) for name, (a, b) in found.items()}


@given(st.sets(st.sampled_from(sorted(OTHER))))
def test_what_differs_is_all_that_was_changed_and_nothing_else(fields: set[str]) -> None:
    first, second = made_contract(), made_contract(**{name: OTHER[name] for name in fields})
    assert {name.partition(".")[0] for name in differences(first, second)} == fields
    assert (first.sha256() == second.sha256()) == (not fields)


def test_a_library_that_only_one_has_is_a_difference() -> None:
    more = made_contract(versions={"numpy": "2.0", "onnxruntime": "1.22", "torch": "2.13"})
    assert differences(made_contract(), more) == {"versions.torch": (None, "2.13")}
    assert differences(made_contract(), more, across=["versions.torch"]) == {}


def test_the_hash_survives_a_file_and_is_that_of_its_canonical_json() -> None:
    contract = made_contract()
    text = json.dumps(contract.model_dump(mode="json"), indent=3)
    assert Contract.model_validate_json(text).sha256() == contract.sha256()
    keys = json.loads(text)
    canonical = (
        "{"
        + ",".join(f"{json.dumps(key)}:{json.dumps(keys[key], sort_keys=True, separators=(',', ':'))}" for key in sorted(keys))
        + "}"
    )
    assert hashlib.sha256(canonical.encode()).hexdigest() == contract.sha256()


@pytest.mark.parametrize(
    "changed",
    [{"data": "1"}, {"images": 0}, {"min_score": 2.0}, {"batch": 0}, {"precision": ""}, {"extra": 1}, {"format_version": 2}],
)
def test_nonsense_is_no_contract(changed: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        made_contract(**changed)


def test_images_are_their_contents_in_their_order(tmp_path: Path) -> None:
    one, two = tmp_path / "a", tmp_path / "b"
    one.write_bytes(b"x")
    two.write_bytes(b"y")
    assert images_sha256([one, two]) != images_sha256([two, one])
    renamed = tmp_path / "c"
    renamed.write_bytes(b"x")
    assert images_sha256([one, two]) == images_sha256([renamed, two])


@pytest.mark.parametrize(("decode", "said"), [("topk", "no suppression"), ("nms", "NMS in the graph (IoU 0.6")])
def test_an_engine_says_how_its_graph_ends(decode: Decode, said: str, tmp_path: Path) -> None:
    onnx.save(tiny_proto(tiny_info().model_copy(update={"decode": decode})), tmp_path / "model.onnx")
    terms = {"data": "1" * 64, "images": 3, "split": "val", "min_score": 0.001, "max_detections": 100, "evaluator": "a"}
    terms |= {"precision": "fp32", "batch": 1, "threads": 1, "timed": None}
    assert of_engine(open_engine(tmp_path / "model.onnx", 1), **terms).postprocessing.startswith(said)
