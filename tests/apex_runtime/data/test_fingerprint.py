"""A fingerprint follows what a set says, and nothing else."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from apex_runtime.data.open import open_dataset

TRAIN = Path("annotations") / "train.json"


@pytest.fixture
def copy(nuclei_fixture: Path, tmp_path: Path) -> Path:
    return shutil.copytree(nuclei_fixture, tmp_path / "copy")


def fingerprint(folder: Path) -> str:
    return open_dataset(folder, "train", "coco").fingerprint()


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads((folder / TRAIN).read_text())
    change(document)
    (folder / TRAIN).write_text(json.dumps(document))


def test_a_copy_has_the_same(nuclei_fixture: Path, copy: Path) -> None:
    value = fingerprint(nuclei_fixture)
    assert fingerprint(copy) == value and len(value) == 64 and int(value, 16)


@pytest.mark.parametrize("kind", ["coco", "yolo", "satellite"])
def test_the_order_in_which_a_file_system_lists_it_is_nothing(
    kind: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = request.getfixturevalue("nuclei_fixture" if kind == "coco" else f"nuclei_{kind}_fixture")
    before = open_dataset(copy, "train", kind).fingerprint()
    listdir, scandir = os.listdir, os.scandir

    class Backwards:
        def __init__(self, path: Any) -> None:
            with scandir(path) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> Any:
            return iter(self.entries)

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(os, "listdir", lambda path=".": sorted(listdir(path), reverse=True))
    monkeypatch.setattr(os, "scandir", Backwards)
    assert open_dataset(copy, "train", kind).fingerprint() == before


def test_a_label_that_moves_to_another_image_counts(nuclei_yolo_fixture: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(nuclei_yolo_fixture, tmp_path / "copy")
    before = open_dataset(folder, "train", "yolo").fingerprint()
    first, second, *_ = sorted((folder / "labels" / "train").glob("*.txt"))
    second.unlink()
    without = open_dataset(folder, "train", "yolo").fingerprint()
    first.rename(second)
    assert len({before, without, open_dataset(folder, "train", "yolo").fingerprint()}) == 3


def test_neither_dates_nor_other_files_count(copy: Path) -> None:
    before = fingerprint(copy)
    os.utime(copy / TRAIN, (1, 1))
    (copy / "README.md").write_text("notes")
    assert fingerprint(copy) == before


def _append_to_an_image(folder: Path) -> None:
    path = open_dataset(folder, "train", "coco").records[0].path
    path.write_bytes(path.read_bytes() + b"\0")


def _rename_an_image(folder: Path) -> None:
    path = open_dataset(folder, "train", "coco").records[0].path
    path.rename(path.with_stem("other"))
    edit(folder, lambda document: document["images"][0].update(file_name=f"other{path.suffix}"))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda folder: (folder / TRAIN).write_bytes((folder / TRAIN).read_bytes() + b" "), id="one byte"),
        pytest.param(lambda folder: edit(folder, lambda d: d["annotations"].pop()), id="one annotation less"),
        pytest.param(lambda folder: edit(folder, lambda d: d["categories"][0].update(name="cell")), id="the name of a class"),
        pytest.param(_append_to_an_image, id="the size of an image"),
        pytest.param(_rename_an_image, id="the name of an image"),
    ],
)
def test_what_a_set_says_counts(change: Callable[[Path], object], copy: Path) -> None:
    edit(copy, lambda document: None)
    before = fingerprint(copy)
    change(copy)
    assert fingerprint(copy) != before
