"""The resampled figure must be what pycocotools would say about the resampled images."""

from typing import Any

import numpy as np
import pytest

from apex_runtime.evaluation.bootstrap import average_precision, bootstrap_interval, matches_of, paired_bootstrap
from apex_runtime.evaluation.coco_matching import Backend, run_coco_eval


def crowd_of_boxes(seed: int, noise: float) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """30 images of two classes; detections shifted by ``noise`` pixels, scores all different. The truth is always the same."""
    rng = np.random.default_rng(0)
    shifts = np.random.default_rng(seed)
    truth: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]}
    results = []
    for image_id in range(1, 31):
        truth["images"].append({"id": image_id, "file_name": "", "height": 200, "width": 200})
        for _ in range(int(rng.integers(0, 12))):
            box = [*rng.uniform(0, 150, 2).tolist(), *rng.uniform(15, 50, 2).tolist()]
            kind = int(rng.integers(1, 3))
            number = len(truth["annotations"]) + 1
            truth["annotations"].append({"id": number, "image_id": image_id, "category_id": kind, "bbox": box, "iscrowd": 0})
            moved = (np.array(box) + shifts.normal(0, noise, 4)).tolist()
            results.append({"image_id": image_id, "category_id": kind, "bbox": moved, "score": float(shifts.random())})
    return truth, results


def of_drawn_images(truth: dict[str, Any], results: list[dict[str, Any]], counts: np.ndarray) -> np.ndarray:
    """AP per threshold by pycocotools on a data set in which every drawn image stands as often as it was drawn."""
    drawn: dict[str, Any] = {"images": [], "annotations": [], "categories": truth["categories"]}
    found = []
    for copy, image in enumerate(np.repeat(truth["images"], counts), start=1):
        drawn["images"].append(image | {"id": copy})
        drawn["annotations"] += [e | {"image_id": copy} for e in truth["annotations"] if e["image_id"] == image["id"]]
        found += [e | {"image_id": copy} for e in results if e["image_id"] == image["id"]]
    table = run_coco_eval(drawn, found, "bbox", 100, backend="pycocotools").precision_TRKAM[:, :, :, 0, -1]
    return np.array([row[row > -1].mean() for row in table])


@pytest.mark.parametrize("backend", ["faster-coco-eval", "pycocotools"])
def test_equals_pycocotools_on_resampled_images(backend: Backend) -> None:
    if backend == "faster-coco-eval":
        pytest.importorskip("faster_coco_eval", reason="faster-coco-eval comes with the extra train")
    truth, results = crowd_of_boxes(1, 4.0)
    matches = matches_of(run_coco_eval(truth, results, "bbox", 100, backend=backend))
    rng = np.random.default_rng(5)
    for counts in [np.ones(30, np.int64), *rng.multinomial(30, np.full(30, 1 / 30), size=3)]:
        np.testing.assert_allclose(average_precision(matches, counts), of_drawn_images(truth, results, counts), atol=1e-12)


@pytest.mark.parametrize("figure", ["mAP", "AP50", "AP75"])
def test_the_interval_holds_the_value_and_is_reproducible(figure: str) -> None:
    matches = matches_of(run_coco_eval(*crowd_of_boxes(1, 4.0), "bbox", 100))
    interval = bootstrap_interval(matches, figure, samples=200)
    assert interval.low < interval.value < interval.high
    assert bootstrap_interval(matches, figure, samples=200) == interval
    assert bootstrap_interval(matches, figure, samples=200, seed=1) != interval


def test_pairing_separates_a_real_difference_and_no_difference() -> None:
    truth, good = crowd_of_boxes(1, 2.0)
    _, worse = crowd_of_boxes(1, 5.0)
    first, second, again = (matches_of(run_coco_eval(truth, found, "bbox", 100)) for found in (good, worse, good))
    difference = paired_bootstrap(first, second, samples=200)
    assert difference.high < 0 and difference.low < difference.value < difference.high
    alone = bootstrap_interval(first, samples=200)
    none = paired_bootstrap(first, again, samples=50)
    assert (none.low, none.value, none.high) == (0, 0, 0)
    assert difference.high - difference.low < 2 * (alone.high - alone.low)


def test_other_images_cannot_be_paired() -> None:
    truth, results = crowd_of_boxes(1, 2.0)
    whole = matches_of(run_coco_eval(truth, results, "bbox", 100))
    half = matches_of(run_coco_eval(truth, results, "bbox", 100, range(1, 16)))
    with pytest.raises(ValueError, match="same images"):
        paired_bootstrap(whole, half)


def test_nothing_found_and_nothing_to_find() -> None:
    truth, results = crowd_of_boxes(1, 2.0)
    assert bootstrap_interval(matches_of(run_coco_eval(truth, [], "bbox", 100)), samples=5).high == 0
    empty = matches_of(run_coco_eval(truth | {"annotations": []}, results, "bbox", 100))
    assert np.isnan(average_precision(empty, np.ones(30, np.int64))).all()
