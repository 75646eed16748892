from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from satellite_sets import describe_as, write_pair

from apex_runtime.data.findings import Fault
from apex_runtime.data.open import open_dataset, split_names
from apex_runtime.errors import ConfigError, DataError

PATTERN = r"^(tile\d+)_"


def tiles(root: Path, *names: str) -> Path:
    for name in names:
        write_pair(root, f"images/{name}.png", f"masks/{name}.png")
    return root


def members(root: Path) -> dict[str, list[str]]:
    return {
        split: [record.file_name for record in open_dataset(root, split, "satellite").records]
        for split in split_names(root, "satellite")
    }


def overlaps(root: Path, split: str = "train") -> list[str]:
    dataset = open_dataset(root, split, "satellite", strict=False)
    return [finding.message for finding in dataset.findings if finding.fault is Fault.SPLIT_OVERLAP]


def test_areas_go_where_the_description_says_and_the_rest_is_train(tmp_path: Path) -> None:
    tiles(tmp_path, "tile1_1", "tile1_2", "tile2_1", "tile3_1", "tile4_1")
    describe_as(tmp_path, split={"areas": {"valid": ["tile2"], "test": ["tile3"]}, "pattern": PATTERN})
    assert members(tmp_path) == {
        "train": ["tile1_1.png", "tile1_2.png", "tile4_1.png"],
        "val": ["tile2_1.png"],
        "test": ["tile3_1.png"],
    }
    assert overlaps(tmp_path) == []


def test_without_a_pattern_the_folder_is_the_area(tmp_path: Path) -> None:
    tiles(tmp_path, "vienna/1", "vienna/2", "kabul/1")
    describe_as(tmp_path, split={"areas": {"val": ["kabul"]}})
    assert members(tmp_path) == {"train": ["vienna/1.png", "vienna/2.png"], "val": ["kabul/1.png"]}


def test_an_area_in_two_splits_is_a_leak(tmp_path: Path) -> None:
    tiles(tmp_path, "tile1_1", "tile2_1")
    describe_as(tmp_path, split={"areas": {"val": ["tile2"], "test": ["tile2"]}, "pattern": PATTERN})
    assert len(overlaps(tmp_path)) == 1 and "tile2 is in val and in test" in overlaps(tmp_path)[0]


def test_areas_that_no_scene_has_and_scenes_without_area_are_refused(tmp_path: Path) -> None:
    tiles(tmp_path, "tile1_1", "roof")
    describe_as(tmp_path, split={"areas": {"val": ["tile1"]}, "pattern": PATTERN})
    with pytest.raises(ConfigError, match="no area in the names of 1 scenes: roof"):
        members(tmp_path)
    (tmp_path / "images/roof.png").unlink()
    describe_as(tmp_path, split={"areas": {"val": ["tile9"]}, "pattern": PATTERN})
    with pytest.raises(ConfigError, match="no scene is of area tile9"):
        members(tmp_path)


def test_regions_share_no_pixel_and_cover_the_scene(tmp_path: Path) -> None:
    write_pair(tmp_path, "images/a.png", "masks/a.png", height=101, width=67)
    regions = {"train": [0, 0, 1, 0.7], "val": [0, 0.7, 0.5, 1], "test": [0.5, 0.7, 1, 1]}
    describe_as(tmp_path, split={"regions": regions}, window=16, overlap=5)
    seen = {}
    whole = np.zeros((101, 67), int)
    for split in regions:
        dataset = open_dataset(tmp_path, split)
        seen[split] = np.zeros((101, 67), bool)
        for record in dataset.records:
            x, y = map(int, record.file_name.removesuffix(".png").partition("@")[2].split("_"))
            seen[split][y : y + record.height, x : x + record.width] = True
        whole += seen[split]
    assert (whole == 1).all()
    assert overlaps(tmp_path) == []


def test_a_region_without_a_pixel_has_no_image(tmp_path: Path) -> None:
    write_pair(tmp_path, "images/a.png", "masks/a.png", height=2, width=60)
    write_pair(tmp_path, "images/b.png", "masks/b.png")
    describe_as(tmp_path, split={"regions": {"train": [0, 0, 1, 0.9], "val": [0, 0.9, 1, 1]}})
    assert members(tmp_path) == {"train": ["a.png", "b@0_0.png"], "val": ["b@0_36.png"]}


def test_regions_that_intersect_are_a_leak(tmp_path: Path) -> None:
    tiles(tmp_path, "a")
    describe_as(tmp_path, split={"regions": {"train": [0, 0, 1, 0.7], "val": [0, 0.6, 1, 1]}})
    assert overlaps(tmp_path) == ["the regions of train and val intersect"]


def coco_list(root: Path, split: str, *names: str) -> None:
    (root / "annotations").mkdir(exist_ok=True)
    images = [{"id": n, "file_name": name, "width": 60, "height": 40} for n, name in enumerate(names, 1)]
    document = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    (root / "annotations" / f"{split}.json").write_text(json.dumps(document))


def test_image_lists_split_masks(tmp_path: Path) -> None:
    tiles(tmp_path, "a", "b", "c", "d")
    coco_list(tmp_path, "train", "a.png", "b.jpg")
    coco_list(tmp_path, "val", "c.png")
    describe_as(tmp_path, source="masks")
    assert members(tmp_path) == {"train": ["a.png", "b.png"], "val": ["c.png"]}
    found = open_dataset(tmp_path, "train", "satellite").findings
    assert [(finding.fault, finding.where.path.name) for finding in found] == [(Fault.UNUSED_FILE, "d.png")]


@pytest.mark.parametrize("source", ["masks", "coco"])
def test_an_image_in_two_lists_is_a_leak(tmp_path: Path, source: str) -> None:
    tiles(tmp_path, "a", "b")
    coco_list(tmp_path, "train", "a.png")
    coco_list(tmp_path, "val", "a.png", "b.png")
    describe_as(tmp_path, source=source)
    assert overlaps(tmp_path) == ["this image is in train and in val"]


def test_a_rule_wins_over_lists(tmp_path: Path) -> None:
    tiles(tmp_path, "tile1_1", "tile2_1")
    coco_list(tmp_path, "train", "tile1_1.png", "tile2_1.png")
    for source in ("masks", "coco"):
        describe_as(tmp_path, source=source, split={"areas": {"test": ["tile1"]}, "pattern": PATTERN})
        assert members(tmp_path) == {"train": ["tile2_1.png"], "test": ["tile1_1.png"]}


def web_tile(x: int, y: int) -> str:
    return f"OAM-{x}-{y}-19"


def test_neighbours_on_the_ground_are_no_leak(tmp_path: Path) -> None:
    for split, x in (("train", 386690), ("val", 386691)):
        write_pair(tmp_path, f"images/{split}/{web_tile(x, 220241)}.png", f"masks/{split}/{web_tile(x, 220241)}.png")
    assert overlaps(tmp_path) == overlaps(tmp_path, "val") == []


def test_the_same_ground_in_two_splits_is_a_leak(tmp_path: Path) -> None:
    # One tile at zoom 19, and the tile at zoom 18 that holds it and three others.
    for split, name in (("train", "a-386690-220241-19"), ("val", "b-193345-110120-18"), ("test", "c-193346-110120-18")):
        write_pair(tmp_path, f"images/{split}/{name}.png", f"masks/{split}/{name}.png", height=50, width=50)
    found = overlaps(tmp_path)
    assert found == ["2500 pixels of this scene (train) are also in val/b-193345-110120-18.png (val)"]
    assert overlaps(tmp_path, "val") == found


def test_a_list_that_is_none_is_refused(tmp_path: Path) -> None:
    tiles(tmp_path, "a")
    coco_list(tmp_path, "train", "a.png")
    describe_as(tmp_path, source="masks")
    for text in ("{}", '{"images": ' + "[" * 200_000):
        (tmp_path / "annotations/train.json").write_text(text)
        with pytest.raises(DataError, match=r"train\.json"):
            members(tmp_path)
