"""``apex-rt eval``: the figures are those of pycocotools on what infer writes, per budget."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from discs_coco import write_discs

from apex_runtime.evaluation.coco_ap import evaluate_coco


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_discs(tmp_path / "data")


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
    for budget, row in rows.items():
        assert budget in ran.out
        assert row["image_milliseconds"]["median"] > row["graph_milliseconds"]["median"] > 0
        assert 0 < row["images_per_second"] < 1000 / row["graph_milliseconds"]["median"] * 2
        assert 20e6 < row["peak_memory"]["resident_bytes"] < 100e9 and row["peak_memory"]["device_bytes"] is None
        assert row["panoptic"] is None and "panoptic" not in ran.out
        (blob,) = row["per_class"]
        assert blob["name"] == "blob" and blob["objects"] == report["data"]["objects"]
        assert blob["AP_segm"] == pytest.approx(row["figures"]["mAP_segm"])
    assert "blob" not in ran.out, "classes are printed when they are asked for"
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


def test_classes_on_the_terminal(apex_rt, tiny_bundle: Path, data: Path) -> None:
    ran = apex_rt("eval", tiny_bundle, "--data", data, "--budget", "1.0", "--per-class")
    assert "blob" in ran.out and "peak memory" in ran.out


def test_the_panoptic_quality_of_things_where_the_truth_is_panoptic(apex_rt, validate, tiny_bundle: Path, data: Path) -> None:
    ran = apex_rt("eval", tiny_bundle, "--data", data, "--split", "panoptic_test", "--budget", "1.0", "--json")
    report = json.loads(ran.out)
    validate("eval", report)
    assert report["contract"]["panoptic"] == {"min_score": 0.5, "max_overlap": 0.5}
    panoptic = report["budgets"][0]["panoptic"]
    thing, stuff = panoptic["per_class"]
    assert (thing["name"], stuff["name"]) == ("blob", "ground")
    assert thing["matched"] > 0 and panoptic["things"]["pq"] == thing["pq"] > 0.5
    assert (stuff["matched"], stuff["missed"], panoptic["stuff"]["pq"]) == (0, 6, 0)
    assert panoptic["all"]["pq"] == pytest.approx(thing["pq"] / 2) and panoptic["all"]["n"] == 2
    shown = apex_rt("eval", tiny_bundle, "--data", data, "--split", "panoptic_test", "--budget", "1.0").out
    assert "panoptic, things (1 classes)" in shown and "this model predicts no stuff" in shown


def test_wrong_usage(apex_rt, tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    for arguments, code in (
        (["--data", tmp_path / "absent"], 2),
        (["--data", data, "--split", "val"], 2),
        (["--data", data, "--budget", "abc"], 2),
        (["--data", data, "--budget", ","], 2),
        (["--data", data, "--size", "12x"], 2),
        (["--data", data, "--size", "64"], 2),
        (["--data", data, "--predictions", tmp_path / "r.json"], 2),
        (["--data", data, "--png", tmp_path], 2),
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
