"""``apex-rt eval --predictions``: any file of results, by the same code as an engine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from discs_coco import THING, panoptic_annotation, write, write_discs

from apex_runtime.evaluation.coco_ap import evaluate_coco


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_discs(tmp_path / "data")


@pytest.fixture
def results(data: Path) -> list[dict[str, Any]]:
    """The truth with scores, the first one at another place."""
    truth = json.loads((data / "annotations" / "test.json").read_text())["annotations"]
    found = [{key: entry[key] for key in ("image_id", "category_id", "bbox", "segmentation")} for entry in truth]
    found[0] = found[0] | {"bbox": [1, 2, 5, 5]}
    return [entry | {"score": 0.6 + 0.01 * place} for place, entry in enumerate(found)]


@pytest.fixture
def score(apex_rt, validate, data: Path, tmp_path: Path):
    """``score(document)``: the report of a file with this content."""

    def run(document: Any, *options: object, split: str = "test") -> dict[str, Any]:
        write(tmp_path / "r.json", document)
        ran = apex_rt("eval", "--predictions", tmp_path / "r.json", "--data", data, "--split", split, "--json", *options)
        assert ran.code == 0, ran.err
        report = json.loads(ran.out)
        validate("eval", report)
        return report

    return run


def test_a_plain_list(score, data: Path, results: list[dict[str, Any]]) -> None:
    report = score(results, "--bootstrap")
    truth = json.loads((data / "annotations" / "test.json").read_text())
    assert report["scores"]["figures"] == evaluate_coco(truth, results, max_detections=100)
    assert report["scores"]["figures"]["mAP_segm"] == 1 > report["scores"]["figures"]["mAP_bbox"]
    assert set(report["scores"]["intervals"]) == {"mAP_bbox", "AP50_bbox", "mAP_segm", "AP50_segm"}
    assert report["scores"]["detections"] == len(results) and report["contract"]["min_score"] is None
    weaker = score(results, "--min-score", 0.65)
    assert weaker["scores"]["detections"] == len(results) - 5 and weaker["contract"]["min_score"] == 0.65


def test_what_infer_wrote_is_matched_by_names(apex_rt, score, tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    """infer numbers the pictures of a folder its own way; some are not in the split, and one of the split was not predicted."""
    shutil.copy(data / "images" / "1.png", data / "images" / "0.png")
    (data / "images" / "6.png").rename(tmp_path / "6.png")
    apex_rt("infer", data, "--engine", tiny_bundle, "-o", tmp_path / "out", "--budget", "1.0")
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    names = {image["id"]: image["file_name"] for image in document["images"]}
    assert len(names) == 12, "the PNGs of the panoptic truth are pictures too, with the same names"
    (tmp_path / "6.png").rename(data / "images" / "6.png")
    report = score(document)
    inside = {image_id: int(Path(name).stem) for image_id, name in names.items() if name.startswith("images") and "0" not in name}
    kept = [entry for entry in document["annotations"] if entry["image_id"] in inside]
    assert report["predictions"] | {"sha256": ""} == {
        "file_name": "r.json",
        "sha256": "",
        "kind": "coco",
        "left_out": len(document["annotations"]) - len(kept),
        "images_missing": 1,
    }
    truth = json.loads((data / "annotations" / "test.json").read_text())
    moved = [entry | {"image_id": inside[entry["image_id"]], "category_id": THING} for entry in kept]
    expected = evaluate_coco(truth, moved)
    assert report["scores"]["figures"] == expected and expected["AP50_bbox"] > 0.5


def test_no_results_are_zero_and_kinds_without_data_are_left_out(score, results: list[dict[str, Any]]) -> None:
    nothing = score([])["scores"]
    assert nothing["figures"]["mAP_bbox"] == nothing["figures"]["mAP_segm"] == 0 and nothing["per_class"][0]["AP_segm"] == 0
    masks = score([{k: v for k, v in entry.items() if k != "bbox"} for entry in results])["scores"]
    assert masks["figures"]["mAP_segm"] == 1 and "mAP_bbox" not in masks["figures"]
    boxes = score([{k: v for k, v in entry.items() if k != "segmentation"} for entry in results], split="panoptic_test")["scores"]
    assert "mAP_segm" not in boxes["figures"] and boxes["panoptic"] is None


def test_photos_are_not_needed(apex_rt, score, data: Path, tmp_path: Path, results: list[dict[str, Any]]) -> None:
    expected = score(results)["scores"]
    shutil.rmtree(data / "images")
    assert score(results)["scores"] == expected
    alone = apex_rt("eval", "--predictions", tmp_path / "r.json", "--data", data / "annotations" / "test.json", "--per-class")
    assert alone.code == 0 and alone.out.startswith("test: 6 images") and "blob" in alone.out


def test_results_on_panoptic_truth(score, results: list[dict[str, Any]]) -> None:
    panoptic = score(results, split="panoptic_test")["scores"]["panoptic"]
    assert panoptic["things"] == {"pq": 1, "sq": 1, "rq": 1, "n": 1} and panoptic["stuff"]["pq"] == 0


def test_a_panoptic_prediction(apex_rt, score, data: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    halves = np.where(np.arange(128)[:, None] < 64, 1000, 5) * (rng.random((128, 128)) < 2)
    annotations = [panoptic_annotation(tmp_path / "r", number, halves) for number in range(1, 7)]
    report = score({"annotations": annotations}, split="panoptic_test")
    assert report["predictions"]["kind"] == "panoptic" and report["scores"]["figures"] == {}
    assert report["scores"]["detections"] == 12
    assert report["scores"]["panoptic"]["per_class"][0]["false"] == 6
    (tmp_path / "r").rename(tmp_path / "elsewhere")
    assert score({"annotations": annotations}, "--png", tmp_path / "elsewhere", split="panoptic_test") == report
    arguments = ["--predictions", tmp_path / "r.json", "--png", tmp_path / "elsewhere", "--data", data]
    shown = apex_rt("eval", *arguments, "--split", "panoptic_test", "--per-class")
    assert "panoptic, all (2 classes)" in shown.out and "ground" in shown.out
    wrong = apex_rt("eval", *arguments)
    assert wrong.code == 2 and "--split panoptic_test" in wrong.err
    assert apex_rt("eval", *arguments, "--split", "panoptic_test", "--min-score", 0.5).code == 2


BOX = {"image_id": 1, "category_id": THING, "score": 0.5, "bbox": [1, 2, 3, 4]}
IMAGE = {"id": 1, "file_name": "1.png"}
NAMED = {"images": [IMAGE], "annotations": [BOX], "categories": [{"id": THING, "name": "blob"}]}
BAD = {
    "nan": ('[{"image_id": 1, "category_id": 3, "score": NaN, "bbox": [1, 2, 3, 4]}]', "result 1: score is nan"),
    "no json": ("{", "not valid JSON"),
    "no utf-8": (b"\xff\xfe", "not valid JSON"),
    "deep": ("[" * 100_000, "not valid JSON"),
    "number": ("5", "no predictions in it"),
    "object": ("{}", "no predictions in it"),
    "image": ([BOX | {"image_id": 99}], "image_id 99"),
    "category": ([BOX | {"category_id": 99}], "category_id 99"),
    "neither": ([{key: BOX[key] for key in ("image_id", "category_id", "score")}], "none of 1 results has a bbox"),
    "some": ([BOX, BOX | {"bbox": None}], "1 of 2 results have no bbox"),
    "box": ([BOX | {"bbox": 5}], "not four finite numbers"),
    "size": ([BOX | {"segmentation": {"size": [5, 5], "counts": "55"}}], r"RLE has the size [5, 5]"),
    "text": ([3], "result 1: not an object"),
    "other images": (NAMED | {"images": [{"id": 1, "file_name": "a.png"}]}, "none of its images (a.png)"),
    "other classes": (NAMED | {"categories": [{"id": THING, "name": "car"}]}, "known to the predictions (car)"),
    "own image": (NAMED | {"annotations": [BOX | {"image_id": 2}]}, "image_id 2, which is not in the file's own list"),
    "nameless": (NAMED | {"images": [{"id": 1}]}, "an image needs an integer id and a file_name"),
    "bad class": (NAMED | {"categories": [5]}, "a category needs an integer id and a name"),
    "scaled": (NAMED | {"images": [IMAGE | {"width": 64, "height": 64}]}, "was 64x64, the data says 128x128"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_named_and_explained(apex_rt, data: Path, tmp_path: Path, case: str) -> None:
    content, words = BAD[case]
    raw = content if isinstance(content, bytes) else (content if isinstance(content, str) else json.dumps(content)).encode()
    (tmp_path / "r.json").write_bytes(raw)
    ran = apex_rt("eval", "--predictions", tmp_path / "r.json", "--data", data)
    assert ran.code == 1 and words in ran.err and "remedy" in ran.err
    assert ran.out == ""


def test_wrong_usage(apex_rt, data: Path, tmp_path: Path) -> None:
    write(tmp_path / "r.json", [])
    for options in (
        ["--predictions", tmp_path / "absent.json"],
        ["--predictions", tmp_path / "r.json", "--budget", "0.5"],
        ["--predictions", tmp_path / "r.json", "--threads", 2],
        ["--predictions", tmp_path / "r.json", "--png", tmp_path],
        ["--predictions", tmp_path / "r.json", "--split", "nope"],
        ["--predictions", ""],
    ):
        assert apex_rt("eval", "--data", data, *options).code == 2, options
