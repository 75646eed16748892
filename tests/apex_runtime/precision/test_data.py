"""What calibrates, what chooses and what reports are different images wherever the data has splits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pictures import discs, save
from satellite_sets import blocks, describe_as, write_image, write_picture

from apex_runtime.data.image import decode_image
from apex_runtime.errors import ImageError, UsageError
from apex_runtime.precision.data import Image, PrecisionData, digest, precision_data


def names(images: tuple[Image, ...]) -> list[str]:
    return [image.name for image in images]


def with_test(fixture: Path, target: Path) -> Path:
    """A copy of the nuclei in which one image of val is the split test."""
    shutil.copytree(fixture, target)
    val = json.loads((target / "annotations" / "val.json").read_text())
    for split, chosen in (("test", val["images"][:1]), ("val", val["images"][1:])):
        ids = {image["id"] for image in chosen}
        objects = [entry for entry in val["annotations"] if entry["image_id"] in ids]
        document = val | {"images": chosen, "annotations": objects}
        (target / "annotations" / f"{split}.json").write_text(json.dumps(document))
    return target


def test_three_splits_three_tasks(nuclei_fixture: Path, tmp_path: Path) -> None:
    data = precision_data(with_test(nuclei_fixture, tmp_path / "set"))
    train = json.loads((nuclei_fixture / "annotations" / "train.json").read_text())["images"]
    assert names(data.calibration) == sorted(image["file_name"] for image in train)
    assert data.select.labels is not None and (data.select.labels.split, len(data.select.items)) == ("val", 2)
    assert data.report.labels is not None and data.report.labels.split == "test" and data.report.origin == "the split test"
    used = [set(names(items)) for items in (data.calibration, data.select.items, data.report.items)]
    assert not used[0] & used[1] and not used[1] & used[2] and not used[0] & used[2] and len(used[2]) == 1


@pytest.mark.parametrize("fixture", ["nuclei_fixture", "nuclei_yolo_fixture"])
def test_without_a_split_test_the_report_is_on_val_and_says_so(fixture: str, request: pytest.FixtureRequest) -> None:
    data = precision_data(request.getfixturevalue(fixture))
    assert len(data.calibration) == 5 and len(data.report.items) == 3
    assert data.report.origin == "the split val (there is no split test)"
    assert names(data.report.items) == names(data.select.items)


def test_images_are_read_as_the_data_set_reads_them(nuclei_yolo_fixture: Path) -> None:
    data = precision_data(nuclei_yolo_fixture)
    for image in (*data.calibration, *data.report.items):
        assert np.array_equal(image.read(), decode_image(image.path))


def test_a_part_of_a_scene_is_that_part(tmp_path: Path) -> None:
    """The west half of every scene trains, the east tests: whole files would let the calibration see both."""
    for name, seed in (("a.png", 1), ("b.png", 2)):
        write_image(tmp_path / "images" / name, 64, 128, seed)
        write_picture(tmp_path / "masks" / name, blocks(64, 128, (4, 4, 10, 10, 255), (100, 20, 9, 9, 255)))
    describe_as(tmp_path, split={"regions": {"train": [0, 0, 0.5, 1], "test": [0.5, 0, 1, 1]}}, window=32, overlap=0)
    data = precision_data(tmp_path)
    assert len(data.calibration) == len(data.report.items) == 8 and all(image.part for image in data.calibration)
    scene = decode_image(tmp_path / "images" / "a.png")
    pieces = [image.read() for image in data.calibration if image.path.name == "a.png"]
    assert {piece.shape for piece in pieces} == {(32, 32, 3)}
    west = [scene[y : y + 32, x : x + 32].tobytes() for y in (0, 32) for x in (0, 32)]
    assert {piece.tobytes() for piece in pieces} == set(west)
    assert len({digest([image]) for image in data.calibration}) == 8, "parts of one file are told apart"


def test_a_set_without_train_is_wrong_usage(nuclei_fixture: Path, tmp_path: Path) -> None:
    data = with_test(nuclei_fixture, tmp_path / "set")
    (data / "annotations" / "train.json").unlink()
    with pytest.raises(UsageError, match=r"no split train in this coco set.*val, test.*pattern"):
        precision_data(data)


def test_a_set_of_train_alone_calibrates_but_reports_nothing(nuclei_fixture: Path, tmp_path: Path) -> None:
    shutil.copytree(nuclei_fixture, tmp_path / "set")
    (tmp_path / "set" / "annotations" / "val.json").unlink()
    data = precision_data(tmp_path / "set")
    assert len(data.calibration) == 5
    with pytest.raises(UsageError, match=r"neither a split test nor val .*--no-report"):
        _ = data.report
    with pytest.raises(UsageError, match="no split 'val'"):
        _ = data.select


def test_faulty_labels_of_train_do_not_stop_a_calibration(nuclei_fixture: Path, tmp_path: Path) -> None:
    shutil.copytree(nuclei_fixture, tmp_path / "set")
    file = tmp_path / "set" / "annotations" / "train.json"
    document = json.loads(file.read_text())
    document["annotations"][0]["category_id"] = 77
    file.write_text(json.dumps(document))
    assert len(precision_data(tmp_path / "set").calibration) == 5


def plain(folder: Path, count: int) -> Path:
    for number in range(count):
        save(folder / f"{number:02}.png", discs(20, 30, (number, 10, 3)))
    return folder


@pytest.mark.parametrize("form", ["folder", "pattern", "file"])
def test_plain_images_stay_what_they_were(form: str, tmp_path: Path) -> None:
    folder = plain(tmp_path / "images", 3)
    source = {"folder": folder, "pattern": folder / "*.png", "file": folder / "01.png"}[form]
    data = precision_data(source)
    assert names(data.calibration) == (["01.png"] if form == "file" else ["00.png", "01.png", "02.png"])
    assert data.report.items == data.calibration and data.report.labels is None
    assert data.report.origin == "the images of the calibration"
    with pytest.raises(UsageError, match="no labels"):
        _ = data.select


def test_without_data_the_samples_are_taken() -> None:
    data: PrecisionData = precision_data(None, 2)
    assert len(data.calibration) == 2 and data.source is None


def test_so_many_images_evenly_over_the_sorted_list(tmp_path: Path) -> None:
    folder = plain(tmp_path, 10)
    assert names(precision_data(folder, 4).calibration) == ["00.png", "03.png", "06.png", "09.png"]
    assert names(precision_data(folder, 1).calibration) == ["00.png"]
    assert len(precision_data(folder, 64).calibration) == 10


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no images"):
        precision_data(tmp_path)
    with pytest.raises(UsageError, match="no such file"):
        precision_data(tmp_path / "absent")


def test_the_digest_is_of_bytes_and_order_not_of_places(tmp_path: Path) -> None:
    first = precision_data(plain(tmp_path / "a", 3)).calibration
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "02.png").rename(tmp_path / "b" / "z.png")
    second = precision_data(tmp_path / "b").calibration
    assert digest(first) == digest(second) != digest(first[::-1])
    assert digest(first[:2]) != digest(first)
    changed = tmp_path / "b" / "00.png"
    changed.write_bytes(changed.read_bytes() + b"\0")
    assert digest(second) != digest(first)
    changed.unlink()
    with pytest.raises(ImageError, match=r"00\.png: cannot be read"):
        digest(second)
