from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from satellite_sets import blocks, describe_as, write_pair, write_picture

from apex_runtime.data.dataset import Instances
from apex_runtime.data.findings import Fault
from apex_runtime.data.open import open_dataset
from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.data.satellite.components import components
from apex_runtime.data.satellite.objects import crop, cut, from_masks
from apex_runtime.data.scenes.windows import Window


def corner(file_name: str) -> tuple[int, int]:
    x, y = file_name.removesuffix(Path(file_name).suffix).rpartition("@")[2].split("_")
    return int(x), int(y)


def scattered(height: int, width: int, seed: int) -> np.ndarray:
    """Blobs of all sizes, uint8 0 or 255."""
    noise = np.random.default_rng(seed).random((height, width)).astype(np.float32)
    return ((cv2.GaussianBlur(noise, (0, 0), 3) > 0.51) * 255).astype(np.uint8)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 60), st.data())
def test_the_crop_of_a_mask_is_the_mask_of_the_crop(seed: int, height: int, width: int, data: st.DataObject) -> None:
    masks, _ = components(scattered(height, width, seed), 1)
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    window = Window(x, y, data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y)))
    for mask in masks:
        expected = mask.full(height, width)[y : y + window.height, x : x + window.width]
        part = crop(mask, window)
        if part is None:
            assert not expected.any()
        else:
            assert np.array_equal(part.full(window.height, window.width), expected)
            assert part.bits.any(axis=0)[[0, -1]].all() and part.bits.any(axis=1)[[0, -1]].all()


def test_small_pieces_are_left_out_and_counted_and_small_objects_stay() -> None:
    ones = np.ones
    masks = [
        RoiMask(0, 0, ones((4, 13), np.uint8)),  # 12 pixels in the window
        RoiMask(0, 6, ones((4, 14), np.uint8)),  # 16 pixels
        RoiMask(20, 20, ones((2, 2), np.uint8)),  # wholly inside, 4 pixels
        RoiMask(0, 30, ones((1, 11), np.uint8)),  # a crowd, 1 pixel
        RoiMask(0, 40, ones((9, 9), np.uint8)),  # outside
    ]
    found = from_masks(masks, [0, 1, 2, 3, 4], [False, False, False, True, False])
    pieces, dropped = cut(found, Window(10, 0, 40, 60), 16)
    assert dropped == 1
    assert pieces.labels.tolist() == [1, 2, 3] and pieces.crowd.tolist() == [False, False, True]
    assert pieces.boxes.tolist() == [[0, 6, 4, 10], [10, 20, 12, 22], [0, 30, 1, 31]]
    assert pieces.areas.tolist() == [16, 4, 1]


def test_boxes_without_masks_are_cut_to_the_window() -> None:
    boxes = np.array([[2.5, 3.5, 30.0, 20.0], [8.0, 1.0, 11.0, 4.0], [12.0, 12.0, 14.0, 14.0]], np.float32)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    found = Instances(boxes, np.arange(3), [None] * 3, np.zeros(3, bool), areas)
    pieces, dropped = cut(found, Window(10, 5, 10, 10), 16)
    assert pieces.boxes.tolist() == [[0, 0, 10, 10], [2, 7, 4, 9]] and pieces.masks == [None, None]
    assert pieces.areas.tolist() == [100, 4] and dropped == 0


@pytest.mark.parametrize("source", ["masks", "coco"])
def test_windows_cover_the_scene_and_show_its_pixels_and_masks(tmp_path: Path, source: str) -> None:
    height, width = 210, 333
    write_pair(tmp_path, "images/deep/a.png", "masks/deep/a.png", height=height, width=width)
    mask = scattered(height, width, 1)
    write_picture(tmp_path / "masks/deep/a.png", mask)
    if source == "coco":
        coco_of(tmp_path, "deep/a.png", mask)
    describe_as(tmp_path, source=source, **({"min_area": 1} if source == "masks" else {}), min_piece=0, window=100, overlap=30)
    scene = cv2.imread(str(tmp_path / "images/deep/a.png"))[:, :, ::-1]
    dataset = open_dataset(tmp_path, "train", "satellite")
    seen, union = np.zeros((height, width), bool), np.zeros((height, width), np.uint8)
    names = [record.file_name for record in dataset.records]
    assert len(set(names)) == len(names) > 6 and all(name.startswith("deep/a@") and name.endswith(".png") for name in names)
    for n, record in enumerate(dataset.records):
        x, y = corner(record.file_name)
        place = np.s_[y : y + record.height, x : x + record.width]
        assert np.array_equal(dataset.read_image(n), scene[place])
        seen[place] = True
        found = dataset.instances(n)
        painted = np.max([roi.full(record.height, record.width) for roi in found.masks if roi is not None], axis=0)
        assert np.array_equal(painted > 0, mask[place] > 0)
        union[place] |= painted
        for box, roi in zip(found.boxes.tolist(), found.masks, strict=True):
            assert roi is not None and box == [roi.x, roi.y, roi.x + roi.bits.shape[1], roi.y + roi.bits.shape[0]]
    assert seen.all() and np.array_equal(union > 0, mask > 0)
    assert len(dataset.annotation_files()) == 1  # each file once, whatever the number of windows


def coco_of(root: Path, name: str, mask: np.ndarray) -> None:
    """The regions of a mask as a COCO file."""
    from apex_runtime.postprocess.rle import roi_to_rle

    annotations = []
    for n, roi in enumerate(components(mask, 1)[0], 1):
        box = [roi.x, roi.y, roi.bits.shape[1], roi.bits.shape[0]]
        segmentation = roi_to_rle(roi, *mask.shape)
        entry = {"id": n, "image_id": 1, "category_id": 1, "bbox": box, "area": roi.area, "iscrowd": 0}
        annotations.append({**entry, "segmentation": segmentation})
    images = [{"id": 1, "file_name": name, "height": mask.shape[0], "width": mask.shape[1]}]
    (root / "annotations").mkdir()
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "a"}]}
    (root / "annotations/train.json").write_text(json.dumps(document))


def test_a_scene_is_decoded_once_for_its_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import apex_runtime.data.satellite.annotations as annotations

    write_pair(tmp_path, "images/a.png", "masks/a.png", height=200, width=200)
    describe_as(tmp_path, window=64, overlap=8)
    dataset = open_dataset(tmp_path, "train", "satellite")
    decoded = []
    decode = annotations.decode_mask
    monkeypatch.setattr(annotations, "decode_mask", lambda path: decoded.append(path) or decode(path))
    for n in range(len(dataset)):
        dataset.instances(n)
    assert len(dataset) == 16 and len(decoded) == 1


def test_little_is_kept_of_decoded_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import apex_runtime.data.satellite.dataset as satellite

    for n in range(6):
        write_pair(tmp_path, f"images/{n}.png", f"masks/{n}.png")  # one mask of 120 bytes each
    monkeypatch.setattr(satellite, "_KEPT_BYTES", 250)
    dataset = open_dataset(tmp_path, "train", "satellite")
    assert isinstance(dataset, satellite.SatelliteDataset)
    for n in (0, 1, 2, 3, 2, 5, 4, 2):
        assert len(dataset.instances(n)) == 1
    assert [file.name for file in dataset._decoded] == ["4.png", "2.png"] and dataset._kept == 240


def test_faults_of_a_scene_are_told_once_and_pieces_per_window(tmp_path: Path) -> None:
    write_pair(tmp_path, "images/a.png", "masks/a.png", height=100, width=100)
    write_picture(tmp_path / "masks/a.png", blocks(100, 100, (1, 1, 4, 4, 255), (30, 10, 21, 20, 255)))
    describe_as(tmp_path, window=50, overlap=0, min_piece=25)
    dataset = open_dataset(tmp_path, "train", "satellite")
    told = {record.file_name: [f.message for f in dataset.decode(n)[1]] for n, record in enumerate(dataset.records)}
    assert told == {
        "a@0_0.png": ["1 regions under 64 pixels were left out"],
        "a@50_0.png": ["a@50_0.png: 1 pieces at its border were left out as too small"],
        "a@0_50.png": [],
        "a@50_50.png": [],
    }
    assert {f.fault for n in range(4) for f in dataset.decode(n)[1]} == {Fault.SMALL_PIECES}


def test_deep_scenes_are_scaled_as_a_whole(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(0, 6400, 20, dtype=np.uint16), (300, 1))
    write_picture(tmp_path / "images/a.tif", ramp)
    write_picture(tmp_path / "masks/a.png", blocks(300, 320, (5, 5, 20, 20, 255)))
    whole = open_dataset(tmp_path, "train", "satellite").read(0)
    describe_as(tmp_path, window=100, overlap=20)
    dataset = open_dataset(tmp_path, "train", "satellite")
    for n, record in enumerate(dataset.records):
        x, y = corner(record.file_name)
        picture = dataset.read(n)
        assert picture.scaling == whole.scaling is not None
        assert np.array_equal(picture.pixels, whole.pixels[y : y + record.height, x : x + record.width])


def test_windows_go_by_the_mask_where_the_box_of_the_file_is_another() -> None:
    square = np.ones((6, 6), np.uint8)
    masks: list[RoiMask | None] = [RoiMask(7, 2, square), RoiMask(12, 12, square), RoiMask(22, 2, square)]
    boxes = np.array([[1, 2, 6, 8], [25, 25, 29, 29], [11, 2, 19, 9]], np.float32)
    found = Instances(boxes, np.arange(3), masks, np.zeros(3, bool), np.full(3, 36, np.float32))
    left, right = cut(found, Window(0, 0, 10, 20), 0)[0], cut(found, Window(10, 0, 10, 20), 0)[0]
    assert left.labels.tolist() == [0] and left.boxes.tolist() == [[7, 2, 10, 8]] and left.areas.tolist() == [18]
    assert right.labels.tolist() == [0, 1] and right.boxes.tolist() == [[0, 2, 3, 8], [2, 12, 8, 18]]
    for part in (left, right):
        for mask in part.masks:
            assert mask is not None and mask.x >= 0 and mask.x + mask.bits.shape[1] <= 10
