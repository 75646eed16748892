"""``apex-rt eval``: the figures are those of pycocotools on what infer writes, per budget."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pictures import discs, save
from pycocotools import mask as coco_mask

from apex_runtime.evaluation.coco_ap import evaluate_coco


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six images with one or two discs each, as a COCO set; the data set's id of the class is not the model's."""
    images, annotations = [], []
    rng = np.random.default_rng(5)
    for number in range(1, 7):
        places = [(16 + 32 * int(rng.integers(0, 4)), 16 + 32 * int(rng.integers(0, 4)), 11) for _ in range(1 + number % 2)]
        save(tmp_path / "data" / "images" / f"{number}.png", discs(128, 128, *places))
        images.append({"id": number, "file_name": f"{number}.png", "width": 128, "height": 128})
        for place in dict.fromkeys(places):
            encoded = coco_mask.encode(np.asfortranarray((discs(128, 128, place)[:, :, 0] > 0).astype(np.uint8)))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 3,
                    "bbox": coco_mask.toBbox(encoded).tolist(),
                    "area": int(coco_mask.area(encoded)),
                    "iscrowd": 0,
                    "segmentation": {"size": [128, 128], "counts": encoded["counts"].decode()},
                }
            )
    document = {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "blob"}]}
    (tmp_path / "data" / "annotations").mkdir()
    (tmp_path / "data" / "annotations" / "test.json").write_text(json.dumps(document))
    return tmp_path / "data"


def test_a_row_per_budget_with_the_figures_of_infer(apex_rt, validate, tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    ran = apex_rt(
        "eval",
        tiny_bundle,
        "--data",
        data,
        "--budget",
        "1,0.5",
        "--budget",
        "1.0",
        "--bootstrap",
        "--output",
        tmp_path / "r.json",
    )
    assert ran.code == 0, ran.err
    report = json.loads((tmp_path / "r.json").read_text())
    validate("eval", report)
    rows = {row["budget"]: row for row in report["budgets"]}
    assert list(rows) == ["1", "0.5", "1.0"]
    assert [row["tiles_per_image"] for row in report["budgets"]] == [1, 8, 16]
    assert rows["1.0"]["figures"]["AP50_bbox"] > 0.9
    for budget in rows:
        assert budget in ran.out
    low, high = rows["1.0"]["intervals"]["mAP_bbox"]
    assert low <= rows["1.0"]["figures"]["mAP_bbox"] <= high
    # The same by another road: infer's results.json, its class renamed to the data set's, through the evaluation.
    apex_rt("infer", data / "images", "--engine", tiny_bundle, "-o", tmp_path / "out", "--budget", "1")
    found = json.loads((tmp_path / "out" / "results.json").read_text())["annotations"]
    truth = json.loads((data / "annotations" / "test.json").read_text())
    figures = evaluate_coco(truth, [item | {"category_id": 3} for item in found], max_detections=100)
    assert figures == pytest.approx(rows["1"]["figures"], abs=1e-3)


def test_json_and_repeated_runs(apex_rt, validate, tiny_bundle: Path, data: Path) -> None:
    ran = apex_rt("eval", tiny_bundle, "--data", data, "--budget", "0.5", "--json", "--max-detections", 500)
    report = json.loads(ran.out)
    validate("eval", report)
    assert report["contract"]["max_detections"] == 500 and report["budgets"][0]["intervals"] == {}


def test_wrong_usage(apex_rt, tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    for arguments, code in (
        (["--data", tmp_path / "absent"], 2),
        (["--data", data, "--split", "val"], 2),
        (["--data", data, "--budget", "abc"], 2),
        (["--data", data, "--budget", ","], 2),
        (["--data", data, "--size", "12x"], 2),
        (["--data", data, "--size", "64"], 2),
        ([], 2),
    ):
        ran = apex_rt("eval", tiny_bundle, *arguments)
        assert ran.code == code, arguments
        assert "Traceback" not in ran.err
    (data / "images" / "3.png").unlink()
    ran = apex_rt("eval", tiny_bundle, "--data", data)
    assert ran.code == 1 and "3.png" in ran.err


def test_a_model_of_other_things(apex_rt, tiny_bundle: Path, data: Path) -> None:
    path = data / "annotations" / "test.json"
    path.write_text(path.read_text().replace('"blob"', '"car"'))
    ran = apex_rt("eval", tiny_bundle, "--data", data)
    assert ran.code == 1 and "car" in ran.err and "blob" in ran.err


def test_classes_that_the_model_does_not_know_are_named(apex_rt, tiny_bundle: Path, data: Path) -> None:
    file = data / "annotations" / "test.json"
    document = json.loads(file.read_text())
    document["categories"].append({"id": 9, "name": "unheard"})
    file.write_text(json.dumps(document))
    result = apex_rt("eval", tiny_bundle, "--data", data, "--budget", "1.0")
    assert result.code == 0 and "does not know: unheard" in result.err
