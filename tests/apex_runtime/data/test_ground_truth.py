"""The truth that the evaluators get, against pycocotools on the file as it lies on disk: crowds, boxes without masks."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from apex_runtime.data.ground_truth import coco_document
from apex_runtime.data.open import open_dataset
from apex_runtime.evaluation.coco_ap import evaluate_coco

SIDE = 64
LIMIT = 100


def rle(x: int, y: int, w: int, h: int) -> dict[str, Any]:
    bits = np.zeros((SIDE, SIDE), np.uint8)
    bits[y : y + h, x : x + w] = 1
    encoded = coco_mask.encode(np.asfortranarray(bits))
    return {"size": [SIDE, SIDE], "counts": encoded["counts"].decode()}


def scene(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Three images with two classes, objects on a grid, one crowd each; detections of most objects, several in the crowds."""
    rng = np.random.default_rng(seed)
    images = [{"id": n, "file_name": f"{n}.png", "width": SIDE, "height": SIDE} for n in (4, 9, 2)]
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image in images:
        for x, y in [(2, 2), (22, 2), (42, 2), (2, 42)]:
            box = [x, y, *rng.integers(6, 18, 2).tolist()]
            category = int(rng.integers(1, 3))
            about = {"id": len(truth) + 1, "image_id": image["id"], "category_id": category, "iscrowd": 0}
            truth.append({**about, "bbox": box, "segmentation": rle(*box), "area": box[2] * box[3]})
            shifted = [x + int(rng.integers(0, 3)), y + int(rng.integers(0, 3)), *box[2:]]
            found.append(
                detection(image["id"], int(rng.integers(1, 3)) if rng.random() < 0.2 else category, shifted, rng.random())
            )
        crowd = [22, 22, 40, 40]
        about = {"id": len(truth) + 1, "image_id": image["id"], "category_id": 1, "iscrowd": 1}
        truth.append(
            {**about, "bbox": crowd, "segmentation": {"size": [SIDE, SIDE], "counts": uncompressed(crowd)}, "area": 1600}
        )
        for _ in range(4):  # wholly in the crowd, of its class and of the other
            place = [*rng.integers(24, 50, 2).tolist(), 10, 10]
            found.append(detection(image["id"], int(rng.integers(1, 3)), place, 0.5 + rng.random() / 2))
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    return {"images": images, "annotations": truth, "categories": categories}, found


def uncompressed(box: list[int]) -> list[int]:
    bits = np.zeros((SIDE, SIDE), np.uint8)
    bits[box[1] : box[1] + box[3], box[0] : box[0] + box[2]] = 1
    flat = bits.T.reshape(-1)
    edges = np.flatnonzero(np.diff(flat)) + 1
    return np.diff([0, *edges.tolist(), flat.size]).tolist()


def detection(image_id: int, category_id: int, box: list[int], score: float) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": category_id, "bbox": box, "segmentation": rle(*box), "score": float(score)}


def reference(file: Path, found: list[dict[str, Any]], iou_type: str) -> float:
    """mAP by pycocotools itself on the file itself."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(file))
        evaluator = COCOeval(truth, truth.loadRes([dict(entry) for entry in found]), iou_type)
        evaluator.params.maxDets = [1, 10, LIMIT]
        evaluator.evaluate()
        evaluator.accumulate()
    table = evaluator.eval["precision"][:, :, :, 0, -1]
    return float(table[table > -1].mean())


def save(folder: Path, document: dict[str, Any]) -> Path:
    (folder / "images").mkdir()
    for image in document["images"]:
        cv2.imwrite(str(folder / "images" / image["file_name"]), np.zeros((SIDE, SIDE, 3), np.uint8))
    file = folder / "val.json"
    file.write_text(json.dumps(document))
    return file


@pytest.mark.parametrize("seed", range(3))
def test_crowds_are_ignored_as_pycocotools_ignores_them(seed: int, tmp_path: Path) -> None:
    document, found = scene(seed)
    file = save(tmp_path, document)
    dataset = open_dataset(tmp_path, "val")
    assert sum(int(dataset.instances(index).crowd.sum()) for index in range(3)) == 3
    for truth in (dataset.ground_truth(), coco_document(dataset)):
        figures = evaluate_coco(truth, found, max_detections=LIMIT)
        for iou_type in ("bbox", "segm"):
            assert figures[f"mAP_{iou_type}"] == pytest.approx(reference(file, found, iou_type), abs=1e-12)
    counted = [{**entry, "iscrowd": 0} for entry in dataset.ground_truth()["annotations"]]
    without = evaluate_coco({**dataset.ground_truth(), "annotations": counted}, found, max_detections=LIMIT)
    assert without["mAP_segm"] < figures["mAP_segm"] - 0.01  # so the crowds do matter here


def test_a_set_of_boxes_has_no_figure_for_masks_and_its_own_for_boxes(tmp_path: Path) -> None:
    document, found = scene(0)
    for entry in document["annotations"]:
        entry["segmentation"] = []
    file = save(tmp_path, document)
    dataset = open_dataset(tmp_path, "val")
    for truth in (dataset.ground_truth(), coco_document(dataset)):
        figures = evaluate_coco(truth, found, max_detections=LIMIT)
        assert figures["mAP_segm"] == figures["AP50_segm"] == -1
        assert figures["mAP_bbox"] == pytest.approx(reference(file, found, "bbox"), abs=1e-12)


def test_an_object_without_a_mask_counts_neither_way_among_masks(tmp_path: Path) -> None:
    """Mask figures are those of a set in which it is absent with what is found on it; box figures count it."""
    document, found = scene(1)
    bare = document["annotations"][0]
    bare["segmentation"] = []
    save(tmp_path, document)
    truth = open_dataset(tmp_path, "val").ground_truth()
    inside = detection(bare["image_id"], bare["category_id"], bare["bbox"], 0.99)
    first = found.pop(0)
    assert first["image_id"] == bare["image_id"]
    alone = {**truth, "annotations": truth["annotations"][1:]}
    assert evaluate_coco(truth, [inside, *found], ["segm"]) == evaluate_coco(alone, found, ["segm"])
    with_box, without_box = evaluate_coco(truth, [inside, *found], ["bbox"]), evaluate_coco(truth, found, ["bbox"])
    assert with_box["mAP_bbox"] > without_box["mAP_bbox"]


def test_what_is_left_out_of_training_is_left_out_of_the_truth(tmp_path: Path) -> None:
    document, found = scene(2)
    clean = json.loads(json.dumps(document))
    number = len(document["annotations"])
    about = {"image_id": 4, "category_id": 1, "iscrowd": 0, "area": 9, "bbox": [50, 50, 3, 3]}
    empty = {"size": [SIDE, SIDE], "counts": [SIDE * SIDE]}
    line = [[1, 1, 5, 5, 9, 9]]
    for segmentation in (empty, line):
        number += 1
        document["annotations"].append({**about, "id": number, "segmentation": segmentation})
    document["annotations"].append({**about, "id": number + 1, "bbox": [99, 99, 3, 3], "segmentation": []})
    save(tmp_path, document)
    dataset = open_dataset(tmp_path, "val")
    for truth in (dataset.ground_truth(), coco_document(dataset)):
        assert len(truth["annotations"]) == len(clean["annotations"])
        assert evaluate_coco(truth, found) == pytest.approx(evaluate_coco(clean, found), abs=1e-12)


def test_a_real_set_with_crowds(shared_data: Path) -> None:
    folder = shared_data / "coco-mini"
    dataset = open_dataset(folder, "val", "coco")
    found = json.loads((shared_data / "ap-reference" / "coco-mini_val_synthetic_dt.json").read_text())
    crowds = [entry for entry in dataset.ground_truth()["annotations"] if entry.get("iscrowd")]
    assert crowds
    for entry in crowds:
        sides = entry["segmentation"]["size"]
        x, y, w, h = (int(value) for value in entry["bbox"])
        bits = np.zeros(sides, np.uint8)
        bits[y : y + h, x : x + w] = coco_mask.decode(coco_mask.frPyObjects(entry["segmentation"], *sides))[y : y + h, x : x + w]
        counts = coco_mask.encode(np.asfortranarray(bits))["counts"].decode()
        inside = {"image_id": entry["image_id"], "category_id": entry["category_id"], "bbox": [x, y, w, h], "score": 0.999}
        found.append({**inside, "segmentation": {"size": sides, "counts": counts}})
    for truth in (dataset.ground_truth(), coco_document(dataset)):
        figures = evaluate_coco(truth, found, max_detections=LIMIT)
        for iou_type in ("bbox", "segm"):
            expected = reference(folder / "annotations" / "val.json", found, iou_type)
            assert figures[f"mAP_{iou_type}"] == pytest.approx(expected, abs=1e-12)
