import copy
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from apex_runtime.data.coco import CocoDataset
from apex_runtime.data.open import open_dataset
from apex_runtime.errors import DataError, UsageError

BITS = np.zeros((20, 30), np.uint8)
BITS[5:9, 10:14] = 1
COMPRESSED = coco_mask.encode(np.asfortranarray(BITS))["counts"].decode()
FIRST_RUN = 10 * 20 + 5
SQUARE = [10, 5, 14, 5, 14, 9, 10, 9]

DOCUMENT: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "sub/a.png", "width": 30, "height": 20},
        {"id": 3, "file_name": "b.png", "width": 30, "height": 20},
    ],
    "categories": [{"id": 90, "name": "z"}, {"id": 5, "name": "a"}, {"id": 17, "name": "m"}],
    "annotations": [
        {"id": 0, "image_id": 7, "category_id": 90, "bbox": [10, 5, 4, 4], "segmentation": [SQUARE], "area": 16.5, "iscrowd": 0},
        {
            "id": 1,
            "image_id": 7,
            "category_id": 5,
            "bbox": [10, 5, 4, 4],
            "segmentation": {"size": [20, 30], "counts": COMPRESSED},
        },
        {
            "id": 2,
            "image_id": 7,
            "category_id": 17,
            "bbox": [10, 5, 4, 4],
            "iscrowd": 1,
            "segmentation": {"size": [20, 30], "counts": [FIRST_RUN, 4, 16, 4, 16, 4, 16, 4, 600 - FIRST_RUN - 64]},
        },
        {"id": 3, "image_id": 7, "category_id": 5, "bbox": [-5, 15, 10, 99], "segmentation": []},
        {"id": 4, "image_id": 7, "category_id": 5, "bbox": [2, 2, 0, 9], "segmentation": []},
        {"id": 5, "image_id": 7, "category_id": 5, "bbox": [31, 2, 5, 9]},
        {
            "id": 6,
            "image_id": 7,
            "category_id": 5,
            "bbox": [0, 0, 14, 9],
            "segmentation": [[1, 1, 2, 2], SQUARE, [0, 0, 3, 0, 3, 2, 0, 2]],
        },
    ],
}


def save(folder: Path, document: Any, images: bool = True) -> Path:
    path = folder / "annotations" / "train.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    if images:
        (folder / "images" / "sub").mkdir(parents=True, exist_ok=True)
        for name in ("sub/a.png", "b.png"):
            cv2.imwrite(str(folder / "images" / name), np.full((20, 30, 3), (1, 2, 3), np.uint8))
    return path


@pytest.fixture
def dataset(tmp_path: Path) -> CocoDataset:
    save(tmp_path, DOCUMENT)
    return open_dataset(tmp_path, "train")


def test_records_and_categories(dataset: CocoDataset) -> None:
    assert [category.id for category in dataset.categories] == [5, 17, 90]
    assert [(record.image_id, record.file_name, record.width, record.height) for record in dataset.records] == [
        (7, "sub/a.png", 30, 20),
        (3, "b.png", 30, 20),
    ]
    assert len(dataset) == 2 and dataset.ground_truth() == DOCUMENT
    np.testing.assert_array_equal(dataset.read_image(0)[0, 0], [3, 2, 1])


def test_boxes_labels_and_masks_of_every_form(dataset: CocoDataset) -> None:
    found = dataset.instances(0)
    assert len(found) == 5 and dataset.dropped_boxes == 2
    np.testing.assert_array_equal(found.boxes[:4], [[10, 5, 14, 9]] * 3 + [[0, 15, 5, 20]])
    assert found.boxes.dtype == np.float32 and found.labels.dtype == np.int64 and found.areas.dtype == np.float32
    assert found.labels.tolist() == [2, 0, 1, 0, 0]
    assert found.crowd.tolist() == [False, False, True, False, False]
    assert found.areas.tolist() == [16.5, 16, 16, 990, 22]
    for mask in found.masks[:3]:
        assert mask is not None and (mask.x, mask.y, *mask.bits.shape) == (10, 5, 4, 4)
        np.testing.assert_array_equal(mask.full(20, 30), BITS)
    assert found.masks[3] is None
    several = found.masks[4]
    assert several is not None and several.area == 22 and (several.x, several.y) == (0, 0)


def test_an_image_without_objects(dataset: CocoDataset) -> None:
    found = dataset.instances(1)
    assert len(found) == 0 and found.boxes.shape == (0, 4) and found.masks == []
    assert found.crowd.dtype == bool and found.areas.shape == (0,)


def test_images_may_lie_in_a_folder_named_like_the_split(tmp_path: Path) -> None:
    save(tmp_path, DOCUMENT)
    (tmp_path / "images" / "train").mkdir()
    (tmp_path / "images" / "b.png").rename(tmp_path / "images" / "train" / "b.png")
    assert open_dataset(tmp_path, "train").records[1].path == tmp_path / "images" / "train" / "b.png"


def changed(path: str, value: Any) -> dict[str, Any]:
    """The document with the value at ``list.index.key`` replaced, or removed when it is ``...``."""
    document = copy.deepcopy(DOCUMENT)
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = document
    for part in way:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return document


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a COCO instance file"),
        ({"images": [], "annotations": []}, "no list categories"),
        (changed("images", []), "list of images is empty"),
        (changed("categories", []), "list of categories is empty"),
        (changed("categories.0.id", 5), "category ids appear twice: 5"),
        (changed("categories.0.name", ...), "categories lack id or name"),
        (changed("images.0", "a.png"), "entries of images are not objects"),
        (changed("images.1.id", 7), "image ids appear twice: 7"),
        (changed("images.0.width", 0), "positive width and height"),
        (changed("images.0.file_name", "../../etc/passwd"), "leaves the image folder"),
        (changed("images.0.file_name", "/etc/passwd"), "leaves the image folder"),
        (changed("images.0.file_name", "..\\a.png"), "leaves the image folder"),
        (changed("images.0.file_name", "absent.png"), "1 of 2 images are absent.*absent.png"),
        (changed("annotations.0.category_id", 6), r"unknown category: 0 \(category 6\)"),
        (changed("annotations.0.image_id", 99), "unknown image_id"),
        (changed("annotations.1.id", 0), "annotation ids appear twice: 0"),
        (changed("annotations.0.bbox", ...), "finite bbox"),
        (changed("annotations.0.bbox", [1, 2, 3]), "finite bbox"),
        (changed("annotations.0.bbox", [1, 2, 3, float("nan")]), "finite bbox"),
        (changed("annotations.0.segmentation", [[1, 2, 3]]), "neither polygons nor an RLE"),
        (changed("annotations.0.segmentation", [["a"] * 6]), "neither polygons nor an RLE"),
        (changed("annotations.1.segmentation.size", [30, 20]), "neither polygons nor an RLE"),
        (changed("annotations.1.segmentation.counts", None), "neither polygons nor an RLE"),
    ],
)
def test_a_broken_file_is_refused_by_name(document: Any, reason: str, tmp_path: Path) -> None:
    path = save(tmp_path, document)
    with pytest.raises(DataError, match=reason) as caught:
        open_dataset(tmp_path, "train")
    assert str(path) in str(caught.value) and caught.value.remedy


@pytest.mark.parametrize("counts", [[600, 5], "0p", [-5, 605]])
def test_a_broken_mask_is_named_when_it_is_read(counts: Any, tmp_path: Path) -> None:
    save(tmp_path, changed("annotations.1.segmentation.counts", counts))
    with pytest.raises(DataError, match=r"annotation 1 \(sub/a.png\)"):
        open_dataset(tmp_path, "train").instances(0)


def test_many_offenders_are_counted_and_the_first_named(tmp_path: Path) -> None:
    document = copy.deepcopy(DOCUMENT)
    document["images"] += [{"id": 100 + i, "file_name": f"no{i}.png", "width": 9, "height": 9} for i in range(7)]
    save(tmp_path, document)
    with pytest.raises(DataError, match=r"7 of 9 images are absent under .*: no0.png, no1.png, no2.png and 4 more"):
        open_dataset(tmp_path, "train")


def test_missing_folders_and_splits(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="data folder not found"):
        open_dataset(tmp_path / "absent", "train")
    save(tmp_path, DOCUMENT, images=False)
    with pytest.raises(DataError, match="image folder"):
        open_dataset(tmp_path, "train")
    with pytest.raises(UsageError, match="Splits found: train"):
        open_dataset(tmp_path, "test")


def test_an_image_of_another_size_is_refused(dataset: CocoDataset) -> None:
    cv2.imwrite(str(dataset.records[0].path), np.zeros((30, 20, 3), np.uint8))
    with pytest.raises(DataError, match=r"the image is 20x30, .* says 30x20"):
        dataset.read_image(0)


def assert_equals_pycocotools(dataset: CocoDataset, images: int) -> None:
    reference = COCO(str(dataset.source))
    for index, record in enumerate(dataset.records[:images]):
        found = dataset.instances(index)
        entries = [e for e in reference.imgToAnns[record.image_id] if e["bbox"][2] > 0 and e["bbox"][3] > 0]
        assert len(found) == len(entries)
        for entry, mask in zip(entries, found.masks, strict=True):
            assert mask is not None
            np.testing.assert_array_equal(mask.full(record.height, record.width), reference.annToMask(entry))


@pytest.mark.parametrize(("split", "images", "objects"), [("train", 5, 86), ("val", 3, 61)])
def test_the_committed_images(nuclei_fixture: Path, split: str, images: int, objects: int) -> None:
    dataset = open_dataset(nuclei_fixture, split)
    assert len(dataset) == images
    assert sum(len(dataset.instances(index)) for index in range(images)) == objects
    assert all(dataset.read_image(index).std() > 0 for index in range(images))
    assert_equals_pycocotools(dataset, images)


@pytest.mark.parametrize("name", ["nuclei-dsb2018", "coco-mini", "satellite-banepa", "satellite-dubai"])
def test_masks_of_the_large_sets_equal_pycocotools(shared_data: Path, name: str) -> None:
    dataset = open_dataset(shared_data / name, "val")
    assert_equals_pycocotools(dataset, 15)
    assert dataset.read_image(0).shape[2] == 3
