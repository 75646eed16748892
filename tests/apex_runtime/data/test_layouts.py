"""Every folder layout that the docstring of ``coco_places`` names, and what must not be taken for one."""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from apex_runtime.data.layouts import coco_places, split_name
from apex_runtime.data.open import open_dataset, split_names
from apex_runtime.errors import UsageError


def document(*names: str) -> dict[str, Any]:
    return {
        "images": [{"id": n, "file_name": name, "width": 8, "height": 6} for n, name in enumerate(names)],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 1, 3, 3]}],
        "categories": [{"id": 1, "name": "thing"}],
    }


def build(root: Path, images: list[str], files: dict[str, Any]) -> Path:
    for name in images:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / name), np.zeros((6, 8, 3), np.uint8))
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return root


A = document("a.jpg")


@pytest.mark.parametrize(
    ("images", "file", "split"),
    [
        ("images/a.jpg", "annotations/train.json", "train"),
        ("images/train/a.jpg", "annotations/train.json", "train"),
        ("train2017/a.jpg", "annotations/instances_train2017.json", "train"),
        ("images/val2017/a.jpg", "annotations/instances_val2017.json", "val"),
        ("val/a.jpg", "annotations/instances_val2017.json", "val"),
        ("images/a.jpg", "annotations/valid.json", "val"),
        ("images/a.jpg", "annotations/validation.json", "val"),
        ("a.jpg", "annotations/test.json", "test"),
        ("valid/a.jpg", "valid/_annotations.coco.json", "val"),
        ("test/images/a.jpg", "test/annotations.json", "test"),
        ("train/a.jpg", "train/coco.json", "train"),
        ("images/default/a.jpg", "annotations/instances_default.json", "train"),
        ("images/a.jpg", "annotations/annotations.json", "train"),
        ("images/a.jpg", "annotations/roofs.json", "train"),
        ("images/a.jpg", "annotations.json", "train"),
        ("a.jpg", "_annotations.coco.json", "train"),
        ("images/a.jpg", "coco.json", "train"),
        ("images/a.jpg", "val.json", "val"),
        ("images/a.jpg", "result.json", "train"),
        ("data/a.jpg", "labels.json", "train"),
        ("valid/data/a.jpg", "valid/labels.json", "val"),
        ("train2017/a.jpg", "instances_train2017.json", "train"),
    ],
)
def test_one_split(images: str, file: str, split: str, tmp_path: Path) -> None:
    build(tmp_path, [images], {file: A})
    assert split_names(tmp_path, "coco") == [split]
    for data in (tmp_path, tmp_path / file):
        dataset = open_dataset(data, split)
        assert dataset.records[0].path == tmp_path / images and dataset.split == split and len(dataset.instances(0)) == 1


@pytest.mark.parametrize(
    ("images", "name"),
    [
        ("images/train/a.jpg", "train/a.jpg"),
        ("images/x.jpg", "images/x.jpg"),
        ("images/x.jpg", "./x.jpg"),
        ("photos/monday/x.jpg", "photos/monday/x.jpg"),
        ("images/été/x y.jpg", "été/x y.jpg"),
    ],
)
def test_file_names_with_folders(images: str, name: str, tmp_path: Path) -> None:
    build(tmp_path, [images], {"annotations/train.json": document(name)})
    assert open_dataset(tmp_path, "train").records[0].path == tmp_path / images


def test_images_are_looked_for_one_by_one(tmp_path: Path) -> None:
    build(
        tmp_path,
        ["images/a.jpg", "images/train/b.jpg", "train/c.jpg"],
        {"annotations/train.json": document("a.jpg", "b.jpg", "c.jpg")},
    )
    found = [record.path.relative_to(tmp_path).as_posix() for record in open_dataset(tmp_path, "train").records]
    assert found == ["images/a.jpg", "images/train/b.jpg", "train/c.jpg"]


def test_the_splits_of_coco_itself(tmp_path: Path) -> None:
    """Its other tasks lie in the same folder; instances win over the panoptic segments of the same images."""
    captions = {"images": A["images"], "annotations": [{"id": 1, "image_id": 0, "caption": "a thing"}]}
    files = {
        f"annotations/{task}_{split}2017.json": A
        for task in ("instances", "person_keypoints", "stuff")
        for split in ("train", "val")
    }
    files |= {"annotations/captions_val2017.json": captions, "annotations/more_words.json": captions}
    files |= {"annotations/results.json": [1], "annotations/panoptic_val2017.json": A, "annotations/panoptic_test.json": A}
    build(tmp_path, ["val2017/a.jpg"], files)
    assert split_names(tmp_path, "coco") == ["train", "val", "test", "panoptic_val2017"]
    assert {name: place.annotations.stem for name, place in coco_places(tmp_path).items()} == {
        "train": "instances_train2017",
        "val": "instances_val2017",
        "test": "panoptic_test",
        "panoptic_val2017": "panoptic_val2017",
    }


def test_several_splits_of_roboflow(tmp_path: Path) -> None:
    folders = {"train": "train", "valid": "val", "test": "test"}
    build(tmp_path, [f"{folder}/a.jpg" for folder in folders], {f"{folder}/_annotations.coco.json": A for folder in folders})
    assert split_names(tmp_path, "coco") == ["train", "val", "test"]
    for folder, split in folders.items():
        assert open_dataset(tmp_path, split).records[0].path == tmp_path / folder / "a.jpg"


def test_names_that_say_no_split_stay_when_there_are_several(tmp_path: Path) -> None:
    build(
        tmp_path,
        ["images/a.jpg"],
        {"annotations/north.json": A, "annotations/south.json": A, "annotations/classes.json": {"a": 1}},
    )
    assert split_names(tmp_path, "coco") == ["north", "south"]


def test_a_broken_file_whose_name_says_a_split_is_not_passed_over(tmp_path: Path) -> None:
    build(tmp_path, ["images/a.jpg"], {"annotations/train.json": json.dumps(A)[:-40], "annotations/val.json": A})
    assert split_names(tmp_path, "coco") == ["train", "val"]


def test_a_large_file_is_judged_by_its_ends(tmp_path: Path) -> None:
    padding = " " * (2 << 20)
    north = json.dumps(A).replace('"annotations"', f'{padding}"annotations"{padding}')
    build(tmp_path, ["images/a.jpg"], {"annotations/north.json": north, "annotations/south.json": f"[{padding}{padding}]"})
    assert split_names(tmp_path, "coco") == ["train"]


def test_other_json_beside_images_is_no_data_set(tmp_path: Path) -> None:
    build(
        tmp_path,
        ["images/a.jpg"],
        {"classes.json": {"a": 1}, "labels.json": {"a": 1}, "results.json": A, "captions_train.json": A},
    )
    with pytest.raises(UsageError, match="no data set recognised"):
        open_dataset(tmp_path, "train")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("valid", "val"),
        ("Validation", "val"),
        ("instances_train2017", "train"),
        ("val_2014", "val"),
        ("testing", "test"),
        ("panoptic_val2017", "val"),
        ("tile7", "tile7"),
        ("train_extra", "train_extra"),
    ],
)
def test_the_split_that_a_name_stands_for(name: str, split: str) -> None:
    assert split_name(name) == split


def test_a_set_may_be_moved(nuclei_fixture: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(nuclei_fixture, tmp_path / "copy")
    assert open_dataset(copy, "val").fingerprint() == open_dataset(nuclei_fixture, "val").fingerprint()
