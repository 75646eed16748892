from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from satellite_sets import blocks, describe_as, write_image, write_pair, write_picture

from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.data.findings import Fault
from apex_runtime.data.open import open_dataset, recognise, split_names
from apex_runtime.errors import DataError, UsageError


def counts(dataset: InstanceDataset) -> dict[str, int]:
    return {record.file_name: len(dataset.instances(n)) for n, record in enumerate(dataset.records)}


def faults(dataset: InstanceDataset) -> list[tuple[Fault, str]]:
    """Kind and file of all findings, of the opening and of the decoding."""
    found = [*dataset.findings, *(finding for n in range(len(dataset)) for finding in dataset.decode(n)[1])]
    return sorted({(finding.fault, finding.where.path.name) for finding in found})


LAYOUTS = {
    "flat": [("images/a.png", "masks/a.png", "train"), ("images/deep/b.tif", "masks/deep/b.png", "train")],
    "splits within": [("images/train/a.jpg", "masks/train/a.png", "train"), ("images/valid/a.jpg", "masks/val/a.png", "val")],
    "splits around": [("train/images/a.png", "train/masks/a.png", "train"), ("valid/images/b.png", "valid/masks/b.png", "val")],
    "suffixes": [("image/a.jpg", "mask/a_mask.png", "train"), ("image/b.jpg", "mask/b_label.tif", "train")],
    "imgs and labels": [("imgs/test/a.b.jpg", "labels/test/a.b.png", "test")],
    "upper case": [("Train/Image/a.jpg", "Train/Label/a.png", "train"), ("Test/Image/b.jpg", "Test/Label/b_gt.png", "test")],
    "img_dir": [("img_dir/train/a.jpg", "ann_dir/train/a.png", "train"), ("img_dir/val/b.jpg", "ann_dir/val/b.png", "val")],
    "not a split": [("images/bmx/0.jpg", "masks/bmx/0.png", "train"), ("images/run/0.jpg", "masks/run/0.png", "train")],
    "one folder": [("a.tif", "a_mask.png", "train"), ("b.jpg", "b_label.png", "train")],
    "one folder per split": [("train/1_sat.jpg", "train/1_mask.png", "train"), ("val/1_sat.jpg", "val/1_mask.png", "val")],
    "masks among images": [("images/a.jpg", "images/a_mask.png", "train")],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path: Path, layout: str) -> None:
    for image, mask, _ in LAYOUTS[layout]:
        write_pair(tmp_path, image, mask)
    expected = {split for *_, split in LAYOUTS[layout]}
    assert set(split_names(tmp_path, "satellite")) == expected
    for split in expected:
        dataset = open_dataset(tmp_path, split, "satellite")
        images = [tmp_path / image for image, _, name in LAYOUTS[layout] if name == split]
        assert [record.path for record in dataset.records] == sorted(images)
        assert list(counts(dataset).values()) == [1] * len(images)
        assert faults(dataset) == []
        assert dataset.instances(0).boxes.tolist() == [[5, 6, 15, 18]] and dataset.instances(0).areas.tolist() == [120]


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "masks among images"])
def test_layouts_are_recognised(tmp_path: Path, layout: str) -> None:
    for image, mask, _ in LAYOUTS[layout]:
        write_pair(tmp_path, image, mask)
    assert recognise(tmp_path).kind == "satellite"


def test_masks_classes_and_boxes_agree_with_the_blocks(tmp_path: Path) -> None:
    where = [(1, 1, 20, 10, 2), (30, 5, 9, 9, 1), (30, 20, 8, 8, 2), (50, 30, 3, 3, 1)]
    write_pair(tmp_path, "images/a.png", "masks/a.png", *where)
    classes = [{"id": 9, "name": "road", "value": 1}, {"id": 4, "name": "roof", "value": 2}]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": classes}))
    dataset = open_dataset(tmp_path, "train")
    assert [(category.id, category.name) for category in dataset.categories] == [(4, "roof"), (9, "road")]
    found = dataset.instances(0)
    expected = [(0, [1, 1, 21, 11]), (0, [30, 20, 38, 28]), (1, [30, 5, 39, 14])]
    assert list(zip(found.labels.tolist(), found.boxes.tolist(), strict=True)) == expected
    for label, (x1, y1, x2, y2), mask in zip(found.labels, found.boxes.astype(int), found.masks, strict=True):
        truth = np.zeros((40, 60), bool)
        truth[y1:y2, x1:x2] = True
        assert mask is not None and np.array_equal(mask.full(40, 60) > 0, truth), label
    assert faults(dataset) == [(Fault.SMALL_PIECES, "a.png")]  # the block of 9 pixels
    document = dataset.ground_truth()
    assert [entry["category_id"] for entry in document["annotations"]] == [4, 4, 9]


def test_ignored_colours_are_background_unless_the_description_asks(tmp_path: Path) -> None:
    write_pair(tmp_path, "images/a.png", "masks/a.png", (1, 1, 10, 10, 1), (20, 5, 10, 10, 2), (40, 1, 15, 15, 9))
    classes = {"classes": [{"name": "a", "value": 1}, {"name": "b", "value": 2}]}
    ignore = [{"name": "none", "value": 0}, {"name": "cloud", "value": 9}]
    describe_as(tmp_path, **classes, ignore=ignore)
    assert open_dataset(tmp_path, "train").instances(0).crowd.tolist() == [False, False]
    describe_as(tmp_path, **classes, ignore=ignore, ignore_regions=["cloud"])
    found = open_dataset(tmp_path, "train").instances(0)
    assert found.crowd.tolist() == [False, False, True, True]
    assert found.labels.tolist() == [0, 1, 0, 1]  # a region to be ignored is so for every class
    assert found.boxes[2:].tolist() == [[40, 1, 55, 16]] * 2


def test_every_fault_is_found_once(tmp_path: Path) -> None:
    for name in ("good", "specks", "colour", "size", "broken_mask", "no_mask", "broken_image"):
        write_pair(tmp_path, f"images/{name}.png", f"masks/{name}.png")
    write_picture(tmp_path / "masks/specks.png", blocks(40, 60, (1, 1, 10, 10, 1), (30, 30, 2, 2, 1)))
    write_picture(tmp_path / "masks/colour.png", blocks(40, 60, (1, 1, 10, 10, 1), (30, 30, 2, 2, 77)))
    write_picture(tmp_path / "masks/size.png", blocks(40, 61))
    (tmp_path / "masks/broken_mask.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (tmp_path / "masks/no_mask.png").rename(tmp_path / "masks/other.png")
    (tmp_path / "images/broken_image.png").write_bytes(b"\xff\xd8\xffnothing")
    write_image(tmp_path / "images/good.jpg")
    describe_as(tmp_path, classes=[{"name": "a", "value": 255}, {"name": "b", "value": 1}])
    dataset = open_dataset(tmp_path, "train", strict=False)
    assert faults(dataset) == sorted(
        [
            (Fault.SMALL_PIECES, "specks.png"),
            (Fault.MALFORMED, "colour.png"),
            (Fault.SIZE_MISMATCH, "size.png"),
            (Fault.MALFORMED, "broken_mask.png"),
            (Fault.MISSING_MASK, "no_mask.png"),
            (Fault.UNUSED_FILE, "other.png"),
            (Fault.UNREADABLE_IMAGE, "broken_image.png"),
            (Fault.DUPLICATE_ID, "good.png"),
        ]
    )
    assert counts_loosely(dataset) == {"good.jpg": 1, "specks.png": 1, "colour.png": 1}
    message = next(finding.message for n in range(3) for finding in dataset.decode(n)[1] if finding.fault is Fault.MALFORMED)
    assert "77 (4 pixels)" in message
    with pytest.raises(DataError, match=r"good\.jpg has the same name.*and 2 more"):
        open_dataset(tmp_path, "train")


def counts_loosely(dataset: InstanceDataset) -> dict[str, int]:
    return {record.file_name: len(dataset.decode(n)[0]) for n, record in enumerate(dataset.records)}


def test_an_unlisted_colour_stops_a_training_when_it_is_read(tmp_path: Path) -> None:
    write_pair(tmp_path, "images/a.png", "masks/a.png", (1, 1, 10, 10, 3))
    describe_as(tmp_path, classes=[{"name": "a", "value": 1}])
    with pytest.raises(DataError, match="3 \\(100 pixels\\)"):
        open_dataset(tmp_path, "train").instances(0)


def test_an_empty_mask_is_an_image_without_objects(tmp_path: Path) -> None:
    write_pair(tmp_path, "images/a.png", "masks/a.png")
    write_pair(tmp_path, "images/b.png", "masks/b.png", (0, 0, 1, 1, 0))
    dataset = open_dataset(tmp_path, "train")
    assert counts(dataset) == {"a.png": 1, "b.png": 0} and faults(dataset) == []
    empty = dataset.instances(1)
    assert empty.boxes.shape == (0, 4) and empty.boxes.dtype == np.float32 and empty.labels.dtype == np.int64


def test_an_image_that_is_shown_turned_needs_a_mask_that_is_turned(tmp_path: Path) -> None:
    write_pair(tmp_path, "images/a.jpg", "masks/a.png", height=40, width=60)
    data = (tmp_path / "images/a.jpg").read_bytes()
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    (tmp_path / "images/a.jpg").write_bytes(data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:])
    assert [fault for fault, _ in faults(open_dataset(tmp_path, "train", "satellite", strict=False))] == [Fault.SIZE_MISMATCH]
    write_picture(tmp_path / "masks/a.png", blocks(60, 40, (5, 6, 10, 12, 255)))
    dataset = open_dataset(tmp_path, "train", "satellite")
    assert (dataset.records[0].height, dataset.records[0].width) == dataset.read_image(0).shape[:2] == (60, 40)


def test_what_cannot_be_opened_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not found"):
        open_dataset(tmp_path / "nowhere", "train", "satellite")
    with pytest.raises(DataError, match="no images found"):
        open_dataset(tmp_path, "train", "satellite")
    write_image(tmp_path / "images/a.png")
    with pytest.raises(DataError, match="no mask pictures found"):
        open_dataset(tmp_path, "train", "satellite")
    write_picture(tmp_path / "masks/a.png", blocks(40, 60, (1, 1, 9, 9, 255)))
    with pytest.raises(UsageError, match="Splits found: train"):
        open_dataset(tmp_path, "val", "satellite")


def test_the_fingerprint_sees_masks_classes_and_the_description(tmp_path: Path) -> None:
    write_pair(tmp_path / "a", "images/a.png", "masks/a.png")
    first = open_dataset(tmp_path / "a", "train").fingerprint()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert open_dataset(tmp_path / "b", "train").fingerprint() == first
    write_picture(tmp_path / "b/masks/a.png", blocks(40, 60, (5, 6, 10, 11, 255)))
    second = open_dataset(tmp_path / "b", "train").fingerprint()
    describe_as(tmp_path / "a", min_area=5)
    assert len({first, second, open_dataset(tmp_path / "a", "train").fingerprint()}) == 3
    describe_as(tmp_path / "a")
    assert open_dataset(tmp_path / "a", "train").fingerprint() == first  # it says nothing


def test_the_fingerprint_is_the_same_from_wherever_a_set_is_described(tmp_path: Path) -> None:
    write_pair(tmp_path / "a", "images/a.png", "masks/a.png")
    for folder, path in (("one", "../a"), ("two", str(tmp_path / "a"))):
        (tmp_path / folder).mkdir()
        describe_as(tmp_path / folder, path=path, min_area=5)
    describe_as(tmp_path / "a", min_area=5)
    places = (tmp_path / "a", tmp_path / "one/satellite.yaml", tmp_path / "two/satellite.yaml")
    assert len({open_dataset(place, "train", "satellite").fingerprint() for place in places}) == 1


@pytest.mark.parametrize("lost", ["images/b.png", "masks/b.png"])
def test_a_link_to_a_file_that_is_gone_is_an_error(tmp_path: Path, lost: str) -> None:
    for name in "ab":
        write_pair(tmp_path, f"images/{name}.png", f"masks/{name}.png")
    (tmp_path / lost).unlink()
    (tmp_path / lost).symlink_to("store/b.png")
    dataset = open_dataset(tmp_path, "train", "satellite", strict=False)
    assert (Fault.MISSING_IMAGE, "b.png") in faults(dataset) and len(dataset) == 1
    with pytest.raises(DataError, match=r"b\.png: a link to store"):
        open_dataset(tmp_path, "train", "satellite")


def test_a_dataset_travels_to_a_worker(tmp_path: Path) -> None:
    write_pair(tmp_path, "images/a.png", "masks/a.png")
    dataset = open_dataset(tmp_path, "train")
    dataset.instances(0)
    twin = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(twin.read_image(0), dataset.read_image(0)) and counts(twin) == counts(dataset)


def test_voc_and_tables_are_boxes_only_sets(tmp_path: Path) -> None:
    box = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
    for name in ("a", "b", "c", "unknown"):
        write_image(tmp_path / f"{name}.png")
    objects = box.format("oak", 1, 2, 11, 12) + box.format("elm", 50, 30, 70, 50) + box.format("elm", 80, 30, 90, 50)
    (tmp_path / "a.xml").write_text(f"<annotation>{objects}</annotation>")
    (tmp_path / "b.xml").write_text("<annotation><size><width>61</width><height>40</height></size></annotation>")
    (tmp_path / "z.xml").write_text("<annotation></annotation>")
    rows = "image_path,xmin,ymin,xmax,ymax,label\nc.png,3,4,5,6,oak\nc.png,5,4,3,6,oak\na.png,1,1,2,2,oak\nd.png,1,1,2,2,oak\n"
    (tmp_path / "t.csv").write_text(rows)
    assert recognise(tmp_path).kind == "satellite"
    dataset = open_dataset(tmp_path, "train", strict=False)
    assert [category.name for category in dataset.categories] == ["elm", "oak"]
    assert counts_loosely(dataset) == {"a.png": 2, "c.png": 1}
    found, _ = dataset.decode(0)
    assert found.boxes.tolist() == [[1, 2, 11, 12], [50, 30, 60, 40]] and found.labels.tolist() == [1, 0]
    assert found.masks == [None, None] and found.areas.tolist() == [100, 100]
    assert faults(dataset) == sorted(
        [
            (Fault.BOX_CLIPPED, "a.xml"),
            (Fault.BOX_OUTSIDE, "a.xml"),
            (Fault.SIZE_MISMATCH, "b.xml"),
            (Fault.UNUSED_FILE, "z.xml"),
            (Fault.INVALID_BOX, "t.csv"),
            (Fault.UNUSED_FILE, "t.csv"),
            (Fault.MISSING_IMAGE, "t.csv"),
            (Fault.MISSING_MASK, "unknown.png"),
        ]
    )
    describe_as(tmp_path, source="boxes", classes=[{"id": 5, "name": "oak"}])
    listed = open_dataset(tmp_path, "train", strict=False)
    assert (Fault.UNKNOWN_CLASS, "a.xml") in faults(listed) and counts_loosely(listed)["a.png"] == 1


def test_the_folders_of_pascal_voc(tmp_path: Path) -> None:
    write_image(tmp_path / "JPEGImages/a.jpg")
    (tmp_path / "Annotations").mkdir()
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox>"
    (tmp_path / "Annotations/a.xml").write_text(f"<annotation><object><name>dog</name>{box}</object></annotation>")
    assert recognise(tmp_path).kind == "satellite"
    assert open_dataset(tmp_path, "train").instances(0).boxes.tolist() == [[1, 2, 9, 8]]


def test_files_that_hide_are_left_alone(tmp_path: Path) -> None:
    write_pair(tmp_path, "images/a.png", "masks/a.png")
    (tmp_path / "images/._a.png").write_bytes(b"x")
    (tmp_path / "masks/.cache").mkdir()
    cv2.imwrite(str(tmp_path / "masks/.cache/b.png"), blocks(4, 4))
    dataset = open_dataset(tmp_path, "train")
    assert counts(dataset) == {"a.png": 1} and faults(dataset) == []


def test_the_fixture_reads_as_its_masks_say(nuclei_satellite_fixture: Path) -> None:
    dataset = open_dataset(nuclei_satellite_fixture, "train")
    assert recognise(nuclei_satellite_fixture).kind == "satellite"
    assert [category.name for category in dataset.categories] == ["nucleus"] and len(dataset) == 8
    for n, record in enumerate(dataset.records):
        mask = cv2.imread(str(nuclei_satellite_fixture / "masks" / f"{Path(record.file_name).stem}.png"), cv2.IMREAD_UNCHANGED)
        regions, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        found = dataset.instances(n)
        assert len(found) == sum(stats[1:regions, cv2.CC_STAT_AREA] >= 64)
        union = np.sum([roi.full(*mask.shape) for roi in found.masks if roi is not None], axis=0)
        assert union.max() <= 1 and not np.any((union > 0) & (mask == 0))


def boxes_by_scene(root: Path, split: str, *rows: str) -> tuple[dict[str, int], list[str]]:
    """Boxes of each scene that has any in a table of these rows, and what was said about the others."""
    lines = "\n".join(f"{row},1,1,9,9,oak" for row in rows)
    (root / "t.csv").write_text(f"image_path,xmin,ymin,xmax,ymax,label\n{lines}\n")
    dataset = open_dataset(describe_as(root, source="boxes"), split, strict=False)
    said = [finding.message for finding in dataset.findings if finding.fault is Fault.MISSING_IMAGE]
    return counts_loosely(dataset), said


def test_boxes_of_a_table_never_go_to_an_image_that_only_shares_its_name(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "val/a", "val/b"):
        write_image(tmp_path / "images" / f"{name}.png")
    rows = ("a.png", "b.png", "old/train/a.png")
    for split in ("train", "val"):
        found, said = boxes_by_scene(tmp_path, split, *rows)
        assert found == {}
        assert said == [f"{row} fits several images: train/{row[-5]}, val/{row[-5]}" for row in rows]
    assert boxes_by_scene(tmp_path, "val", "train/a.png", "valid/images/b.jpg") == ({"val/b.png": 1}, [])


def test_a_table_that_was_moved_finds_the_only_image_of_a_name(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "train/c", "val/d"):
        write_image(tmp_path / "images" / f"{name}.png")
    found, said = boxes_by_scene(tmp_path, "train", "a.png", "old/train/b.tif", "val/c.png")
    assert found == {"train/a.png": 1, "train/b.png": 1}
    assert said == [f"val/c.png is not under {tmp_path}"]
