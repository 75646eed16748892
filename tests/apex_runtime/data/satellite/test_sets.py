"""The large sets: counts as their README files say, and masks that agree with their annotations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from satellite_sets import describe_as

from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.data.findings import Fault, Finding
from apex_runtime.data.open import open_dataset, split_names

SPLITS = ("train", "val", "test")


def tally(dataset: InstanceDataset) -> tuple[int, int, list[Finding]]:
    """Images, objects and findings."""
    decoded = [dataset.decode(n) for n in range(len(dataset))]
    objects = sum(int((~found.crowd).sum()) for found, _ in decoded)
    return len(dataset), objects, [*dataset.findings, *(finding for _, findings in decoded for finding in findings)]


def check(data: Path, expected: dict[str, tuple[int, int]]) -> None:
    """Images and objects per split; no error as the set is."""
    assert split_names(data, "satellite") == list(expected)
    for split, numbers in expected.items():
        images, objects, findings = tally(open_dataset(data, split, "satellite"))
        assert (images, objects) == numbers, split
        assert [finding for finding in findings if finding.fault.is_error] == []


def test_dubai_masks_are_the_annotations(shared_data: Path, tmp_path: Path) -> None:
    data = shared_data / "satellite-dubai"
    description = describe_as(tmp_path, path=str(data), source="masks")
    counts, specks = [], 0
    for split in SPLITS:
        annotated, decoded = open_dataset(data, split, "coco"), open_dataset(description, split, "satellite")
        assert annotated.categories == decoded.categories
        place = {record.file_name: n for n, record in enumerate(annotated.records)}
        total = 0
        for n, record in enumerate(decoded.records):
            found, findings = decoded.decode(n)
            truth = annotated.instances(place[record.file_name])
            assert keys(found.labels, found.masks) == keys(truth.labels, truth.masks), record.file_name
            assert {finding.fault for finding in findings} <= {Fault.SMALL_PIECES}
            specks += sum(int(finding.message.split()[0]) for finding in findings)
            total += len(found)
        counts.append(total)
    assert counts == [7048, 299, 417] and specks == 14_936


def keys(labels: np.ndarray, masks: list) -> set[tuple[int, int, int, bytes]]:
    return {(int(label), mask.x, mask.y, mask.bits.tobytes()) for label, mask in zip(labels, masks, strict=True)}


def test_sets_with_coco_files_are_read_through_them(shared_data: Path) -> None:
    check(shared_data / "satellite-dubai", {"train": (54, 7048), "val": (9, 299), "test": (9, 417)})
    check(shared_data / "satellite-banepa", {"train": (36, 1515), "val": (6, 142), "test": (6, 165)})


def test_banepa_components_lose_what_touches(shared_data: Path, tmp_path: Path) -> None:
    description = describe_as(tmp_path, path=str(shared_data / "satellite-banepa"), source="masks")
    check(description, {"train": (36, 701), "val": (6, 86), "test": (6, 78)})


def test_davis_masks_are_one_test_split(shared_data: Path, tmp_path: Path) -> None:
    # The mask of a frame is one object in the annotations; rider and bicycle are often two regions and more.
    check(describe_as(tmp_path, path=str(shared_data / "video-davis"), source="masks"), {"test": (80, 130)})


@pytest.mark.parametrize("windows", [{}, {"window": 256, "overlap": 64}])
def test_boxes_of_the_trees(shared_data: Path, tmp_path: Path, windows: dict[str, int]) -> None:
    data = shared_data / "format-samples" / "trees-voc"
    dataset = open_dataset(describe_as(tmp_path, path=str(data), **windows), "train")
    assert [category.name for category in dataset.categories] == ["Alive", "Dead", "Tree"]
    if not windows:
        check(data, {"train": (3, 377)})
        by_image = {record.file_name: len(dataset.instances(n)) for n, record in enumerate(dataset.records)}
        assert by_image == {"2019_YELL_2_541000_4977000_image_crop.png": 279, "OSBS_029.tif": 61, "SOAP_061.png": 37}
    else:
        assert len(dataset) > 3 and tally(dataset)[1] > 377  # trees in the overlap are in two windows


def test_the_uint16_scene_has_its_43_polygons(shared_data: Path) -> None:
    data = shared_data / "format-samples" / "spacenet-uint16"
    check(data, {"train": (1, 43)})
    picture = open_dataset(data, "train").read(0)
    assert picture.pixels.shape == (900, 900, 3) and picture.scaling is not None and picture.scaling.high < 6615


def test_banepa_from_tiffs_and_one_geojson_is_what_was_converted(shared_data: Path, tmp_path: Path) -> None:
    data = shared_data / "satellite-banepa"
    polygons = "raw_vector/buildings_epsg4326.geojson"
    description = describe_as(tmp_path, path=str(data), images="raw_tif", polygons=polygons, classes=["building"])
    check(description, {"train": (36, 1515), "val": (6, 142), "test": (6, 165)})
    converted, placed = open_dataset(data, "val", "coco"), open_dataset(description, "val", "satellite")
    index = {Path(record.file_name).stem: n for n, record in enumerate(converted.records)}
    for n, record in enumerate(placed.records):
        truth, found = converted.instances(index[Path(record.file_name).stem]), placed.instances(n)
        left = [mask.full(512, 512) for mask in found.masks if mask is not None]
        for mask in truth.masks:
            assert mask is not None
            full = mask.full(512, 512)
            ious = [(full & other).sum() / (full | other).sum() for other in left]
            best = int(np.argmax(ious))
            assert ious[best] >= 0.9  # the annotations are rounded to a hundredth of a pixel
            left.pop(best)
