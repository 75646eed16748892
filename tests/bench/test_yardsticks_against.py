"""Two answers are compared as they say, and the document shows what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from yardsticks_against import CASES, compared, total

from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.detections import Detections
from apex_runtime.postprocess.letterbox import Letterbox
from apex_runtime.yardsticks.description import Description

BOXES = np.array([[2, 2, 12, 12], [20, 4, 30, 16], [2, 20, 8, 28]], np.float32)


def drawn(boxes: np.ndarray) -> np.ndarray:
    masks = np.zeros((len(boxes), 32, 40), bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes.astype(int), strict=True):
        mask[top:bottom, left:right] = True
    return masks


def ours(boxes: np.ndarray, scores: list[float], labels: list[int]) -> Detections:
    nothing, kinds = np.zeros(0, np.int64), np.array(labels)
    masks = [RoiMask(0, 0, mask.astype(np.uint8)) for mask in drawn(boxes)]
    scored = np.array(scores, np.float32)
    return Detections(boxes, scored, kinds, kinds + 1, masks, nothing, nothing, 0, Letterbox(32, 40, 32, 40))


def theirs() -> dict[str, np.ndarray]:
    return {"boxes": BOXES, "scores": np.array([0.9, 0.8, 0.7], np.float32), "labels": np.zeros(3), "masks": drawn(BOXES)}


@pytest.mark.parametrize("cut", [True, False])
def test_equal_answers(cut: bool) -> None:
    found = compared(ours(BOXES[::-1].copy(), [0.7, 0.8, 0.9], [0, 0, 0]), theirs(), cut)
    assert (found["theirs"], found["ours"], found["matched"]) == (3, 3, 3)
    assert (found["box_pixels"], found["score"], found["mask_pixels"]) == (0, 0, 0)
    assert found["inner_pixels"] == (8 * 8 + 8 * 10 + 4 * 6 if cut else 3 * 32 * 40)


def test_what_differs_is_counted() -> None:
    moved = BOXES + np.array([[0, 0, 0, 0.25], [0, 0, 0, 0], [9, 0, 9, 0]], np.float32)
    answer = ours(moved, [0.9, 0.75, 0.7], [0, 0, 0])
    bits = answer.masks[1].bits
    bits[8:10, 24:26] = 0
    found = compared(answer, theirs(), True)
    assert found["matched"] == 2 and found["box_pixels"] == 0.25 and found["mask_pixels"] == 4
    assert found["score"] == pytest.approx(0.05)
    assert compared(ours(BOXES, [0.9, 0.8, 0.7], [1, 0, 0]), theirs(), True)["matched"] == 2
    both = total([found, found | {"score": 0.5}])
    assert (both["theirs"], both["matched"], both["score"]) == (6, 4, 0.5)


def test_the_cases_are_descriptions() -> None:
    cases = [case for kind in CASES.values() for case in kind]
    assert len(cases) == 3
    for case in cases:
        Description.model_validate({"title": "t", "model": "m.onnx", "classes": ["a", "b", "c"]} | dict(case.description))


def test_the_document_shows_the_evidence(repo_root: Path) -> None:
    evidence = json.loads((repo_root / "bench" / "evidence" / "yardsticks.json").read_text())
    text = (repo_root / "docs" / "yardsticks.md").read_text()
    for row in evidence["exports"]:
        masks = f"{row['mask_pixels']} of {row['inner_pixels']}"
        cells = (row["name"], row["program"], f"{row['matched']} of {row['theirs']}", f"{row['box_pixels']:.4f} px")
        assert f"| {' | '.join((*cells, format(row['score'], '.1e'), masks))} |" in text
        filled = [image for image in row["images"] if image["size"] == [256, 320]]
        assert row["name"].startswith("RF") or (len(filled) == 4 and sum(image["mask_pixels"] for image in filled) == 0)
    sliced = evidence["slicing"]
    assert f"{sliced['same_windows']} of {sliced['images']} images" in text
    assert f"{sliced['same_ios'] + sliced['same_iou']} of {2 * sliced['sets']} sets" in text
