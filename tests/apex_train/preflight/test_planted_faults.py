"""One fault is planted into a copy of real data: the report names it by kind, file and line, and names no other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import planted_faults
import pytest
from planted_faults import COCO, SATELLITE, YOLO, Planted, Planter

from apex_runtime.cli.progress import Lines
from apex_runtime.data.findings import Fault
from apex_runtime.data.open import recognise, split_names
from apex_train.preflight.report import relative
from apex_train.preflight.walk import SetReport, Walk

CASES = [
    pytest.param(fixture, planter, id=f"{layout}: {name}")
    for layout, fixture, planters in (
        ("coco", "nuclei_fixture", COCO),
        ("yolo", "nuclei_yolo_fixture", YOLO),
        ("satellite", "nuclei_satellite_fixture", SATELLITE),
    )
    for name, planter in planters.items()
]


def examine(data: Path) -> SetReport:
    kind = recognise(data).kind
    return Walk(2, Lines).check(data, kind, split_names(data, kind))


def errors(report: SetReport) -> list[Planted]:
    return [Planted(each.fault.value, relative(report, each.where.path), each.where.line) for each in report.errors]


@pytest.mark.parametrize("fixture", ["nuclei_fixture", "nuclei_yolo_fixture", "nuclei_satellite_fixture"])
def test_the_copies_are_sound_before(fixture: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    report = examine(planted_faults.copy_of(request.getfixturevalue(fixture), tmp_path / "set"))
    assert errors(report) == [] and sum(len(split.per_image) for split in report.splits) == 8


@pytest.mark.parametrize(("fixture", "plant"), CASES)
def test_a_planted_fault_is_found_and_no_other(
    fixture: str, plant: Planter, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    data = planted_faults.copy_of(request.getfixturevalue(fixture), tmp_path / "set")
    planted = plant(data)
    assert errors(examine(data)) == [planted]


def test_ten_at_once(nuclei_fixture: Path, tmp_path: Path) -> None:
    data = planted_faults.copy_of(nuclei_fixture, tmp_path / "set")
    planted = [plant(data) for plant in COCO.values()]
    found = errors(examine(data))
    assert len(planted) == 10 and sorted(found) == sorted(planted)


def test_a_broken_split_does_not_hide_the_others(nuclei_fixture: Path, tmp_path: Path) -> None:
    data = planted_faults.copy_of(nuclei_fixture, tmp_path / "set")
    (data / "annotations" / "train.json").write_text('{"images": [')
    report = examine(data)
    assert errors(report) == [Planted("malformed", "annotations/train.json", None)]
    assert [split.split for split in report.splits] == ["val"]


def test_splits_with_other_classes(nuclei_fixture: Path, tmp_path: Path) -> None:
    data = planted_faults.copy_of(nuclei_fixture, tmp_path / "set")
    file = data / "annotations" / "val.json"
    file.write_text(file.read_text().replace('"name": "nucleus"', '"name": "cell"'))
    report = examine(data)
    assert errors(report) == [Planted("malformed", "annotations/val.json", None)]
    assert "nucleus (1)" in report.errors[0].message and "cell (1)" in report.errors[0].message


def test_pictures_in_two_sets_are_a_warning(nuclei_fixture: Path, nuclei_satellite_fixture: Path) -> None:
    walk = Walk(2, Lines)
    first = walk.check(nuclei_fixture, "coco", ["train", "val"])
    second = walk.check(nuclei_satellite_fixture, "satellite", ["train"])
    assert not any(each.fault == "duplicate_image" for each in first.findings)
    assert sum(each.fault == "duplicate_image" for each in second.findings) == 8 and second.errors == []


def test_labels_that_are_not_found_are_an_error(nuclei_yolo_fixture: Path, tmp_path: Path) -> None:
    data = shutil.copytree(nuclei_yolo_fixture, tmp_path / "set")
    shutil.rmtree(data / "labels")
    assert errors(examine(data)) == [Planted("no_objects", "data.yaml", None)]


def test_boxes_written_as_corners_are_a_warning(nuclei_fixture: Path, tmp_path: Path) -> None:
    data = shutil.copytree(nuclei_fixture, tmp_path / "set")
    for file in (data / "annotations").glob("*.json"):
        document = json.loads(file.read_text())
        for entry in document["annotations"]:
            x, y, width, height = entry["bbox"]
            entry["bbox"] = [x, y, x + width, y + height]
        file.write_text(json.dumps(document))
    named = {
        path: {each.where for each in examine(path).findings if each.fault == Fault.BOX_MASK_MISMATCH}
        for path in (data, nuclei_fixture)
    }
    assert named[data] and not named[nuclei_fixture]
