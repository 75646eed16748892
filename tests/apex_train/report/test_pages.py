"""Curves, pictures and the page: drawn from what there is, readable, and nothing of a file's name can break them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.pipeline.annotate import Picture, draw
from apex_train.report import facts
from apex_train.report.curves import panels, write_curves
from apex_train.report.markdown import cell
from apex_train.report.pictures import _joined, _paper

HISTORY = [{"epoch": n, "total": 5.0 / n, "cls": 1.0 / n, "mask_lovasz": 0.0, "alpha": 0.5} for n in (1, 2, 3)]


def test_a_curve_holds_the_numbers_of_the_log() -> None:
    history = [dict(line) for line in HISTORY]
    history[0]["mAP_bbox"], history[2]["mAP_bbox"], history[2]["mAP_bbox_peripheral"] = math.nan, 0.5, 0.25
    history[1]["memory"] = {"allocated": 3 << 30, "peak": None, "micro_batch": 4}
    found = {
        panel.title: {curve.name: (curve.epochs, curve.values) for curve in panel.curves} for panel in panels(history, "mAP_bbox")
    }
    assert found["Loss, total"] == {"train": ((1, 2, 3), (5.0, 2.5, 5.0 / 3))}
    assert list(found["Loss terms"]) == ["cls"], "a loss that is off has no curve"
    assert found["mAP_bbox on val"] == {"all tiles": ((3,), (0.5,)), "no tiles": ((3,), (0.25,))}
    assert found["Memory"] == {"allocated": ((2,), (3.0,))}
    assert "Learning rate" not in found


def test_a_sheet_of_curves_is_a_picture(tmp_path: Path) -> None:
    assert write_curves(HISTORY, "", tmp_path / "report" / "curves.png") == [
        "Loss, total",
        "Loss terms",
        "Alpha: weight of the close look",
    ]
    with Image.open(tmp_path / "report" / "curves.png") as picture:
        assert picture.format == "PNG" and picture.width > 1000 and len(picture.convert("RGB").getcolors(1 << 20)) > 20


def test_without_a_history_there_is_no_file(tmp_path: Path) -> None:
    assert write_curves([], "mAP_segm", tmp_path / "curves.png") == []
    assert write_curves([{"epoch": 1, "total": math.nan}], "", tmp_path / "curves.png") == []
    assert not (tmp_path / "curves.png").exists()


@pytest.mark.parametrize("shape", [(40, 60), (300, 2000), (3000, 200), (900, 900)])
def test_a_picture_has_a_size_for_a_page(shape: tuple[int, int]) -> None:
    paper = _paper(np.zeros((*shape, 3), np.uint8))
    assert 600 <= max(paper.canvas.shape[:2]) <= 1400
    assert paper.canvas.shape[0] == pytest.approx(shape[0] * paper.scale_y, abs=1)


def test_a_shape_without_a_text_leaves_no_label() -> None:
    canvas = np.full((700, 700, 3), 200, np.uint8)
    paper = Picture.of(canvas)
    shape = paper.shape(np.array([300, 300, 340, 340]), RoiMask(300, 300, np.ones((40, 40), np.uint8)), "", 0)
    drawn = draw(paper, [shape], [[0, 0, 700, 700]], "legend")
    assert (drawn[:299, :700] == 200).all(), "nothing above the box"


def test_two_pictures_stand_side_by_side_or_above_each_other() -> None:
    left, right = np.zeros((100, 60, 3), np.uint8), np.zeros((90, 60, 3), np.uint8)
    assert _joined(left, right, beside=True).shape == (100, 130, 3)
    assert _joined(left, right, beside=False).shape == (210, 60, 3)


def test_names_cannot_break_a_table() -> None:
    assert cell("a|b`c*d\n[x](y)<i>") == "a\\|b\\`c\\*d?\\[x\\](y)\\<i\\>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/data/of/me/a.jpg: cannot be read", "a.jpg: cannot be read"),
        ("see '/srv/x/y z.png' and /var/q/", "see 'y z.png' and ..."),
        ("runs/a/best.pt and 3/4 stay", "runs/a/best.pt and 3/4 stay"),
        ("~/data/b.json, /etc/c/d.yaml:3", "b.json, d.yaml:3"),
    ],
)
def test_absolute_paths_lose_their_folders(text: str, expected: str) -> None:
    assert facts.without_paths(text) == expected
