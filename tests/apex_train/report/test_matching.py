"""Claims against objects of one image: equal to pycocotools at IoU 0.5, and the cases one can count by hand."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from apex_runtime.data.dataset import Instances
from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.detections import Detections
from apex_runtime.evaluation.results import detections_to_results
from apex_runtime.postprocess.letterbox import Letterbox
from apex_runtime.postprocess.rle import roi_to_rle
from apex_train.report.matching import match_image
from apex_train.report.pictures import Ranked, choose

SIDE = 64


def letterbox() -> Letterbox:
    from apex_runtime.postprocess.letterbox import letterbox_image

    return letterbox_image(np.zeros((SIDE, SIDE, 3), np.uint8), SIDE, SIDE)[1]


def discs(boxes: np.ndarray) -> list[RoiMask]:
    masks = []
    for x1, y1, x2, y2 in boxes.astype(int):
        rows, cols = np.mgrid[: y2 - y1, : x2 - x1]
        inside = ((rows + 0.5) / (y2 - y1) - 0.5) ** 2 + ((cols + 0.5) / (x2 - x1) - 0.5) ** 2 <= 0.25
        masks.append(RoiMask(int(x1), int(y1), inside.astype(np.uint8)))
    return masks


def truth_of(boxes: list, labels: list | None = None, crowd: list | None = None, masks: bool = True) -> Instances:
    box = np.array(boxes, np.float32).reshape(-1, 4)
    shapes: list = discs(box) if masks else [None] * len(box)
    flags = np.array(crowd if crowd is not None else [False] * len(box), bool)
    areas = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    return Instances(box, np.array(labels or [0] * len(box), np.int64), shapes, flags, areas)


def found_of(boxes: list, labels: list | None = None) -> Detections:
    box = np.array(boxes, np.float32).reshape(-1, 4)
    label = np.array(labels or [0] * len(box), np.int64)
    scores = np.linspace(0.9, 0.4, len(box)).astype(np.float32)
    none = np.zeros(1, np.int64)
    return Detections(box, scores, label, label + 1, discs(box), none, none, 1, letterbox())


def random_boxes(rng: np.random.Generator, count: int) -> list:
    start = rng.integers(0, SIDE - 24, (count, 2))
    return np.concatenate([start, start + rng.integers(6, 24, (count, 2))], axis=1).tolist()


def coco_counts(found: Detections, truth: Instances, by_mask: bool) -> tuple[int, int, int]:
    """Hits, ignored detections and objects by pycocotools at IoU 0.5 over all classes."""
    annotations = [
        {"id": n + 1, "image_id": 1, "category_id": int(truth.labels[n]) + 1, "iscrowd": int(truth.crowd[n])}
        | {"area": float(truth.areas[n]), "segmentation": roi_to_rle(mask, SIDE, SIDE) if mask else None}
        | {"bbox": [float(v) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])]}
        for n, (box, mask) in enumerate(zip(truth.boxes, truth.masks, strict=True))
    ]
    coco = COCO()
    categories = [{"id": n, "name": str(n)} for n in (1, 2)]
    coco.dataset = {"images": [{"id": 1, "height": SIDE, "width": SIDE}], "annotations": annotations, "categories": categories}
    coco.createIndex()
    evaluator = COCOeval(coco, coco.loadRes(detections_to_results(found, 1)), "segm" if by_mask else "bbox")
    evaluator.evaluate()
    images = [image for image in evaluator.evalImgs if image is not None and image["aRng"] == [0, 1e10]]
    ignored = sum(int(image["dtIgnore"][0].sum()) for image in images)
    hits = sum(int(((image["dtMatches"][0] > 0) & ~image["dtIgnore"][0].astype(bool)).sum()) for image in images)
    return hits, ignored, sum(int((image["gtIgnore"] == 0).sum()) for image in images)


@pytest.mark.parametrize("by_mask", [False, True])
def test_it_matches_as_pycocotools_does(by_mask: bool) -> None:
    rng = np.random.default_rng(5)
    seen = 0
    for _ in range(40):
        boxes = random_boxes(rng, 8)
        crowd = (rng.random(8) < 0.2).tolist()
        truth = truth_of(boxes, rng.integers(0, 2, 8).tolist(), crowd)
        near = np.clip(np.array(boxes) + rng.integers(-3, 4, (8, 4)), 0, SIDE)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 4)
        found = found_of(near.tolist() + random_boxes(rng, 4), rng.integers(0, 2, 12).tolist())
        match = match_image(found, truth, {0: 0, 1: 1}, by_mask)
        assert (match.hits, int(match.ignored.sum()), match.objects) == coco_counts(found, truth, by_mask)
        seen += match.hits
    assert seen > 40


@pytest.mark.parametrize(
    ("found", "truth", "expected"),
    [
        ([], [], 1.0),
        ([], [[0, 0, 10, 10]], 0.0),
        ([[0, 0, 10, 10]], [], 0.0),
        ([[0, 0, 10, 10]], [[0, 0, 10, 10]], 1.0),
        ([[0, 0, 10, 10], [1, 0, 11, 10]], [[0, 0, 10, 10]], 2 / 3),  # the second claim of one object is wrong
        ([[0, 0, 10, 10]], [[0, 0, 10, 10], [30, 30, 40, 40]], 2 / 3),
    ],
)
def test_f1_by_hand(found: list, truth: list, expected: float) -> None:
    assert match_image(found_of(found), truth_of(truth), {0: 0}, by_mask=True).f1 == pytest.approx(expected)


def test_a_class_of_the_model_that_the_set_lacks_is_wrong() -> None:
    match = match_image(found_of([[0, 0, 10, 10]], [1]), truth_of([[0, 0, 10, 10]]), {0: 0}, by_mask=False)
    assert (match.hits, match.false, match.objects) == (0, 1, 1)


def test_crowds_and_objects_without_a_mask_count_neither_way() -> None:
    crowd = match_image(found_of([[0, 0, 10, 10]]), truth_of([[0, 0, 20, 20]], crowd=[True]), {0: 0}, by_mask=True)
    without = match_image(found_of([[0, 0, 10, 10]]), truth_of([[0, 0, 10, 10]], masks=False), {0: 0}, by_mask=True)
    for match in (crowd, without):
        assert (match.hits, match.false, match.objects, match.f1) == (0, 0, 0, 1.0)


def ranked(index: int, f1: float, objects: int = 5, false: int = 0) -> Ranked:
    return Ranked(index, f"{index}.jpg", objects, round(f1 * objects), false, f1)


def test_best_and_worst_share_no_image() -> None:
    for count in range(1, 9):
        best, worst = choose([ranked(n, n / 10) for n in range(count)])
        assert len(best) == min(3, (count + 1) // 2) and len(worst) == min(3, count - len(best))
        assert not {item.index for item in best} & {item.index for item in worst}
        if worst:
            assert worst[0].index == 0 and best[0].index == count - 1


def test_of_equal_images_those_with_more_in_them_are_shown() -> None:
    images = [ranked(0, 1.0, 2), ranked(1, 1.0, 9), ranked(2, 0.0, 3), ranked(3, 0.0, 3, false=4)]
    best, worst = choose(images)
    assert [item.index for item in best] == [1, 0] and [item.index for item in worst] == [3, 2]
