from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from coco_document import BITS, DOCUMENT, USUAL, changed, found_in, save
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from apex_runtime.data.coco.dataset import CocoDataset
from apex_runtime.data.coco.masks import decode_segmentation
from apex_runtime.data.open import open_dataset
from apex_runtime.errors import DataError, UsageError


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
    assert len(dataset) == 2
    np.testing.assert_array_equal(dataset.read_image(0)[0, 0], [3, 2, 1])


def test_boxes_labels_and_masks_of_every_form(dataset: CocoDataset) -> None:
    found = dataset.instances(0)
    assert len(found) == 5
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


def test_the_truth_for_an_evaluator_is_what_the_file_says_of_what_is_kept(dataset: CocoDataset) -> None:
    truth = dataset.ground_truth()
    given = {entry["id"]: entry for entry in DOCUMENT["annotations"]}
    assert truth["images"] == DOCUMENT["images"]
    assert truth["categories"] == sorted(DOCUMENT["categories"], key=lambda entry: entry["id"])
    assert [entry["id"] for entry in truth["annotations"]] == [0, 1, 2, 3, 6]
    for entry in truth["annotations"][:4]:
        assert given[entry["id"]].items() <= entry.items()
    assert truth["annotations"][4]["segmentation"] == given[6]["segmentation"][1:]
    assert [entry["area"] for entry in truth["annotations"]] == [16.5, 16, 16, 990, 22]


@pytest.mark.parametrize("box", [[0, 0, 30.9, 20.5], [-0.9, -1, 5, 5], [29, 19, 2, 2]])
def test_a_box_rounded_to_the_next_pixel_is_no_warning(box: list[float], tmp_path: Path) -> None:
    save(tmp_path, changed("annotations.0.bbox", box))
    assert set(found_in(open_dataset(tmp_path, "train"))) == USUAL


@pytest.mark.parametrize("segmentation", [[], [[]], None, ...])
def test_an_object_with_a_box_only(segmentation: Any, tmp_path: Path) -> None:
    save(tmp_path, changed("annotations.0.segmentation", segmentation))
    dataset = open_dataset(tmp_path, "train")
    assert dataset.instances(0).masks[0] is None and set(found_in(dataset)) == USUAL
    assert dataset.ground_truth()["annotations"][0]["segmentation"] == []


@pytest.mark.parametrize("entry", [0, 1, 2])
def test_a_box_that_is_absent_is_that_of_the_mask(entry: int, tmp_path: Path) -> None:
    save(tmp_path, changed(f"annotations.{entry}.bbox", ...))
    dataset = open_dataset(tmp_path, "train")
    np.testing.assert_array_equal(dataset.instances(0).boxes[entry], [10, 5, 14, 9])
    assert dataset.ground_truth()["annotations"][entry]["bbox"] == [10, 5, 4, 4] and set(found_in(dataset)) == USUAL


@pytest.mark.parametrize("area", ["big", None, -3, 0, float("nan")])
def test_an_area_that_is_none_is_that_of_the_mask(area: Any, tmp_path: Path) -> None:
    save(tmp_path, changed("annotations.0.area", area))
    assert open_dataset(tmp_path, "train").instances(0).areas[0] == 16


def test_crossing_outlines_have_an_area(tmp_path: Path) -> None:
    """The signed area of a bow tie is 0; pycocotools fills it all the same."""
    bow = [2, 2, 12, 12, 12, 2, 2, 12]
    save(tmp_path, changed("annotations.0.segmentation", [bow]))
    mask = open_dataset(tmp_path, "train").instances(0).masks[0]
    assert mask is not None and mask.area == coco_mask.area(coco_mask.frPyObjects([bow], 20, 30)[0]) > 0


@pytest.mark.parametrize("spread", [20, 100, 400])
def test_outlines_that_are_cut_fill_what_pycocotools_fills(spread: int) -> None:
    """Equal within a side of the image; beyond it the ends of cut edges are rounded to a fifth of a pixel elsewhere."""
    rng = np.random.default_rng(spread)
    for _ in range(100):
        points = rng.normal((30, 20), spread, (int(rng.integers(3, 9)), 2)).round(2)
        part = points.reshape(-1).tolist()
        expected = coco_mask.decode(coco_mask.frPyObjects([part], 40, 60)[0])
        mask = decode_segmentation([part], 40, 60).mask
        given = mask.full(40, 60) if mask is not None else np.zeros((40, 60), np.uint8)
        near = (np.abs(points - (30, 20)) <= (90, 60)).all()
        assert (given != expected).sum() <= (0 if near else 40)


def test_outlines_far_beyond_the_image_fill_its_part(tmp_path: Path) -> None:
    """Coordinates that pycocotools could not walk along: half of the image, to a pixel, and no memory."""
    far = 1e12
    save(tmp_path, changed("annotations.0.segmentation", [[15, -far, far, -far, far, far, 15, far]]))
    mask = open_dataset(tmp_path, "train").instances(0).masks[0]
    assert mask is not None and (mask.x, mask.y, mask.bits.shape) == (15, 0, (20, 15)) and mask.area == 300


def test_missing_folders_and_splits(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="data folder not found"):
        open_dataset(tmp_path / "absent", "train")
    save(tmp_path, DOCUMENT, images=False)
    with pytest.raises(DataError, match=r"none of its 2 images is there, the first is image 7 .* looked in .*images,"):
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
    dataset = open_dataset(shared_data / name, "val", "coco")
    assert_equals_pycocotools(dataset, 15)
    assert dataset.read_image(0).shape[2] == 3
