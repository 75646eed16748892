import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from apex_runtime.data.coco.panoptic import PanopticDataset
from apex_runtime.data.findings import Fault
from apex_runtime.data.open import open_dataset, split_names
from apex_runtime.errors import DataError

CATEGORIES = [
    {"id": 200, "name": "sky", "isthing": 0},
    {"id": 7, "name": "dog", "isthing": 1},
    {"id": 3, "name": "cat", "isthing": 1},
]
SEGMENTS = [
    {"id": 70_000, "category_id": 7, "iscrowd": 0, "area": 6, "bbox": [1, 1, 3, 2]},
    {"id": 300, "category_id": 3, "iscrowd": 1, "area": 4},
    {"id": 9, "category_id": 200, "iscrowd": 0, "area": 20},
]


def a_map() -> np.ndarray:
    ids = np.zeros((8, 10), np.int64)
    ids[1:3, 1:4] = 70_000
    ids[6:8, 8:10] = 300
    ids[4, 0:10] = ids[5, 0:10] = 9
    return ids


def save_map(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.stack([ids >> 16, ids >> 8 & 255, ids & 255], axis=-1).astype(np.uint8))  # OpenCV writes BGR


def save(folder: Path, segments: Any = SEGMENTS, **changes: Any) -> Path:
    """A set of one image; ``changes`` replace fields of its annotation. Returns the file."""
    path = folder / "annotations" / "panoptic_val.json"
    save_map(folder / "annotations" / "panoptic_val" / "sub" / "a.png", a_map())
    (folder / "images").mkdir()
    cv2.imwrite(str(folder / "images" / "a.jpg"), np.full((8, 10, 3), 40, np.uint8))
    document = {
        "images": [{"id": 5, "file_name": "a.jpg", "width": 10, "height": 8}],
        "categories": CATEGORIES,
        "annotations": [{"image_id": 5, "file_name": "sub/a.png", "segments_info": segments, **changes}],
    }
    path.write_text(json.dumps(document, indent=1))
    return path


def test_things_are_instances_and_everything_is_a_segment(tmp_path: Path) -> None:
    save(tmp_path)
    dataset = open_dataset(tmp_path, "val")
    assert isinstance(dataset, PanopticDataset) and dataset.kind == "coco" and len(dataset) == 1 and not dataset.findings
    assert [(category.id, category.name) for category in dataset.categories] == [(3, "cat"), (7, "dog")]
    assert dataset.panoptic_categories == ((3, "cat", True), (7, "dog", True), (200, "sky", False))
    found = dataset.instances(0)
    np.testing.assert_array_equal(found.boxes, [[1, 1, 4, 3], [8, 6, 10, 8]])
    assert found.labels.tolist() == [1, 0] and found.crowd.tolist() == [False, True] and found.areas.tolist() == [6, 4]
    for mask, segment_id in zip(found.masks, (70_000, 300), strict=True):
        assert mask is not None
        np.testing.assert_array_equal(mask.full(8, 10), a_map() == segment_id)
    np.testing.assert_array_equal(dataset.segment_map(0), a_map())
    assert dataset.segments(0) == ((70_000, 7, False, 6), (300, 3, True, 4), (9, 200, False, 20))
    assert dataset.read_image(0).shape == (8, 10, 3)
    truth = dataset.ground_truth()
    assert [(e["category_id"], e["iscrowd"], e["area"]) for e in truth["annotations"]] == [(7, 0, 6), (3, 1, 4)]


def changed(index: int, **changes: Any) -> list[Any]:
    return [{**segment, **changes} if n == index else segment for n, segment in enumerate(SEGMENTS)]


@pytest.mark.parametrize(
    ("segments", "fault", "message", "kept"),
    [
        (changed(1, category_id=8), Fault.UNKNOWN_CLASS, "image 5: segment 300: unknown category 8", 1),
        (changed(1, id=70_000), Fault.DUPLICATE_ID, "image 5: segment id 70000 appears twice", 1),
        (changed(1, id=0), Fault.MALFORMED, "segment id 0 is not an integer from 1 to 16777215", 1),
        (changed(1, id=1 << 24), Fault.MALFORMED, "segment id 16777216 is not", 1),
        (changed(1, iscrowd="x"), Fault.MALFORMED, "segment 300: iscrowd is x", 1),
        ([*SEGMENTS, 4], Fault.MALFORMED, "segment id None", 2),
        ([*SEGMENTS, {"id": 4, "category_id": 3}], Fault.EMPTY_MASK, "segment 4 has no pixel in a.png", 2),
        (SEGMENTS[:2], Fault.MALFORMED, "20 pixels of a.png belong to no segment of the file, the first to id 9", 2),
    ],
)
def test_faulty_segments_are_named_and_left_out(
    segments: list[Any], fault: Fault, message: str, kept: int, tmp_path: Path
) -> None:
    save(tmp_path, segments)
    dataset = open_dataset(tmp_path, "val", strict=False)
    found, findings = dataset.decode(0)
    assert len(found) == kept
    assert [each.fault for each in (*dataset.findings, *findings) if message in each.message] == [fault]
    assert all(each.where.line for each in findings)
    if fault.stops_training:
        with pytest.raises(DataError, match="preflight"):
            open_dataset(tmp_path, "val").instances(0)


@pytest.mark.parametrize(
    ("changes", "fault", "message"),
    [
        ({"file_name": "b.png"}, Fault.MISSING_MASK, "b.png not found"),
        ({"file_name": "../a.png"}, Fault.MALFORMED, "file_name ../a.png is no PNG in the folder"),
        ({"file_name": "a.jpg"}, Fault.MALFORMED, "file_name a.jpg is no PNG"),
        ({"image_id": 6}, Fault.MALFORMED, "unknown image_id 6"),
        ({"segments_info": 6}, Fault.MALFORMED, "no list segments_info"),
    ],
)
def test_without_a_sound_annotation_only_the_findings_are_left(
    changes: dict[str, Any], fault: Fault, message: str, tmp_path: Path
) -> None:
    save(tmp_path, **changes)
    dataset = open_dataset(tmp_path, "val", strict=False)
    assert len(dataset) == 0 and any(each.fault == fault and message in each.message for each in dataset.findings)
    with pytest.raises(DataError, match=message):
        open_dataset(tmp_path, "val")


def test_faults_of_the_list_of_annotations(tmp_path: Path) -> None:
    path = save(tmp_path)
    document = json.loads(path.read_text())
    cv2.imwrite(str(tmp_path / "images" / "b.jpg"), np.zeros((8, 10, 3), np.uint8))
    document["images"].append({"id": 6, "file_name": "b.jpg", "width": 10, "height": 8})
    document["annotations"] *= 2
    path.write_text(json.dumps(document))
    findings = open_dataset(tmp_path, "val", strict=False).findings
    assert [(each.fault, each.message) for each in findings] == [
        (Fault.DUPLICATE_ID, "image 5 is annotated twice"),
        (Fault.MISSING_MASK, "image 6 (b.jpg): no annotation names a PNG for it"),
    ]


def test_a_png_of_another_size_or_none_at_all(tmp_path: Path) -> None:
    png = save(tmp_path).parent / "panoptic_val" / "sub" / "a.png"
    dataset = open_dataset(tmp_path, "val")
    save_map(png, a_map()[:7])
    found, findings = dataset.decode(0)
    assert len(found) == 0 and [each.fault for each in findings] == [Fault.SIZE_MISMATCH]
    with pytest.raises(DataError, match="the PNG is 10x7, its image 10x8"):
        dataset.segment_map(0)
    png.write_bytes(b"no picture")
    found, findings = dataset.decode(0)
    assert len(found) == 0 and [each.fault for each in findings] == [Fault.MALFORMED]
    with pytest.raises(DataError, match="not an image"):
        dataset.instances(0)


def test_a_segment_left_out_makes_no_second_fault(tmp_path: Path) -> None:
    save(tmp_path, changed(1, category_id=8))
    dataset = open_dataset(tmp_path, "val", strict=False)
    assert [each.fault for each in dataset.findings] == [Fault.UNKNOWN_CLASS] and dataset.decode(0)[1] == []


def test_pngs_unpacked_beside_the_folder_of_annotations(tmp_path: Path) -> None:
    save(tmp_path).with_suffix("").rename(tmp_path / "panoptic_val")
    assert len(open_dataset(tmp_path, "val").instances(0)) == 2


def test_the_truth_needs_no_photos(tmp_path: Path) -> None:
    path = save(tmp_path)
    (tmp_path / "images" / "a.jpg").unlink()
    path.with_suffix("").rename(tmp_path / "elsewhere")
    dataset = PanopticDataset(path, tmp_path / "elsewhere", None)
    assert len(dataset.instances(0)) == 2 and dataset.split == "panoptic_val" and dataset.fingerprint()
    with pytest.raises(DataError, match="without its images"):
        dataset.read(0)


def test_the_fingerprint_sees_the_segments(tmp_path: Path) -> None:
    path = save(tmp_path)
    before = open_dataset(tmp_path, "val").fingerprint()
    ids = a_map()
    ids[0, 0] = 9
    save_map(path.parent / "panoptic_val" / "sub" / "a.png", ids)
    assert open_dataset(tmp_path, "val").fingerprint() != before


@pytest.mark.parametrize(("split", "images", "segments", "objects"), [("train", 26, 285, 181), ("val", 27, 263, 174)])
def test_the_real_set_in_both_layouts(shared_data: Path, split: str, images: int, segments: int, objects: int) -> None:
    """The instances that come with the set were made from its thing segments by others."""
    folder = shared_data / "coco-panoptic-mini"
    assert split_names(folder, "coco") == ["train", "val", "panoptic_train", "panoptic_val"]
    panoptic, instances = open_dataset(folder, f"panoptic_{split}"), open_dataset(folder, split)
    assert isinstance(panoptic, PanopticDataset) and len(panoptic.panoptic_categories) == 133
    assert len(panoptic) == len(instances) == images and panoptic.categories == instances.categories
    assert sum(len(panoptic.segments(index)) for index in range(images)) == segments
    places = {record.image_id: index for index, record in enumerate(instances.records)}
    total = 0
    for index, record in enumerate(panoptic.records):
        found, other = panoptic.instances(index), instances.instances(places[record.image_id])
        total += len(found)
        assert {_key(found, n) for n in range(len(found))} == {_key(other, n) for n in range(len(other))}
    assert total == objects and not panoptic.findings


def _key(found: Any, n: int) -> tuple[Any, ...]:
    mask = found.masks[n]
    return int(found.labels[n]), bool(found.crowd[n]), mask.x, mask.y, mask.bits.shape, mask.bits.tobytes()


@pytest.mark.parametrize("case", ["sample", "val27"])
def test_the_panoptic_reference_opens_without_photos(shared_data: Path, case: str) -> None:
    dataset = PanopticDataset(shared_data / "pq-reference" / case / "gt.json", None, None)
    for index in range(min(len(dataset), 4)):
        ids = dataset.segment_map(index)
        assert dataset.decode(index)[1] == []
        areas = {segment.segment_id: segment.area for segment in dataset.segments(index)}
        assert areas == {int(i): int((ids == i).sum()) for i in np.unique(ids) if i}
