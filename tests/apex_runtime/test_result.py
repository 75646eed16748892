"""A result says what results.json says, and turns into what other tools take."""

from __future__ import annotations

import builtins
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import discs, save
from pycocotools import mask as coco_mask

import apex_runtime
from apex_runtime.data.image import decode_image
from apex_runtime.errors import ImageError, UsageError


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return save(tmp_path / "images" / "a.png", discs(96, 160, (30, 30, 12), (110, 60, 14)))


@pytest.fixture
def result(tiny_onnx: Path, picture: Path) -> apex_runtime.Result:
    return apex_runtime.load(tiny_onnx, threads=1).predict_one(picture, budget=5, min_score=0.001)


def test_it_is_what_infer_writes(result: apex_runtime.Result, apex_rt: Callable, tiny_onnx: Path, picture: Path) -> None:
    out = picture.parents[1] / "out"
    ran = apex_rt("infer", picture, "--engine", tiny_onnx, "--budget", "5", "-o", out, "--threads", "1")
    assert ran.code == 0
    written = json.loads((out / "results.json").read_text())
    (image,) = written["images"]
    assert [{"id": t.id, "level": t.level, "bbox": list(t.bbox)} for t in result.tiles] == image["tiles"]
    budget = result.budget
    assert {"asked": budget.asked, "tiles": budget.tiles, "spent": budget.spent} == image["budget"]
    assert (image["height"], image["width"]) == result.shape
    mine = result.to_coco(image["id"])
    assert len(mine) == len(written["annotations"]) > 3
    for record, annotation in zip(mine, written["annotations"], strict=True):
        assert record == {key: annotation[key] for key in record} and {"bbox", "segmentation", "score"} <= set(record)


def test_full_masks_are_those_of_pycocotools(result: apex_runtime.Result) -> None:
    full = result.masks_full()
    assert full.dtype == bool and full.shape == (len(result), *result.shape)
    decoded = np.stack([coco_mask.decode(record["segmentation"]) for record in result.to_coco(1)])
    np.testing.assert_array_equal(full, decoded.astype(bool))
    assert len({plane.tobytes() for plane in full}) > 2


def test_full_masks_have_a_limit(result: apex_runtime.Result) -> None:
    height, width = result.shape
    needed = len(result) * height * width
    assert result.masks_full(max_bytes=needed).nbytes == needed
    with pytest.raises(UsageError, match=f"{needed} bytes") as caught:
        result.masks_full(max_bytes=needed - 1)
    assert "result.masks" in caught.value.remedy


def test_names_and_shape(result: apex_runtime.Result, picture: Path) -> None:
    assert result.names == ("blob",) and result.names[result.labels[0]] == "blob"
    assert result.shape == (96, 160) and result.source == picture
    assert result.boxes.dtype == result.scores.dtype == np.float32 and result.boxes.shape == (len(result), 4)
    assert isinstance(result.masks[0], apex_runtime.RoiMask) and isinstance(result.tiles[0], apex_runtime.Tile)


class Supervised:
    """The constructor of ``supervision.Detections`` (0.31)."""

    def __init__(
        self,
        xyxy: np.ndarray,
        mask: np.ndarray | None = None,
        confidence: np.ndarray | None = None,
        class_id: np.ndarray | None = None,
        tracker_id: np.ndarray | None = None,
        data: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self.xyxy, self.mask, self.confidence, self.class_id, self.data = xyxy, mask, confidence, class_id, data or {}

    def __len__(self) -> int:
        return len(self.xyxy)


@pytest.fixture
def supervision(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package where it is installed (run so once with 0.31.2), else what stands for it."""
    try:
        __import__("supervision")
    except ImportError:
        module = types.ModuleType("supervision")
        module.Detections = Supervised  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "supervision", module)


@pytest.mark.usefixtures("supervision")
def test_to_supervision(result: apex_runtime.Result, tiny_onnx: Path) -> None:
    found = result.to_supervision()
    assert len(found) == len(result) > 3
    np.testing.assert_array_equal(found.xyxy, result.boxes)
    np.testing.assert_array_equal(found.confidence, result.scores)
    np.testing.assert_array_equal(found.class_id, result.labels)
    np.testing.assert_array_equal(found.mask, result.masks_full())
    assert found.data["class_name"].tolist() == ["blob"] * len(result)
    assert result.to_supervision(masks=False).mask is None
    nothing = apex_runtime.load(tiny_onnx, threads=1).predict_one(discs(40, 40), min_score=1.0).to_supervision()
    assert len(nothing) == 0 and nothing.xyxy.shape == (0, 4)


def test_without_supervision_it_says_what_to_install(result: apex_runtime.Result, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *arguments: Any) -> Any:
        if name == "supervision":
            raise ImportError("No module named 'supervision'")
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UsageError, match="supervision cannot be imported") as caught:
        result.to_supervision()
    assert caught.value.remedy == "pip install supervision"


def test_a_picture_shows_what_is_strong_enough(result: apex_runtime.Result, picture: Path, tmp_path: Path) -> None:
    pixels = decode_image(picture)
    drawn = result.plot()
    np.testing.assert_array_equal(drawn, result.plot(pixels))
    assert drawn.dtype == np.uint8 and drawn.shape[0] > pixels.shape[0] and drawn.shape[2] == 3
    assert (drawn != result.plot(min_score=1.0)).any(), "without detections it is another picture"
    result.save(tmp_path / "new" / "a.png")
    np.testing.assert_array_equal(decode_image(tmp_path / "new" / "a.png"), drawn)


def test_a_picture_needs_the_pixels_of_the_image(result: apex_runtime.Result, picture: Path, tiny_onnx: Path) -> None:
    of_array = apex_runtime.load(tiny_onnx, threads=1).predict_one(decode_image(picture))
    with pytest.raises(UsageError, match="does not keep its pixels"):
        of_array.plot()
    assert of_array.plot(decode_image(picture)).any()
    with pytest.raises(UsageError, match=r"expected uint8 \(96, 160, 3\)"):
        result.plot(np.zeros((160, 96, 3), np.uint8))
    with pytest.raises(UsageError, match="PNG"):
        result.save(picture.with_suffix(".jpg"))
    picture.unlink()
    with pytest.raises(ImageError):
        result.plot()
