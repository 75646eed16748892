import contextlib
import copy
import io
import json
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.errors import DataError, UsageError
from apex_runtime.evaluation.coco_ap import detection_limit, evaluate_coco, per_class, summarise
from apex_runtime.evaluation.coco_matching import Backend, ImageMatches, run_coco_eval
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
COCOS = {"mAP": "AP", "ARmax": "AR100"}  # where our names differ
NAMES = ("mAP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "ARmax", "ARs", "ARm", "ARl")
BACKENDS: tuple[Backend, ...] = ("faster-coco-eval", "pycocotools")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    if request.param == "faster-coco-eval":
        pytest.importorskip("faster_coco_eval", reason="faster-coco-eval comes with the extra train")
    return request.param


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        pytest.param(name, backend, marks=pytest.mark.slow if "nuclei" in name and backend == "pycocotools" else ())
        for name in CASES
        for backend in BACKENDS
    ],
    indirect=["backend"],
)
def test_published_and_precomputed_figures(name: str, shared_data: Path, backend: Backend) -> None:
    folder = shared_data / "ap-reference"
    case = json.loads((folder / "expected.json").read_text())["cases"][name]
    truth, results = (json.loads((folder / case[key]).read_text()) for key in ("gt", "dt"))
    kind = case["iou_type"]
    evaluation = run_coco_eval(truth, results, kind, 100, backend=backend)
    found = {entry["image_id"] for entry in results}
    part = evaluate_coco(truth, results, (kind,), 100, found, backend)
    for figures, expected in ((summarise(evaluation), case["stats"]), (part, case["stats_only_images_with_detections"])):
        assert figures == {f"{name}_{kind}": pytest.approx(expected[COCOS.get(name, name)], abs=1e-12) for name in NAMES}
    rows = per_class([evaluation], {entry["id"]: entry["name"] for entry in truth["categories"]})
    assert {str(row["category_id"]): row[f"AP_{kind}"] for row in rows} == pytest.approx(case["per_class_AP"], abs=1e-12)


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


def reference(truth: dict[str, Any], results: list[dict[str, Any]], kind: str, limit: int) -> COCOeval:
    """pycocotools as it is, through its own loader."""
    results = copy.deepcopy(results)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        evaluator = COCOeval(coco, coco.loadRes(results), kind)
        evaluator.params.maxDets = [1, min(10, limit), limit]
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("limit", [3, 100])
@pytest.mark.parametrize("seed", range(3))
def test_every_precision_recall_and_match_equals_pycocotools(kind: str, limit: int, seed: int, backend: Backend) -> None:
    truth, results = scene(seed)
    ours, theirs = run_coco_eval(truth, results, kind, limit, backend=backend), reference(truth, results, kind, limit)
    np.testing.assert_allclose(ours.precision_TRKAM, theirs.eval["precision"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.recall_TKAM, theirs.eval["recall"], rtol=0, atol=1e-12)
    assert 0.05 < summarise(ours)[f"mAP_{kind}"] < 0.99, "the scene must be neither trivial nor hopeless"
    images = len(truth["images"])
    blocks = [theirs.evalImgs[start : start + images] for start in range(0, len(theirs.evalImgs), 4 * images)]
    for mine, expected in zip(chain(*ours.matches()), chain(*blocks), strict=True):
        assert_same_matches(mine, expected)


def assert_same_matches(mine: ImageMatches | None, expected: dict[str, Any] | None) -> None:
    assert (mine is None) == (expected is None)
    if mine is not None and expected is not None:
        np.testing.assert_array_equal(mine.scores_D, expected["dtScores"])
        np.testing.assert_array_equal(mine.matched_TD, expected["dtMatches"] > 0)
        np.testing.assert_array_equal(mine.ignored_TD, expected["dtIgnore"])
        np.testing.assert_array_equal(mine.ignored_G, np.asarray(expected["gtIgnore"]) > 0)


def test_without_the_fast_one_the_reference_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, results = scene(0)
    expected = evaluate_coco(truth, results)
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(UsageError, match="faster-coco-eval is not installed"):
        run_coco_eval(truth, results, "bbox", 100, backend="faster-coco-eval")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run_coco_eval(truth, results, "bbox", 100).backend == "pycocotools"
    assert evaluate_coco(truth, results) == pytest.approx(expected, abs=1e-12)


def test_a_limit_below_ten_limits_every_figure(backend: Backend) -> None:
    truth, results = scene(0)
    figures = evaluate_coco(truth, results, ("bbox",), 1, backend=backend)
    assert figures["AR1_bbox"] == figures["AR10_bbox"] == figures["ARmax_bbox"] > 0


def test_classes_without_objects_enter_no_mean_and_have_no_figure(backend: Backend) -> None:
    truth, results = scene(1)
    more = truth | {"categories": [*truth["categories"], {"id": 4, "name": "never"}]}
    strays = [entry | {"category_id": 4} for entry in results[:5]]
    figures = evaluate_coco(truth, results, backend=backend)
    assert evaluate_coco(more, results + strays, backend=backend) == pytest.approx(figures, abs=1e-12)
    kinds = [run_coco_eval(more, results + strays, kind, 100, backend=backend) for kind in ("bbox", "segm")]
    rows = per_class(kinds, {entry["id"]: entry["name"] for entry in more["categories"]})
    assert [row["name"] for row in rows] == ["a", "never", "b"]
    assert rows[1] == {"category_id": 4, "name": "never", "objects": 0} | dict.fromkeys(list(rows[1])[3:])
    assert np.mean([rows[i]["AP_segm"] for i in (0, 2)]) == pytest.approx(figures["mAP_segm"])
    assert [rows[i]["objects"] for i in (0, 2)] == [
        sum(e["category_id"] == category and not e["iscrowd"] for e in truth["annotations"]) for category in (2, 9)
    ]


def test_results_without_boxes_have_the_area_of_their_masks() -> None:
    truth, results = scene(2)
    bare = [{key: value for key, value in entry.items() if key != "bbox"} for entry in results]
    ours = run_coco_eval(truth, bare, "segm", 100).precision_TRKAM
    np.testing.assert_allclose(ours, reference(truth, bare, "segm", 100).eval["precision"], rtol=0, atol=1e-12)


def test_annotation_ids_from_zero_change_nothing(backend: Backend) -> None:
    """Both evaluators take an object with id 0 for none at all."""
    truth, results = scene(1)
    expected = evaluate_coco(truth, results, backend=backend)
    for number, entry in enumerate(truth["annotations"]):
        entry["id"] = number
    assert evaluate_coco(truth, results, backend=backend) == expected


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


def test_nothing_found_is_zero_and_nothing_to_find_is_undefined(backend: Backend) -> None:
    truth, results = scene(3)
    assert set(evaluate_coco(truth, [], backend=backend).values()) <= {0.0, -1.0}
    assert evaluate_coco(truth, [], backend=backend)["mAP_segm"] == 0.0
    assert set(evaluate_coco(truth | {"annotations": []}, results, backend=backend).values()) == {-1.0}
    assert set(evaluate_coco(truth | {"annotations": []}, [], backend=backend).values()) == {-1.0}


def test_the_input_is_left_alone() -> None:
    truth, results = scene(0)
    before = copy.deepcopy((truth, results))
    evaluate_coco(truth, results)
    assert (truth, results) == before


FULL = roi_to_rle(RoiMask(3, 4, np.ones((20, 30), np.uint8)), 120, 150)
BAD = [
    ({"image_id": 77}, "not in the ground truth: image_id 77"),
    ({"category_id": 3}, "not in the ground truth: category_id 3"),
    ({"image_id": "1"}, "result 2: image_id is '1', not an integer"),
    ({"category_id": True}, "category_id is True"),
    ({"category_id": None}, "category_id is None"),
    ({"score": float("nan")}, "score is nan, not a finite number"),
    ({"score": float("inf")}, "score is inf"),
    ({"score": "0.5"}, "score is '0.5'"),
    ({"score": None}, "score is None"),
    ({"bbox": None}, "1 of 2 results have no bbox"),
    ({"bbox": []}, "1 of 2 results have no bbox"),
    ({"bbox": [1, 2, 3]}, "not four finite numbers"),
    ({"bbox": [1, 2, 3, float("nan")]}, "not four finite numbers"),
    ({"bbox": [1, 2, -3, 4]}, "negative size"),
    ({"segmentation": None}, "no segmentation"),
    ({"segmentation": []}, "no segmentation"),
    ({"segmentation": "mask"}, "neither polygons nor an RLE"),
    ({"segmentation": [[1, 2, 3, 4]]}, "no three points"),
    ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "no pairs"),
    ({"segmentation": [[1, 2, 3, 4, 5, float("nan")]]}, "finite numbers"),
    ({"segmentation": FULL | {"size": [150, 120]}}, r"result 2: the RLE has the size \[150, 120\], the image is 150x120"),
    ({"segmentation": {"size": [120, 150], "counts": 5}}, "no counts"),
    ({"segmentation": {"size": [120, 150]}}, "no counts"),
    ({"segmentation": {"size": [120, 150], "counts": [5, 6]}}, "cover 11 pixels"),
    ({"segmentation": {"size": [120, 150], "counts": [-5, 18005]}}, "negative"),
    ({"segmentation": FULL | {"counts": FULL["counts"][:-1]}}, "broken RLE"),
    ({"segmentation": FULL | {"counts": "~~~"}}, "not a compressed COCO run length"),
    ({"segmentation": FULL | {"counts": ""}}, "cover 0 pixels"),
]


@pytest.mark.parametrize(("change", "words"), BAD)
def test_results_that_do_not_fit_are_refused(change: dict[str, Any], words: str) -> None:
    truth, _ = scene(0)
    good = {"image_id": 1, "category_id": 2, "score": 0.5, "bbox": [3, 4, 30, 20], "segmentation": FULL}
    with pytest.raises(DataError, match=words):
        evaluate_coco(truth, [good, good | change])


def test_results_of_every_legal_form_are_taken(backend: Backend) -> None:
    truth, _ = scene(0)
    square = [3, 4, 33, 4, 33, 24, 3, 24]
    counts = coco_mask.frPyObjects([square], 120, 150)[0]["counts"]
    forms = [
        [square],
        FULL,
        FULL | {"counts": counts},
        {"size": (120, 150), "counts": [364, 20] + [100, 20] * 29 + [18000 - 3864]},
    ]
    entry = {"image_id": np.int64(1), "category_id": 2, "score": np.float32(0.5), "bbox": np.array([3, 4, 30, 20])}
    figures = [evaluate_coco(truth, [entry | {"segmentation": form}], ("segm",), backend=backend) for form in forms]
    assert figures[0] == figures[1] == figures[2] == figures[3]
    with pytest.raises(DataError, match="not an object"):
        evaluate_coco(truth, [None])  # type: ignore[list-item]


@pytest.mark.parametrize(("objects", "limit"), [(0, 100), (100, 100), (101, 500), (375, 500), (501, 1000), (5000, 5000)])
def test_the_limit_follows_the_fullest_image(objects: int, limit: int) -> None:
    assert detection_limit({"annotations": [{"image_id": 1}] * objects + [{"image_id": 2}] * (objects // 2)}) == limit
