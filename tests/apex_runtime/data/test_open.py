"""Which layout a folder is taken for; and the sets beside the checkout, counted against what their own pages say."""

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from apex_runtime.data.coco.dataset import CocoDataset
from apex_runtime.data.open import open_dataset, recognise, split_names
from apex_runtime.errors import UsageError

COCO = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 8, "height": 6}],
    "annotations": [],
    "categories": [{"id": 1, "name": "thing"}],
}


def add(root: Path, *layouts: str) -> Path:
    (root / "images").mkdir()
    cv2.imwrite(str(root / "images" / "a.jpg"), np.zeros((6, 8, 3), np.uint8))
    if "yolo" in layouts:
        (root / "data.yaml").write_text("names: [thing]\ntrain: images\n")
    if "coco" in layouts:
        (root / "annotations").mkdir()
        (root / "annotations" / "train.json").write_text(json.dumps(COCO))
    if "satellite" in layouts:
        (root / "masks").mkdir()
        cv2.imwrite(str(root / "masks" / "a.png"), np.zeros((6, 8), np.uint8))
    return root


def test_a_satellite_description_goes_before_annotations(tmp_path: Path, nuclei_fixture: Path) -> None:
    shutil.copytree(nuclei_fixture, tmp_path / "set")
    assert recognise(tmp_path / "set").kind == "coco"
    (tmp_path / "set" / "satellite.yaml").write_text("source: coco\n")
    found = recognise(tmp_path / "set")
    assert (found.kind, found.also) == ("satellite", ("coco",)) and "satellite.yaml" in found.reason


@pytest.mark.parametrize(
    ("layouts", "said"),
    [
        (["yolo"], "recognised as yolo: data.yaml describes a YOLO set"),
        (["coco"], "recognised as coco: annotations/train.json is a COCO file"),
        (["satellite"], "recognised as satellite: "),
        (["yolo", "coco"], "recognised as yolo: .* \\(also found: coco; choose with --dataset-type\\)"),
        (["coco", "satellite"], "recognised as coco: .* \\(also found: satellite; choose with --dataset-type\\)"),
        (["yolo", "coco", "satellite"], "recognised as yolo: .* \\(also found: coco, satellite; choose"),
    ],
)
def test_the_first_layout_wins_and_the_others_are_named(layouts: list[str], said: str, tmp_path: Path) -> None:
    found = recognise(add(tmp_path, *layouts))
    assert [found.kind, *found.also] == layouts
    assert re.search(said, str(found))


def test_a_layout_that_is_asked_for_is_taken(tmp_path: Path) -> None:
    add(tmp_path, "yolo", "coco")
    assert open_dataset(tmp_path, "train", "coco").kind == "coco"


def test_one_annotation_file_is_a_data_set(tmp_path: Path) -> None:
    file = add(tmp_path, "coco") / "annotations" / "train.json"
    assert recognise(file).kind == "coco" and split_names(file, "coco") == ["train"]
    assert open_dataset(file, "train").records[0].path == tmp_path / "images" / "a.jpg"


def test_labels_without_data_yaml_are_taken_for_nothing(tmp_path: Path) -> None:
    (add(tmp_path) / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(UsageError, match=r"labels/ holds text files .* data.yaml, which names the classes"):
        recognise(tmp_path)


@pytest.mark.parametrize("name", ["notes.txt", "list.csv"])
def test_a_file_that_describes_nothing(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("hello")
    with pytest.raises(UsageError, match="no data set recognised"):
        recognise(tmp_path / name)


COUNTS = {  # from the page of each set: images, objects
    "nuclei-dsb2018": {"train": (533, 23137), "val": (68, 3277), "test": (63, 2572)},
    "satellite-dubai": {"train": (54, 7048), "val": (9, 299), "test": (9, 417)},
    "satellite-banepa": {"train": (36, 1515), "val": (6, 142), "test": (6, 165)},
    "coco-mini": {"train": (80, 770), "val": (29, 286), "test": (28, 231)},
    "coco-panoptic-mini": {"train": (26, 181), "val": (27, 174)},
    "aerial-vehicles": {"train": (45, 1847), "val": (10, 360), "test": (10, 386)},
    "video-davis": {"test": (80, 80)},
}


def test_the_large_sets_have_the_images_and_objects_of_their_pages_and_no_fault(shared_data: Path) -> None:
    """Of the two largest splits one image in twenty is decoded, as the tests must be quick."""
    for name, splits in COUNTS.items():
        assert [split for split in split_names(shared_data / name, "coco") if "panoptic" not in split] == list(splits)
        for split, (images, objects) in splits.items():
            dataset = open_dataset(shared_data / name, split, "coco")
            assert isinstance(dataset, CocoDataset) and (len(dataset), dataset.findings) == (images, []), (name, split)
            sizes = {image_id: len(places) for image_id, places in dataset._places.items()}
            assert sum(sizes.values()) == objects, (name, split)
            for index in range(0, images, 20 if objects > 5000 else 1):
                found, findings = dataset.decode(index)
                assert (len(found), findings) == (sizes.get(dataset.records[index].image_id, 0), []), (name, split)
