"""What the references refuse, and that they say why."""

from __future__ import annotations

import numpy as np
import pytest

from apex_plugins.decode_nms.reference import decode_boxes, decode_nms
from apex_plugins.tile_pack.reference import tile_pack
from apex_plugins.tile_ssm_scan.reference import tile_ssm_scan
from apex_plugins.tile_unpack_fusion.reference import tile_unpack_fusion

IDS = np.array([[0, 1]], np.int64)
PACK = {"image_BCHW": np.zeros((1, 3, 16, 32)), "ids_BK": IDS, "levels_BK": IDS * 0, "tile": 16, "halo": 8}
SCAN = {
    "x_BKHP": np.zeros((1, 3, 2, 4)),
    "dt_BKH": np.zeros((1, 3, 2)),
    "A_H": np.zeros(2),
    "Bm_BKS": np.zeros((1, 3, 5)),
    "Cm_BKS": np.zeros((1, 3, 5)),
    "D_H": np.zeros(2),
    "reverse": 0,
}
FUSE = {
    "base_BChw": np.zeros((1, 4, 2, 4)),
    "tiles_BKCnn": np.zeros((1, 2, 4, 2, 2)),
    "ids_BK": IDS,
    "levels_BK": IDS * 0,
    "alpha_BK1nn": np.zeros((1, 2, 1, 2, 2)),
    "tile": 16,
}
NMS = {
    "scores_BAC": np.zeros((1, 3, 2)),
    "ltrb_BA4": np.zeros((1, 3, 4)),
    "centres_A2": np.zeros((3, 2)),
    "strides_A": np.array([8.0, 16.0, 32.0]),
    "max_detections": 5,
    "pre_nms": 10,
    "score": 0.1,
    "iou": 0.5,
}
CASES = [
    (tile_pack, PACK, {"image_BCHW": np.zeros((3, 16, 32))}, "image must be"),
    (tile_pack, PACK, {"image_BCHW": np.zeros((1, 3, 16, 33))}, "16x33 is not a multiple of tile 16"),
    (tile_pack, PACK, {"tile": 12}, "multiples of 8"),
    (tile_pack, PACK, {"tile": 0}, "multiples of 8"),
    (tile_pack, PACK, {"halo": 4}, "multiples of 8"),
    (tile_pack, PACK, {"halo": -8}, "multiples of 8"),
    (tile_pack, PACK, {"ids_BK": IDS + 1}, r"0\.\.1, got 1\.\.2"),
    (tile_pack, PACK, {"ids_BK": IDS - 1}, r"0\.\.1, got -1\.\.0"),
    (tile_pack, PACK, {"ids_BK": IDS.astype(np.float32)}, "int64"),
    (tile_pack, PACK, {"levels_BK": IDS}, r"one level of 0\.\.2, got levels \[0, 1\]"),
    (tile_pack, PACK, {"levels_BK": IDS * 0 + 3}, r"one level of 0\.\.2, got levels \[3\]"),
    (tile_pack, PACK, {"levels_BK": IDS * 0 - 1}, r"one level of 0\.\.2, got levels \[-1\]"),
    (tile_pack, PACK, {"levels_BK": IDS[:, :1]}, "must agree"),
    (tile_ssm_scan, SCAN, {"x_BKHP": np.zeros((1, 0, 2, 4))}, "not empty"),
    (tile_ssm_scan, SCAN, {"dt_BKH": np.zeros((1, 3, 1))}, r"dt must have shape \(1, 3, 2\)"),
    (tile_ssm_scan, SCAN, {"A_H": np.zeros(3)}, "A must have shape"),
    (tile_ssm_scan, SCAN, {"D_H": np.zeros(3)}, "D must have shape"),
    (tile_ssm_scan, SCAN, {"Cm_BKS": np.zeros((1, 3, 4))}, "Bm and Cm"),
    (tile_ssm_scan, SCAN, {"dt_BKH": np.full((1, 3, 2), -1.0)}, "dt must be >= 0"),
    (tile_ssm_scan, SCAN, {"dt_BKH": np.full((1, 3, 2), np.nan)}, "dt must be >= 0"),
    (tile_ssm_scan, SCAN, {"reverse": 2}, "reverse must be 0 or 1"),
    (tile_unpack_fusion, FUSE, {"tile": 12}, "multiple of 8"),
    (tile_unpack_fusion, FUSE, {"base_BChw": np.zeros((1, 4, 3, 4))}, "multiples of 2"),
    (tile_unpack_fusion, FUSE, {"ids_BK": IDS * 0}, "same tile twice"),
    (tile_unpack_fusion, FUSE, {"ids_BK": IDS + 5}, r"0\.\.1"),
    (tile_unpack_fusion, FUSE, {"levels_BK": IDS}, "one level"),
    (tile_unpack_fusion, FUSE, {"tiles_BKCnn": np.zeros((1, 2, 3, 2, 2))}, "tiles must be"),
    (tile_unpack_fusion, FUSE, {"alpha_BK1nn": np.zeros((1, 2, 4, 2, 2))}, "alpha"),
    (decode_nms, NMS, {"scores_BAC": np.zeros((1, 3, 0))}, "not empty"),
    (decode_nms, NMS, {"ltrb_BA4": np.zeros((1, 2, 4))}, "ltrb must have shape"),
    (decode_nms, NMS, {"ltrb_BA4": np.full((1, 3, 4), -1.0)}, ">= 0"),
    (decode_nms, NMS, {"scores_BAC": np.full((1, 3, 2), np.nan)}, "finite"),
    (decode_nms, NMS, {"strides_A": np.array([8.0, 16.0, 64.0])}, "strides must be among"),
    (decode_nms, NMS, {"strides_A": np.array([16.0, 8.0, 32.0])}, "ascend"),
    (decode_nms, NMS, {"pre_nms": 334}, r"1\.\.333"),
    (decode_nms, NMS, {"max_detections": 0}, "max_detections must be >= 1"),
    (decode_nms, NMS, {"score": 1.0}, r"\[0, 1\)"),
    (decode_nms, NMS, {"iou": 1.5}, "iou"),
]


@pytest.mark.parametrize("op, good, change, says", CASES)
def test_refuses_and_says_why(op, good, change, says):
    op(**good)
    with pytest.raises(ValueError, match=says):
        op(**good | change)


def test_nms_by_hand():
    """Three boxes of one class: the second overlaps the first (IoU 0.6), the third is apart; a fourth of another class stays."""
    centres = np.array([[5.0, 5.0], [7.5, 5.0], [50.0, 5.0], [5.0, 5.0]])
    ltrb, strides = np.full((1, 4, 4), 5 / 8), np.full(4, 8.0)
    scores = np.array([[[0.9, 0], [0.8, 0], [0.3, 0], [0, 0.4]]])
    options = {"max_detections": 5, "pre_nms": 10, "score": 0.1}
    boxes, best, labels, ids = decode_nms(scores, ltrb, centres, strides, iou=0.5, **options)
    assert ids.tolist() == [[0, 3, 2, -1, -1]] and labels.tolist() == [[0, 1, 0, -1, -1]]
    assert best.tolist() == [[0.9, 0.4, 0.3, 0, 0]]
    assert boxes[0, 0].tolist() == [0, 0, 10, 10] and not boxes[0, 3:].any()
    assert decode_nms(scores, ltrb, centres, strides, iou=0.61, **options)[3].tolist() == [[0, 1, 3, 2, -1]]


def test_box_decode_by_hand():
    boxes = decode_boxes(np.array([[[1.0, 0.5, 2.0, 0.0]]]), np.array([[8.0, 4.0]]), np.array([8.0]))
    assert boxes.tolist() == [[[0.0, 0.0, 24.0, 4.0]]]
