"""The committed images: small, complete, and the same objects in each of the three layouts."""

import importlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from pycocotools import mask as coco_mask

from apex_runtime.data.image import decode_image
from apex_runtime.data.open import open_dataset

LIMIT = 1_000_000  # bytes


def weight(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_they_are_small_and_say_where_they_come_from(repo_root: Path) -> None:
    assert weight(repo_root / "tests" / "fixtures") < LIMIT and weight(repo_root / "engines" / "samples") < LIMIT
    folders = [*(repo_root / "tests" / "fixtures").glob("nuclei*"), repo_root / "engines" / "samples"]
    assert len(folders) == 4
    for folder in folders:
        text = (folder / "README.md").read_text()
        assert "CC0 1.0" in text and "kaggle-dsbowl-2018-dataset-fixes" in text


def test_six_samples_of_mixed_sizes_and_none_of_them_a_fixture(repo_root: Path, nuclei_fixture: Path) -> None:
    samples = sorted((repo_root / "engines" / "samples").glob("*.jpg"))
    shapes = {decode_image(path).shape[:2] for path in samples}
    assert len(samples) == 6 and len(shapes) >= 4 and max(max(shape) for shape in shapes) >= 1024
    assert not {path.name for path in samples} & {path.name for path in (nuclei_fixture / "images").iterdir()}


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_yolo_twin_has_the_same_objects(split: str, nuclei_fixture: Path, nuclei_yolo_fixture: Path) -> None:
    dataset = open_dataset(nuclei_fixture, split)
    config = yaml.safe_load((nuclei_yolo_fixture / "data.yaml").read_text())
    assert list(config["names"].values()) == [category.name for category in dataset.categories]
    for index, record in enumerate(dataset.records):
        name = Path(record.file_name)
        assert (nuclei_yolo_fixture / config[split] / name).read_bytes() == record.path.read_bytes()
        lines = (nuclei_yolo_fixture / "labels" / split / name.with_suffix(".txt")).read_text().splitlines()
        found = dataset.instances(index)
        assert len(lines) == len(found)
        for line, mask, label in zip(lines, found.masks, found.labels, strict=True):
            kind, *numbers = line.split()
            points = np.array(numbers, float).reshape(-1, 2) * (record.width, record.height)
            drawn = coco_mask.decode(coco_mask.frPyObjects([points.reshape(-1).tolist()], record.height, record.width))[:, :, 0]
            assert int(kind) == label and mask is not None
            full = mask.full(record.height, record.width)
            assert np.count_nonzero(drawn & full) / np.count_nonzero(drawn | full) > 0.75


def test_the_satellite_twin_has_the_same_pixels(nuclei_fixture: Path, nuclei_satellite_fixture: Path) -> None:
    legend = json.loads((nuclei_satellite_fixture / "classes.json").read_text())
    assert [(entry["name"], entry["color"]) for entry in legend["classes"]] == [("nucleus", "#FFFFFF")]
    for split in ("train", "val"):
        dataset = open_dataset(nuclei_fixture, split)
        for index, record in enumerate(dataset.records):
            picture = cv2.imread(str(nuclei_satellite_fixture / "masks" / f"{record.path.stem}.png"), cv2.IMREAD_UNCHANGED)
            union = np.zeros((record.height, record.width), bool)
            for mask in dataset.instances(index).masks:
                assert mask is not None
                union |= mask.full(record.height, record.width).astype(bool)
            np.testing.assert_array_equal(picture, union * 255)
            assert (nuclei_satellite_fixture / "images" / record.file_name).read_bytes() == record.path.read_bytes()


def test_the_script_makes_the_same_files_again(
    repo_root: Path, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(repo_root / "bench")
    make_fixtures = importlib.import_module("make_fixtures")
    monkeypatch.setattr(make_fixtures, "FIXTURES", tmp_path / "fixtures")
    monkeypatch.setattr(make_fixtures, "SAMPLES", tmp_path / "samples")
    make_fixtures.main(shared_data / "nuclei-dsb2018")
    for made, kept in (
        (tmp_path / "fixtures", repo_root / "tests" / "fixtures"),
        (tmp_path / "samples", repo_root / "engines" / "samples"),
    ):
        files = sorted(path.relative_to(made) for path in made.rglob("*") if path.is_file())
        assert len(files) >= 7
        for name in files:
            if name.suffix == ".png":  # compression may differ between versions of the encoder
                np.testing.assert_array_equal(decode_image(made / name), decode_image(kept / name))
            else:
                assert (made / name).read_bytes() == (kept / name).read_bytes(), name
