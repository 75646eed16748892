"""Two splits as one: every image with the objects of its own part, classes by name, and what a training reads of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from apex_runtime.data.open import open_dataset
from apex_runtime.data.sources import resolve_sources
from apex_runtime.model_info import Category
from apex_train.data.sample import read_sample
from apex_train.pseudo.pictures import of_files
from apex_train.selftrain.joined import Joined, PseudoLabelled, looks

CLASSES = (Category(id=5, name="cell"), Category(id=9, name="nucleus"))


@pytest.fixture
def pseudo(nuclei_fixture: Path, tmp_path: Path) -> PseudoLabelled:
    """The truth of val as if a model had said it: weights by turns 0.5 and 0.25, every third object a crowd region."""
    truth = open_dataset(nuclei_fixture, "val", "coco").ground_truth()
    entries = [
        entry | {"iscrowd": 1} if place % 3 == 0 else entry | {"weight": 0.5 if place % 2 else 0.25}
        for place, entry in enumerate(truth["annotations"])
    ]
    file = tmp_path / "labels.json"
    file.write_text(json.dumps({**truth, "annotations": entries}, default=lambda raw: raw.decode()))
    return PseudoLabelled(file, of_files(resolve_sources(str(nuclei_fixture / "images"))), CLASSES)


def test_pseudo_labels_are_read_as_they_were_written(pseudo: PseudoLabelled, nuclei_fixture: Path) -> None:
    val = open_dataset(nuclei_fixture, "val", "coco")
    assert len(pseudo) == 3
    for index in range(3):
        sample, real = read_sample(pseudo, index), read_sample(val, index)
        assert np.array_equal(sample.image, real.image) and set(sample.labels.tolist()) == {1}, "the class by its name"
        assert len(sample.labels) + len(sample.ignore) == len(real.labels) and sample.ignore
        assert set(sample.weights.tolist()) == {0.5, 0.25}
        kept = [(mask.x, mask.y, mask.bits.tolist()) for mask in real.masks]
        assert all((mask.x, mask.y, mask.bits.tolist()) in kept for mask in sample.masks)
        assert all(box in real.boxes.round(2).tolist() for box in sample.boxes.round(2).tolist())


def test_joined_images_have_their_own_objects(pseudo: PseudoLabelled, nuclei_fixture: Path) -> None:
    train = open_dataset(nuclei_fixture, "train", "coco")
    joined = Joined(train, pseudo)
    assert len(joined) == 8 and len({record.image_id for record in joined.records}) == 8
    assert [len(joined.instances(index)) for index in range(8)] == [
        len(part.instances(index)) for part in (train, pseudo) for index in range(len(part))
    ]
    assert np.array_equal(joined.read_image(6), pseudo.read_image(1)) and np.array_equal(
        joined.read_image(1), train.read_image(1)
    )
    assert joined.categories == train.categories
    assert joined.fingerprint() != Joined(train, train).fingerprint()
    assert joined.records[5].file_name.startswith("pseudo/") and joined.records[4].file_name.startswith("labelled/")


def test_an_epoch_looks_at_as_many_images_as_there_are() -> None:
    labelled, other = looks(53, 480, 0.25)
    assert 53 * labelled + 480 * other == pytest.approx(533) and 53 * labelled == pytest.approx(533 / 4)
