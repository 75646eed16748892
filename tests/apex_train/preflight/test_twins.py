"""The same picture twice: what it is called depends on where."""

from __future__ import annotations

from pathlib import Path

import pytest

from apex_runtime.data.dataset import ImageRecord
from apex_runtime.data.findings import Location
from apex_train.preflight.twins import Twins


def record(name: str) -> ImageRecord:
    return ImageRecord(1, name, 4, 4, Path(name), Location(Path("a.json"), 7))


@pytest.mark.parametrize(
    ("data", "split", "faults"),
    [
        ("a", "train", ["duplicate_image"]),
        ("a", "val", ["split_overlap"]),
        ("a", "panoptic_train", []),
        ("a", "panoptic_val", ["split_overlap"]),
        ("b", "train", ["duplicate_image"]),
        ("b", "val", ["duplicate_image"]),
    ],
)
def test_the_relation_decides(data: str, split: str, faults: list[str]) -> None:
    twins = Twins()
    assert twins.add("a", "train", record("first.png"), b"same") == []
    assert twins.add("a", "train", record("other.png"), b"other") == []
    found = twins.add(data, split, record("second.png"), b"same")
    assert [each.fault.value for each in found] == faults
    for each in found:
        assert "first.png" in each.message and "second.png" in each.message and each.where.line == 7


def test_each_kind_is_told_once() -> None:
    twins = Twins()
    for data, split in (("a", "train"), ("a", "train"), ("b", "train")):
        twins.add(data, split, record("first.png"), b"same")
    faults = [each.fault.value for each in twins.add("a", "val", record("last.png"), b"same")]
    assert sorted(faults) == ["duplicate_image", "split_overlap"]
