import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.errors import DataError
from apex_runtime.evaluation.coco_ap import detection_limit, evaluate_coco, summarise
from apex_runtime.evaluation.coco_matching import run_coco_eval
from apex_runtime.postprocess.rle import roi_to_rle

CASES = [
    "val2014_fake_bbox",
    "val2014_fake_segm",
    "dataset_bbox",
    "dataset_segm",
    "coco-mini_val_synthetic_bbox",
    "nuclei_val_synthetic_bbox",
    "coco-mini_val_synthetic_segm",
    "nuclei_val_synthetic_segm",
]
NAMES = {"mAP": "AP", "AP50": "AP50", "AP75": "AP75", "APs": "APs", "APm": "APm", "APl": "APl"}


@pytest.mark.parametrize("name", CASES)
def test_published_and_precomputed_figures(name: str, shared_data: Path) -> None:
    folder = shared_data / "ap-reference"
    case = json.loads((folder / "expected.json").read_text())["cases"][name]
    truth, results = (json.loads((folder / case[key]).read_text()) for key in ("gt", "dt"))
    kind = case["iou_type"]
    figures = evaluate_coco(truth, results, (kind,), max_detections=100)
    for ours, theirs in NAMES.items():
        assert figures[f"{ours}_{kind}"] == pytest.approx(case["stats"][theirs], abs=1e-12), ours
    found = {entry["image_id"] for entry in results}
    part = evaluate_coco(truth, results, (kind,), max_detections=100, image_ids=found)
    assert part[f"mAP_{kind}"] == pytest.approx(case["stats_only_images_with_detections"]["AP"], abs=1e-12)


def test_there_are_no_other_cases(shared_data: Path) -> None:
    cases = json.loads((shared_data / "ap-reference" / "expected.json").read_text())["cases"]
    assert sorted(cases) == sorted(CASES)


def scene(seed: int, images: int = 6) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Crowded random boxes with masks, crowds, two classes, small and large objects, ids from 1, and noisy detections of them."""
    rng = np.random.default_rng(seed)
    truth: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 2, "name": "a"}, {"id": 9, "name": "b"}]}
    results = []

    def mask_of(x: int, y: int, w: int, h: int) -> dict[str, Any]:
        bits = (rng.random((h, w)) < 0.97).astype(np.uint8)
        bits[0, 0] = 1
        return roi_to_rle(RoiMask(x, y, bits), 120, 150)

    for image_id in range(1, images + 1):
        truth["images"].append({"id": image_id, "file_name": f"{image_id}.png", "height": 120, "width": 150})
        for _ in range(int(rng.integers(0, 25))):
            w, h = rng.integers(4, rng.choice([20, 60]), 2).tolist()
            x, y = int(rng.integers(0, 150 - w)), int(rng.integers(0, 120 - h))
            category, crowd = int(rng.choice([2, 9])), int(rng.random() < 0.15)
            truth["annotations"].append(
                {
                    "id": len(truth["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": category,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": crowd,
                    "segmentation": mask_of(x, y, w, h),
                }
            )
            for _ in range(int(rng.integers(0, 4))):
                dx, dy = rng.integers(-2, 3, 2).tolist()
                left, top = min(max(x + dx, 0), 150 - w), min(max(y + dy, 0), 120 - h)
                box = {"bbox": [left, top, w, h], "segmentation": mask_of(left, top, w, h)}
                results.append({"image_id": image_id, "category_id": category, "score": round(float(rng.random()), 1)} | box)
    return truth, results


def reference(truth: dict[str, Any], results: list[dict[str, Any]], kind: str, limit: int) -> np.ndarray:
    """pycocotools as it is, through its own loader."""
    results = copy.deepcopy(results)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        evaluator = COCOeval(coco, coco.loadRes(results), kind)
        evaluator.params.maxDets = [1, 10, limit]
        evaluator.evaluate()
        evaluator.accumulate()
    return np.asarray(evaluator.eval["precision"])


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("limit", [5, 100])
@pytest.mark.parametrize("seed", range(4))
def test_every_precision_equals_pycocotools(kind: str, limit: int, seed: int) -> None:
    truth, results = scene(seed)
    ours = run_coco_eval(truth, results, kind, limit).eval["precision"]
    np.testing.assert_array_equal(ours, reference(truth, results, kind, limit))
    assert 0.1 < summarise(run_coco_eval(truth, results, kind, limit))[f"mAP_{kind}"] < 0.99, (
        "the scene must be neither trivial nor hopeless"
    )


def test_results_without_boxes_have_the_area_of_their_masks() -> None:
    truth, results = scene(2)
    bare = [{key: value for key, value in entry.items() if key != "bbox"} for entry in results]
    ours = run_coco_eval(truth, bare, "segm", 100).eval["precision"]
    np.testing.assert_array_equal(ours, reference(truth, bare, "segm", 100))


def test_annotation_ids_from_zero_change_nothing() -> None:
    """pycocotools takes an object with id 0 for none at all."""
    truth, results = scene(1)
    expected = evaluate_coco(truth, results)
    for number, entry in enumerate(truth["annotations"]):
        entry["id"] = number
    assert evaluate_coco(truth, results) == expected


def test_objects_without_a_mask_count_for_boxes_and_are_ignored_for_masks() -> None:
    truth, results = scene(2)
    box_figures = evaluate_coco(truth, results, ("bbox",))
    without = copy.deepcopy(truth)
    victims = [entry for entry in without["annotations"] if entry["category_id"] == 9]
    for entry in victims:
        entry["segmentation"] = []
    assert evaluate_coco(without, results, ("bbox",)) == box_figures
    figures = evaluate_coco(without, [entry for entry in results if entry["category_id"] == 2], ("segm",))
    only = truth | {"annotations": [entry for entry in truth["annotations"] if entry["category_id"] == 2]}
    assert figures == evaluate_coco(only, [entry for entry in results if entry["category_id"] == 2], ("segm",))


def test_nothing_found_is_zero_and_nothing_to_find_is_undefined() -> None:
    truth, results = scene(3)
    assert evaluate_coco(truth, [])["mAP_segm"] == 0.0
    assert evaluate_coco(truth | {"annotations": []}, results)["mAP_segm"] == -1.0


def test_the_input_is_left_alone() -> None:
    truth, results = scene(0)
    before = copy.deepcopy((truth, results))
    evaluate_coco(truth, results)
    assert (truth, results) == before


def test_results_that_do_not_fit_are_refused() -> None:
    truth, results = scene(0)
    with pytest.raises(DataError, match="not in the ground truth"):
        evaluate_coco(truth, [results[0] | {"image_id": 77}])
    with pytest.raises(DataError, match="no segmentation"):
        evaluate_coco(truth, [{key: value for key, value in results[0].items() if key != "segmentation"}])


@pytest.mark.parametrize(("objects", "limit"), [(0, 100), (100, 100), (101, 500), (375, 500), (501, 1000), (5000, 5000)])
def test_the_limit_follows_the_fullest_image(objects: int, limit: int) -> None:
    assert detection_limit({"annotations": [{"image_id": 1}] * objects + [{"image_id": 2}] * (objects // 2)}) == limit
