"""YOLO sets against COCO files of the same images, and what becomes of every kind of faulty file."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from yolo_sets import write_image, write_set

from apex_runtime.data.findings import Fault
from apex_runtime.data.open import open_dataset, recognise
from apex_runtime.data.yolo.dataset import YoloDataset, yolo_splits
from apex_runtime.errors import DataError, UsageError

SPLITS = ("train", "val", "test")
BOX = "0 0.5 0.5 0.2 0.4\n"


def by_image_and_class(document: dict[str, Any]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Annotations with their RLE as pycocotools makes it, by base name of the image and name of the class; no crowds."""
    images = {image["id"]: image for image in document["images"]}
    names = {category["id"]: category["name"] for category in document["categories"]}
    groups = defaultdict(list)
    for entry in document["annotations"]:
        if not entry["iscrowd"]:
            image, shape = images[entry["image_id"]], entry["segmentation"]
            if isinstance(shape, list):
                shape = coco_mask.merge(coco_mask.frPyObjects(shape, image["height"], image["width"]))
            groups[Path(image["file_name"]).name, names[entry["category_id"]]].append({"box": entry["bbox"], "rle": shape})
    return groups


def pairs(truth: list[dict[str, Any]], found: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """IoU of masks and largest difference of box corners in pixels, for the one-to-one match of two lists, best pairs first."""
    assert len(truth) == len(found)
    overlap = coco_mask.iou([entry["rle"] for entry in found], [entry["rle"] for entry in truth], [0] * len(truth))
    result = []
    for _ in truth:
        f, t = np.unravel_index(int(overlap.argmax()), overlap.shape)
        corners = [np.array([x, y, x + w, y + h]) for x, y, w, h in (found[f]["box"], truth[t]["box"])]
        result.append((float(overlap[f, t]), float(np.abs(corners[0] - corners[1]).max())))
        overlap[f, :] = overlap[:, t] = -1
    return result


def compare(yolo: Path, coco: Path, splits: tuple[str, ...]) -> list[tuple[float, float]]:
    result = []
    for split in splits:
        dataset = open_dataset(yolo, split, "yolo")
        truth = by_image_and_class(json.loads((coco / "annotations" / f"{split}.json").read_text()))
        found = by_image_and_class(dataset.ground_truth())
        assert truth.keys() == found.keys()
        result += [pair for key in truth for pair in pairs(truth[key], found[key])]
    return result


def test_coco_mini_is_the_same_as_yolo_and_as_coco(shared_data: Path) -> None:
    result = compare(shared_data / "coco-mini", shared_data / "coco-mini", SPLITS)
    assert len(result) == 1271
    assert min(overlap for overlap, _ in result) >= 0.98
    assert max(distance for _, distance in result) <= 1


def test_the_fixture_is_the_same_as_yolo_and_as_coco(nuclei_yolo_fixture: Path, nuclei_fixture: Path) -> None:
    """Outlines of pixel masks: what a polygon through pixel centres loses at the border is at most a pixel on each side."""
    result = compare(nuclei_yolo_fixture, nuclei_fixture, ("train", "val"))
    assert len(result) == 147
    assert max(distance for _, distance in result) <= 1
    assert np.mean([overlap for overlap, _ in result]) > 0.85


@pytest.mark.parametrize(("name", "counts"), [("aerial-vehicles", (1847, 360, 386)), ("coco-mini", (761, 281, 229))])
def test_shared_sets_open_without_an_error_and_have_what_their_readme_says(
    shared_data: Path, name: str, counts: tuple[int, ...]
) -> None:
    assert recognise(shared_data / name).kind == "yolo" and tuple(yolo_splits(shared_data / name)) == SPLITS
    found, faults = [], []
    for split in SPLITS:
        dataset = open_dataset(shared_data / name, split)
        decoded = [dataset.decode(index) for index in range(len(dataset))]
        found.append(sum(len(instances) for instances, _ in decoded))
        faults += [finding.fault for finding in dataset.findings] + [f.fault for _, more in decoded for f in more]
        for index, (instances, _) in enumerate(decoded):
            height, width = dataset.read_image(index).shape[:2]
            assert (instances.boxes[:, 2:] <= [width, height]).all() and (instances.boxes >= 0).all()
    assert tuple(found) == counts
    assert faults == ([Fault.BOX_CLIPPED] if name == "aerial-vehicles" else [])


def test_aerial_boxes_are_those_of_the_coco_file(shared_data: Path) -> None:
    folder = shared_data / "aerial-vehicles"
    document = json.loads((folder / "annotations" / "test.json").read_text())
    names = {image["id"]: Path(image["file_name"]).name for image in document["images"]}
    truth = defaultdict(list)
    for entry in document["annotations"]:
        truth[names[entry["image_id"]]].append(entry["bbox"])
    dataset = YoloDataset(folder, "test")
    for index, record in enumerate(dataset.records):
        boxes = dataset.instances(index).boxes
        boxes[:, 2:] -= boxes[:, :2]
        np.testing.assert_allclose(boxes, truth[Path(record.file_name).name], atol=1)


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_boxes_and_polygons_come_back_as_they_were_written(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Six decimals: a corner is off by at most half a unit of the last place, in a centre and in half a side."""
    inside = st.floats(0.01, 0.99)
    lines, expected = [], []
    for _ in range(data.draw(st.integers(1, 5))):
        if data.draw(st.booleans()):
            x1, x2 = sorted(data.draw(st.lists(inside, min_size=2, max_size=2, unique_by=lambda value: round(value, 2))))
            y1, y2 = sorted(data.draw(st.lists(inside, min_size=2, max_size=2, unique_by=lambda value: round(value, 2))))
            numbers = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
        else:
            x, y = data.draw(st.floats(0.1, 0.5)), data.draw(st.floats(0.1, 0.5))
            size = data.draw(st.floats(0.1, 0.45))
            points = [(x, y), (x + size, y), (x + size, y + size), (x, y + size)][: data.draw(st.integers(3, 4))]
            numbers = [value for point in points for value in point]
            x1, y1, x2, y2 = x, y, x + size, y + size
        label = data.draw(st.integers(0, 1))
        lines.append(f"{label} " + " ".join(f"{value:.6f}" for value in numbers))
        expected.append((label, [x1 * 100, y1 * 60, x2 * 100, y2 * 60], len(numbers) == 4))
    root = write_set(tmp_path_factory.mktemp("set"), {"a": "\n".join(lines)})
    instances = YoloDataset(root, "train").instances(0)
    assert instances.labels.tolist() == [label for label, _, _ in expected]
    assert [mask is None for mask in instances.masks] == [is_box for _, _, is_box in expected]
    np.testing.assert_allclose(instances.boxes, [box for _, box, _ in expected], atol=0.75e-6 * 100 + 1e-5)


def test_a_rectangle_as_polygon_covers_the_pixels_of_the_rectangle(tmp_path: Path) -> None:
    root = write_set(tmp_path, {"a": "1 0.1 0.1 0.4 0.1 0.4 0.5 0.1 0.5"})
    instances = YoloDataset(root, "train").instances(0)
    (mask,) = instances.masks
    expected = np.zeros((60, 100), np.uint8)
    expected[6:30, 10:40] = 1
    assert mask is not None and (mask.full(60, 100) == expected).all()
    assert instances.areas.tolist() == [30 * 24] and instances.boxes.tolist() == [[10, 6, 40, 30]]


def test_order_ids_and_names(tmp_path: Path) -> None:
    root = write_set(tmp_path, {"b": BOX, "a/z": None, "a/c": ""})
    dataset = YoloDataset(root, "train")
    assert [(record.image_id, record.file_name) for record in dataset.records] == [
        (1, "images/train/a/c.png"),
        (2, "images/train/a/z.png"),
        (3, "images/train/b.png"),
    ]
    assert [len(dataset.instances(index)) for index in range(3)] == [0, 0, 1]
    assert dataset.findings == [] and {(record.height, record.width) for record in dataset.records} == {(60, 100)}
    assert [(category.id, category.name) for category in dataset.categories] == [(0, "car"), (1, "bus")]
    assert [file.name for file in dataset.annotation_files()] == ["c.txt", "b.txt"]


def test_labels_beside_their_images(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("train: pictures\nnames: [car, bus]\n")
    write_image(tmp_path / "pictures" / "a.png")
    (tmp_path / "pictures" / "a.txt").write_text(BOX)
    assert len(YoloDataset(tmp_path, "train").instances(0)) == 1


def test_an_image_that_is_turned_by_exif_has_the_size_that_is_shown(tmp_path: Path) -> None:
    from encoded_images import oriented_jpeg, picture

    root = write_set(tmp_path, {"a": "0 0.5 0.25 1.0 0.5"})
    (root / "images" / "train" / "a.png").write_bytes(oriented_jpeg(picture(60, 100), 6))
    dataset = YoloDataset(root, "train")
    assert dataset.instances(0).boxes.tolist() == [[0, 0, 60, 50]]
    assert dataset.read_image(0).shape == (100, 60, 3)


PLANTED = [
    (Fault.MALFORMED, "0 0.5 0.5 0.2\n"),
    (Fault.MALFORMED, "0 0.5 0.5 0.2 x\n"),
    (Fault.MALFORMED, "0 0.5 0.5 0.2 0.2 0.9\n"),
    (Fault.MALFORMED, "0 320 200 40 40\n"),
    (Fault.UNKNOWN_CLASS, "2 0.5 0.5 0.2 0.2\n"),
    (Fault.UNKNOWN_CLASS, "-1 0.5 0.5 0.2 0.2\n"),
    (Fault.INVALID_BOX, "0 nan 0.5 0.2 0.2\n"),
    (Fault.INVALID_BOX, "0 0.5 0.5 0 0.2\n"),
    (Fault.BOX_OUTSIDE, "0 1.5 0.5 0.2 0.2\n"),
    (Fault.BOX_OUTSIDE, "0 1.2 0.2 1.4 0.2 1.4 0.4\n"),
    (Fault.DEGENERATE_POLYGON, "0 0.2 0.2 0.4 0.4 0.6 0.6\n"),
    (Fault.DEGENERATE_POLYGON, "0 0.2 0.2 0.2 0.2 0.6 0.6\n"),
    (Fault.EMPTY_MASK, "0 0.201 0.201 0.2011 0.201 0.2011 0.2011\n"),
]


@pytest.mark.parametrize(("fault", "line"), PLANTED)
def test_a_faulty_line_is_named_and_left_out(tmp_path: Path, fault: Fault, line: str) -> None:
    root = write_set(tmp_path, {"a": BOX + "\n" + line + BOX})
    dataset = YoloDataset(root, "train", strict=False)
    instances, more = dataset.decode(0)
    (finding,) = dataset.findings + more
    assert (finding.fault, finding.where.path, finding.where.line) == (fault, root / "labels" / "train" / "a.txt", 3)
    assert len(instances) == 2
    if fault.stops_training:
        with pytest.raises(DataError, match=r"a\.txt:3: "):
            YoloDataset(root, "train")
    else:
        assert len(YoloDataset(root, "train").instances(0)) == 2


@pytest.mark.parametrize(("line", "box"), [("0 0 0.5 0.2 0.5", [0, 15, 10, 45]), ("1 -0.1 0.5 0.2 0.5 0.2 0.9", [0, 30, 20, 54])])
def test_what_reaches_beyond_the_border_is_cut_with_a_warning(tmp_path: Path, line: str, box: list[float]) -> None:
    dataset = YoloDataset(write_set(tmp_path, {"a": line}), "train")
    assert [finding.fault for finding in dataset.findings] == [Fault.BOX_CLIPPED]
    np.testing.assert_allclose(dataset.instances(0).boxes, [box], atol=1e-4)


@pytest.mark.parametrize(("beyond_px", "warned"), [(0.9, False), (1.1, True)])
def test_up_to_a_pixel_beyond_the_border_is_rounding(tmp_path: Path, beyond_px: float, warned: bool) -> None:
    right = 1 + beyond_px / 100
    dataset = YoloDataset(write_set(tmp_path, {"a": f"0 {right - 0.1} 0.5 0.2 0.2"}), "train")
    assert bool(dataset.findings) == warned
    assert dataset.instances(0).boxes[0, 2] == 100


def test_images_that_are_absent_or_broken(tmp_path: Path) -> None:
    root = write_set(tmp_path, {"a": BOX, "b": BOX, "c": BOX}, "train: train.txt\nnames: [car, bus]\n")
    (root / "train.txt").write_text("images/train/a.png\n\nimages/train/gone.png\nimages/train/b.png\nimages/train/a.png\n")
    (root / "images" / "train" / "b.png").write_bytes(b"no image")
    dataset = YoloDataset(root, "train", strict=False)
    assert [(f.fault, f.where.path.name, f.where.line) for f in dataset.findings] == [
        (Fault.MISSING_IMAGE, "train.txt", 3),
        (Fault.DUPLICATE_IMAGE, "train.txt", 5),
        (Fault.UNREADABLE_IMAGE, "train.txt", 4),
    ]
    assert [record.file_name for record in dataset.records] == ["images/train/a.png"]
    with pytest.raises(DataError, match=r"gone\.png"):
        YoloDataset(root, "train")
    (root / "train.txt").write_text("images/train/b.png\n")
    assert len(YoloDataset(root, "train", strict=False)) == 0
    with pytest.raises(DataError, match=r"train.txt:1: .*not an image"):
        YoloDataset(root, "train")


def test_labels_without_an_image_are_a_warning(tmp_path: Path) -> None:
    root = write_set(tmp_path, {"a": BOX, "sub/b": BOX})
    for name in ("lonely.txt", "sub/lonely.txt", "other/lonely.txt", "classes.txt", "._a.txt"):
        (root / "labels" / "train" / name).parent.mkdir(exist_ok=True)
        (root / "labels" / "train" / name).write_text(BOX)
    dataset = YoloDataset(root, "train")
    labels = root / "labels" / "train"
    assert [(f.fault, f.where.path.relative_to(labels).as_posix()) for f in dataset.findings] == [
        (Fault.UNUSED_FILE, "lonely.txt"),
        (Fault.UNUSED_FILE, "other/lonely.txt"),
        (Fault.UNUSED_FILE, "sub/lonely.txt"),
    ]


def test_labels_of_another_split_in_the_same_folder_are_not_lonely(tmp_path: Path) -> None:
    root = write_set(tmp_path, {"a": BOX, "b": BOX}, "train: train.txt\nval: val.txt\nnames: [car, bus]\n")
    (root / "train.txt").write_text("./images/train/a.png\n")
    (root / "val.txt").write_text("./images/train/b.png\n")
    assert YoloDataset(root, "train").findings == [] == YoloDataset(root, "val").findings


def test_fingerprint_is_that_of_the_content_not_of_the_place(tmp_path: Path) -> None:
    root = write_set(tmp_path / "one", {"a": BOX, "b": BOX})
    before = YoloDataset(root, "train").fingerprint()
    shutil.copytree(root, tmp_path / "two")
    assert YoloDataset(tmp_path / "two", "train").fingerprint() == before
    (root / "labels" / "train" / "b.txt").write_text("1" + BOX[1:])
    assert YoloDataset(root, "train").fingerprint() != before


def test_the_description_may_be_given_itself_and_wrong_splits_are_wrong_usage(tmp_path: Path) -> None:
    root = write_set(tmp_path, {"a": BOX})
    assert len(open_dataset(root / "data.yaml", "train")) == 1
    for call in (lambda: open_dataset(root, "val"), lambda: YoloDataset(root, "val"), lambda: yolo_splits(root / "images")):
        with pytest.raises(UsageError):
            call()


def test_every_image_can_be_trained_on(nuclei_yolo_fixture: Path) -> None:
    """Pixels, boxes and masks agree with one another, with OpenCV as the witness of sizes."""
    for split in yolo_splits(nuclei_yolo_fixture):
        dataset = YoloDataset(nuclei_yolo_fixture, split)
        for index, record in enumerate(dataset.records):
            image, instances = cv2.imread(str(record.path)), dataset.instances(index)
            assert image.shape[:2] == (record.height, record.width) == dataset.read_image(index).shape[:2]
            for box, mask in zip(instances.boxes, instances.masks, strict=True):
                assert mask is not None
                rows, columns = np.nonzero(mask.full(record.height, record.width))
                bounds = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                np.testing.assert_allclose(box, bounds, atol=1)


def test_two_pictures_of_one_label_file_are_not_both_believed(tmp_path: Path) -> None:
    write_set(tmp_path, {"a": BOX, "b": None})
    for name in ("a.jpg", "b.jpg"):
        write_image(tmp_path / "images/train" / name)
    dataset = YoloDataset(tmp_path, "train", strict=False)
    assert [record.file_name for record in dataset.records] == [f"images/train/{name}" for name in ("a.jpg", "b.jpg", "b.png")]
    (finding,) = dataset.findings
    assert finding.fault == Fault.DUPLICATE_ID and finding.where.path.name == "a.png" and "a.jpg" in finding.message
    with pytest.raises(DataError, match=r"a\.png: .*a\.txt"):
        YoloDataset(tmp_path, "train")


def test_two_classes_of_one_name_are_refused(tmp_path: Path) -> None:
    write_set(tmp_path, {"a": BOX}, "train: images/train\nnames: [car, bus, car]\n")
    (finding,) = YoloDataset(tmp_path, "train", strict=False).findings
    assert finding.fault == Fault.DUPLICATE_ID and finding.message == "two classes are called car: 0 and 2"


def test_a_link_to_a_picture_that_is_gone_is_a_missing_image(tmp_path: Path) -> None:
    write_set(tmp_path, {"a": BOX, "b": BOX})
    image = tmp_path / "images/train/b.png"
    image.unlink()
    image.symlink_to(tmp_path / "store" / "b.png")
    dataset = YoloDataset(tmp_path, "train", strict=False)
    assert [(each.fault, each.where.path) for each in dataset.findings] == [(Fault.MISSING_IMAGE, image)] and len(dataset) == 1
    with pytest.raises(DataError, match=r"b\.png: a link to .*store"):
        YoloDataset(tmp_path, "train")
