"""Which images a split consists of, and what they are called, for folders, list files and moved sets."""

from __future__ import annotations

from pathlib import Path

import pytest
from yolo_sets import write_image

from apex_runtime.data.findings import Fault
from apex_runtime.data.yolo import images as yolo_images
from apex_runtime.data.yolo.description import load_description
from apex_runtime.data.yolo.images import listed_images
from apex_runtime.errors import DataError, UsageError


def images_of(root: Path, train: str) -> list[str]:
    """Names of the images of a split that must have no finding."""
    root.mkdir(exist_ok=True)
    (root / "data.yaml").write_text(f"names: [a]\n{train}\n")
    images, findings = listed_images(load_description(root), "train")
    assert findings == [] and all(image.path.is_file() for image in images)
    return [image.name for image in images]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    for name in ("images/train/b.png", "images/train/deep/a.jpg", "images/more/c.png", "images/train/.hidden.png"):
        write_image(folder / name)
    (folder / "images" / "train" / "notes.md").touch()
    return folder


def test_folders_with_all_below_them(root: Path) -> None:
    train = ["images/train/b.png", "images/train/deep/a.jpg"]
    assert images_of(root, "train: images/train") == train
    assert images_of(root, "train: [images/train, images/more]") == ["images/more/c.png", *train]
    assert images_of(root, f"train: {root}/images/train") == train
    assert images_of(root, "train: /content/images/train") == train
    assert images_of(root, "path: /nowhere\ntrain: images/train") == train


def test_roboflow_folders(tmp_path: Path) -> None:
    """Their description lies beside train/, and still says ../train."""
    write_image(tmp_path / "set" / "train" / "images" / "a.png")
    assert images_of(tmp_path / "set", "train: ../train/images") == ["train/images/a.png"]


def test_two_readings_of_one_entry_are_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "set"):
        write_image(folder / "train" / "images" / "a.png")
    with pytest.raises(DataError, match="could be"):
        images_of(tmp_path / "set", "train: ../train/images")


@pytest.mark.parametrize("prefix", ["", "./", "{root}/", "/moved/from/", "C:\\from\\"])
def test_list_files(root: Path, prefix: str) -> None:
    lines = ["# a comment", "", "images/train/deep/a.jpg", "  images/more/c.png  "]
    entries = [prefix.format(root=root) + line.strip() if "images" in line else line for line in lines]
    (root / "list.txt").write_text("\r\n".join(entries), encoding="utf-8-sig")
    assert images_of(root, "train: list.txt") == ["images/more/c.png", "images/train/deep/a.jpg"]


def test_lines_relative_to_the_folder_of_the_list(root: Path) -> None:
    (root / "images" / "list.txt").write_text("./train/b.png\nmore/c.png\n")
    assert images_of(root, "train: [images/list.txt]") == ["images/more/c.png", "images/train/b.png"]


def test_each_image_once(root: Path) -> None:
    (root / "list.txt").write_text("images/train/b.png\n./images/train/../train/b.png\nimages/more/c.png\n")
    (root / "data.yaml").write_text("names: [a]\ntrain: [images/train, list.txt]\n")
    images, findings = listed_images(load_description(root), "train")
    assert [image.name for image in images] == ["images/more/c.png", "images/train/b.png", "images/train/deep/a.jpg"]
    assert [(finding.fault, finding.where.line) for finding in findings] == [
        (Fault.DUPLICATE_IMAGE, 1),
        (Fault.DUPLICATE_IMAGE, 2),
    ]


def test_names_do_not_depend_on_the_place_of_images_outside_of_the_set(tmp_path: Path) -> None:
    for place in ("one", "two/deeper"):
        for name in ("x/images/a.png", "y/images/a.png"):
            write_image(tmp_path / place / name)
        (tmp_path / place / "set").mkdir()
        listed = [f"{tmp_path}/{place}/{name}\n" for name in ("x/images/a.png", "y/images/a.png")]
        (tmp_path / place / "set" / "list.txt").write_text("".join(listed))
        assert images_of(tmp_path / place / "set", "train: list.txt") == ["x/images/a.png", "y/images/a.png"]


@pytest.mark.parametrize(
    ("train", "reason"),
    [
        ("train: images/none", "'images/none' not found"),
        ("train: images/empty", "no images"),
        ("train: list.csv", "neither a folder nor a list"),
        ("train: latin.txt", "not UTF-8 text \\(byte 7\\)"),
    ],
)
def test_what_is_refused(root: Path, train: str, reason: str) -> None:
    (root / "images" / "empty").mkdir()
    (root / "list.csv").touch()
    (root / "latin.txt").write_bytes(b"images/\xe4.png\n")
    with pytest.raises(DataError, match=reason) as caught:
        images_of(root, train)
    assert caught.value.remedy


def test_a_list_without_end_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yolo_images, "MAX_LIST_BYTES", 100)
    (root / "list.txt").write_text("images/train/b.png\n" * 6)
    with pytest.raises(DataError, match="more than 100 bytes"):
        images_of(root, "train: list.txt")


def test_an_unknown_split_is_wrong_usage(root: Path) -> None:
    with pytest.raises(UsageError, match=r"'train'.*"):
        images_of(root, "val: images/train")
