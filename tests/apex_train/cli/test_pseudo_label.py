"""``apex-train pseudo-label`` as a person types it: a file that a training opens, its provenance, the truth."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator
from pycocotools import mask as coco_mask
from tiny_model import write_tiny_model

from apex_runtime.data.open import open_dataset
from apex_train.cli.main import main

LIMITS = ["--min-score", 0.3, "--min-stability", 0.2, "--min-agreement", 0.3, "--min-consistency", 0.1, "--threads", 1]


def pseudo_label(*words: object) -> Result:
    return CliRunner().invoke(main, ["pseudo-label", *(str(word) for word in words)])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "tiny.onnx")


@pytest.fixture
def one_class(tmp_path: Path, nuclei_fixture: Path) -> Path:
    """The nuclei under the name by which the tiny model knows what is bright."""
    data = shutil.copytree(nuclei_fixture, tmp_path / "set")
    for file in (data / "annotations").glob("*.json"):
        file.write_text(file.read_text().replace('"nucleus"', '"blob"'))
    return data


def test_images_without_truth(model: Path, nuclei_fixture: Path, tmp_path: Path) -> None:
    data = tmp_path / "pseudo"
    images = shutil.copytree(nuclei_fixture / "images", data / "images")
    file = data / "annotations" / "train.json"
    result = pseudo_label(images, "--engine", model, "-o", file, *LIMITS)
    assert result.exit_code == 0, result.output
    document = json.loads(file.read_text())
    said = document["info"]["apex_x"]
    assert said["model"]["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest() and said["limits"]["stability"] == 0.2
    for image in document["images"]:
        assert image["sha256"] == hashlib.sha256((images / image["file_name"]).read_bytes()).hexdigest()
    labels = [entry for entry in document["annotations"] if not entry["iscrowd"]]
    unsure = [entry for entry in document["annotations"] if entry["iscrowd"]]
    assert len(labels) > 3 and len(unsure) > 3
    for entry in labels:
        assert entry["score"] >= 0.3 and entry["quality"]["stability"] >= 0.2 and entry["weight"] == entry["score"]
    assert all("weight" not in entry for entry in unsure)
    for entry in document["annotations"]:
        assert entry["area"] == coco_mask.area(entry["segmentation"]) > 0
    dataset = open_dataset(data, "train", "coco")
    assert not any(finding.fault.is_error for finding in dataset.findings)
    assert sum(int((~dataset.instances(index).crowd).sum()) for index in range(len(dataset))) == len(labels)
    assert f"{len(labels)} labels and {len(unsure)} unsure regions in 8 images" in result.stdout


def test_the_report_on_a_split_with_truth(model: Path, one_class: Path, tmp_path: Path, repo_root: Path) -> None:
    words = [
        one_class,
        "--split",
        "val",
        "--engine",
        model,
        "-o",
        tmp_path / "l.json",
        "--unsure",
        "background",
        *LIMITS,
        "--json",
    ]
    result = pseudo_label(*words, "--report", tmp_path / "report.json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report == json.loads((tmp_path / "report.json").read_text())
    schema = json.loads((repo_root / "apex_runtime" / "schemas" / "pseudo-label.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(report)
    document, truth = json.loads((tmp_path / "l.json").read_text()), open_dataset(one_class, "val", "coco").ground_truth()
    assert report["unsure"] == 0 and len(document["annotations"]) == report["labels"] == report["steps"][-1]["left"]
    assert report["truth"]["steps"][-1]["labels"] == report["labels"] and report["truth"]["objects"] == len(truth["annotations"])
    assert report["truth"]["steps"][-1]["hits"] == sum(hits(document, truth, image["id"]) for image in truth["images"])
    assert document["categories"] == [{"id": each["id"], "name": each["name"]} for each in truth["categories"]]


def test_limits_are_chosen_on_a_split(
    model: Path, one_class: Path, nuclei_fixture: Path, tmp_path: Path, repo_root: Path
) -> None:
    chosen = ["--calibrate", "val", "--calibrate-data", one_class, "--precision", 0.5, "--views", "flip-x", "--threads", 1]
    result = pseudo_label(nuclei_fixture / "images", "--engine", model, "-o", tmp_path / "l.json", *chosen, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    schema = json.loads((repo_root / "apex_runtime" / "schemas" / "pseudo-label.schema.json").read_text())
    Draft202012Validator(schema).validate(report)
    found = report["calibration"]
    assert found["split"] == "val" and found["wanted"] == 0.5 <= found["precision"]["value"]
    words = [f"--min-{name}={report['limits'][name]}" for name in ("score", "stability", "agreement", "consistency")]
    again = [one_class, "--split", "val", "--engine", model, "--views", "flip-x", "--threads", 1, *words, "--json"]
    measured = json.loads(pseudo_label(*again, "-o", tmp_path / "val.json").stdout)["truth"]["steps"][1]
    assert measured["hits"] >= found["labels"] * found["precision"]["value"] - 1, (
        "a view counts half of the score there, and less here"
    )
    both = pseudo_label(nuclei_fixture / "images", "--engine", model, "-o", tmp_path / "l.json", *chosen, "--min-score", 0.5)
    assert both.exit_code == 2 and "--calibrate and --min-score" in both.output
    lonely = pseudo_label(nuclei_fixture / "images", "--engine", model, "-o", tmp_path / "l.json", "--precision", 0.5)
    assert lonely.exit_code == 2 and "--precision is for --calibrate" in lonely.output


def hits(document: dict, truth: dict, image_id: int) -> int:
    """Labels that overlap an object not yet taken by IoU 0.5, best score first."""
    labels = sorted((e for e in document["annotations"] if e["image_id"] == image_id), key=lambda entry: -entry["score"])
    objects = [entry["segmentation"] for entry in truth["annotations"] if entry["image_id"] == image_id]
    if not labels or not objects:
        return 0
    iou = coco_mask.iou([entry["segmentation"] for entry in labels], objects, [0] * len(objects))
    count = 0
    for row in range(len(labels)):
        best = iou[row].argmax()
        if iou[row, best] >= 0.5:
            count, iou[:, best] = count + 1, 0
    return count


def test_an_unreadable_image_is_named_and_the_others_are_labelled(model: Path, nuclei_fixture: Path, tmp_path: Path) -> None:
    images = shutil.copytree(nuclei_fixture / "images", tmp_path / "images")
    (images / "broken.png").write_bytes(b"no picture")
    result = pseudo_label(images, "--engine", model, "-o", tmp_path / "l.json", "--views", "none")
    assert result.exit_code == 1 and "failed: broken.png" in result.stdout
    assert len(json.loads((tmp_path / "l.json").read_text())["images"]) == 8


def test_wrong_usage(model: Path, nuclei_fixture: Path, tmp_path: Path) -> None:
    out = ["--engine", model, "-o", tmp_path / "l.json"]
    for words, said in (
        (["--views", "sideways"], "--views sideways"),
        (["--min-score", 0.2, "--unsure-score", 0.3], "--unsure-score"),
        (["--dataset-type", "coco"], "--dataset-type"),
        (["--min-score", "nan"], "--min-score"),
    ):
        result = pseudo_label(nuclei_fixture / "images", *out, *words)
        assert result.exit_code == 2 and said in result.output
    over = pseudo_label(nuclei_fixture / "images", "--engine", model, "-o", model)
    assert over.exit_code == 2 and "it is what is read" in over.output
    data = shutil.copytree(nuclei_fixture, tmp_path / "set")
    truth = data / "annotations" / "val.json"
    image = data / "images" / json.loads(truth.read_text())["images"][0]["file_name"]
    whole = truth.read_bytes(), image.read_bytes()
    for place in (truth, image):
        over = pseudo_label(data, "--split", "val", "--calibrate", "train", "--engine", model, "-o", place)
        assert over.exit_code == 2 and "it is what is read" in over.output
    calibrated = pseudo_label(data / "images", "--calibrate", "val", "--calibrate-data", data, "--engine", model, "-o", truth)
    assert calibrated.exit_code == 2 and (truth.read_bytes(), image.read_bytes()) == whole
    unknown = pseudo_label(nuclei_fixture, "--split", "val", *out)
    assert unknown.exit_code == 1 and "none of its classes" in unknown.output and not (tmp_path / "l.json").exists()
