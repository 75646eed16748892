from __future__ import annotations

from pathlib import Path

import pytest
from satellite_sets import describe_as, write_pair

from apex_runtime.data.open import open_dataset, recognise
from apex_runtime.data.satellite.description import Description, describe
from apex_runtime.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"imagse": "x"}, "imagse"),
        ({"path": "nowhere"}, "no folder"),
        ({"images": "../x"}, "leaves the data folder"),
        ({"masks": "/etc"}, "leaves the data folder"),
        ({"polygons": ["a", "../b"]}, "leaves the data folder"),
        ({"classes": "../c.json"}, "leaves the data folder"),
        ({"window": 100, "overlap": 100}, "overlap 100 is more than half of window 100"),
        ({"window": 100, "overlap": 51}, "overlap 51 is more than half of window 100"),
        ({"overlap": 513}, "overlap 513 is more than half of window 1024"),
        ({"window": True}, "expected a number"),
        ({"window": 0, "overlap": 0}, "windows of 0 pixels"),
        ({"min_area": 0}, "min_area"),
        ({"connectivity": 6}, "connectivity"),
        ({"colour_tolerance": 128}, "colour_tolerance"),
        ({"source": "guess"}, "source"),
        ({"classes": [{"name": "a", "value": 1}, {"name": "a"}]}, "names appear twice"),
        ({"classes": [{"name": "a", "colour": "#123456"}]}, "colour"),
        ({"classes": "c.json", "ignore": [{"name": "a", "value": 1}]}, "ignore belongs into"),
        ({"split": {}}, "either areas or regions"),
        ({"split": {"areas": {"val": ["a"]}, "regions": {"val": [0, 0, 1, 1]}}}, "either areas or regions"),
        ({"split": {"areas": {"val": ["a"], "valid": ["b"]}}}, "named twice"),
        ({"split": {"areas": {"val": ["a"]}, "pattern": "("}}, "not a regular expression"),
        ({"split": {"areas": {"val": ["a"]}, "pattern": "a"}}, "exactly one group"),
        ({"split": {"regions": {"val": [0, 0, 1, 1]}, "pattern": "(a)"}}, "pattern belongs to areas"),
        ({"split": {"regions": {"val": [0, 0.5, 1, 0.5]}}}, "x0 < x1"),
        ({"split": {"regions": {"val": [0, 0, 1, 1.5]}}}, "x0 < x1"),
    ],
)
def test_wrong_descriptions_are_refused(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        describe(describe_as(tmp_path, **options))


def test_what_is_no_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "satellite.yaml").write_text("images: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        describe(tmp_path)
    for text, message in (("path: 2020-13-45", "not valid YAML"), ("a: " + "[" * 2000, "levels"), ("a: &x 1\nb: *x", "aliases")):
        (tmp_path / "satellite.yaml").write_text(text)
        with pytest.raises(ConfigError, match=message):
            describe(tmp_path)
    (tmp_path / "satellite.yaml").write_text("- images")
    with pytest.raises(ConfigError, match="file: "):
        describe(tmp_path)


def test_path_is_relative_to_the_file(tmp_path: Path) -> None:
    write_pair(tmp_path / "data", "pictures/a.png", "truth/a.png")
    (tmp_path / "config").mkdir()
    file = describe_as(tmp_path / "config", path="../data", images="pictures", masks="truth")
    assert recognise(file).kind == recognise(tmp_path / "config").kind == "satellite"
    dataset = open_dataset(file, "train")
    assert len(dataset.instances(0)) == 1
    assert dataset.annotation_files() == [tmp_path / "config/../data/truth/a.png"]


def test_classes_are_entries_names_or_a_file(tmp_path: Path) -> None:
    def names(classes: object) -> list[tuple[int, str]]:
        found = describe(describe_as(tmp_path, classes=classes)).classes()
        return [(category.id, category.name) for category in found.categories]

    (tmp_path / "legend.json").write_text('{"classes": [{"id": 3, "name": "roof", "value": 1}]}')
    assert names("legend.json") == [(3, "roof")]
    assert names(["roof", "road"]) == [(1, "roof"), (2, "road")]
    assert names([{"id": 8, "name": "roof"}, {"id": 2, "name": "road"}]) == [(2, "road"), (8, "roof")]


def test_custom_folders_are_also_found_within_splits(tmp_path: Path) -> None:
    write_pair(tmp_path, "train/pictures/a.png", "train/truth/a.png")
    write_pair(tmp_path, "val/pictures/a.png", "val/truth/a.png")
    describe_as(tmp_path, images="pictures", masks="truth")
    assert [open_dataset(tmp_path, split).records[0].file_name for split in ("train", "val")] == ["train/a.png", "val/a.png"]


def test_coco_names_its_own_images_and_classes(tmp_path: Path) -> None:
    write_pair(tmp_path, "images/a.png", "masks/a.png")
    for options in ({"classes": [{"name": "a"}]}, {"images": "images"}):
        with pytest.raises(ConfigError, match="COCO files name"):
            open_dataset(describe_as(tmp_path, source="coco", **options), "train")
    with pytest.raises(DataError, match="no COCO files"):
        open_dataset(describe_as(tmp_path, source="coco"), "train")


@pytest.mark.parametrize(("sides", "size"), [((2048, 2048), None), ((100, 2049), 1024), ((9000, 12000), 1024)])
def test_large_scenes_are_read_in_windows(sides: tuple[int, int], size: int | None) -> None:
    assert Description().window_size(*sides) == size
    assert Description(window="none").window_size(*sides) is None
    assert Description(window=300).window_size(*sides) == 300


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_property": "kind"}, "class_property: not read.*masks"),
        ({"source": "boxes", "coordinates": "pixel"}, "coordinates: not read.*boxes"),
        ({"source": "coco", "min_area": 9}, "min_area: not read.*coco"),
        ({"source": "polygons", "colour_tolerance": 9}, "colour_tolerance: not read.*polygons"),
        ({"ignore_regions": ["cloud"]}, "ignore_regions: not read, for no table"),
        ({"colour_tolerance": 9}, "colour_tolerance: not read, for no table"),
    ],
)
def test_keys_that_change_nothing_are_refused(tmp_path: Path, options: dict[str, object], message: str) -> None:
    write_pair(tmp_path, "images/a.png", "masks/a.png")
    with pytest.raises(ConfigError, match=message):
        open_dataset(describe_as(tmp_path, **options), "train")
