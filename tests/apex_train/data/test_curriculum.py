"""Clean labels first: how many objects are admitted when, which, and what they count."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from apex_runtime.data.open import open_dataset
from apex_runtime.errors import DataError
from apex_train.config import LabelsSection
from apex_train.data.curriculum import Curriculum
from apex_train.data.loader import Batch, collate
from apex_train.data.sample import read_sample

TOTAL = 100


@pytest.fixture
def weighted(nuclei_fixture: Path, tmp_path: Path) -> Path:
    """The fixture with weights that are all different, and one crowd that has the highest."""
    data = shutil.copytree(nuclei_fixture, tmp_path / "set")
    file = data / "annotations" / "train.json"
    document = json.loads(file.read_text())
    values = np.random.default_rng(0).permutation(len(document["annotations"]))
    for entry, value in zip(document["annotations"], values.tolist(), strict=True):
        entry["weight"] = (value + 1) / (2 * len(values))
    document["annotations"][3] |= {"iscrowd": 1, "weight": 1.0}
    file.write_text(json.dumps(document))
    return data


def whole(data: Path) -> tuple[Batch, Curriculum]:
    """All objects of the split in one batch, the images beside the point; and a curriculum from 40 % to 90 %."""
    dataset = open_dataset(data, "train", "coco")
    samples = [
        replace(read_sample(dataset, place), image=np.zeros((4, 4, 3), np.uint8), ignore=[]) for place in range(len(dataset))
    ]
    cut = [replace(sample, masks=[None] * len(sample.labels)) for sample in samples]
    return collate(cut), Curriculum(dataset, LabelsSection(first=0.4, last=0.9, ramp=0.5), TOTAL)


def test_the_cleanest_are_admitted_first_and_the_share_grows(weighted: Path) -> None:
    batch, curriculum = whole(weighted)
    real = batch.labels >= 0
    weights = np.sort(batch.weights[real].numpy())[::-1]
    for step, share in ((0, 0.4), (25, 0.65), (50, 0.9), (99, 0.9)):
        assert curriculum.share(step) == pytest.approx(share)
        found = curriculum.at(step, batch).weights[real]
        count = int((found > 0).sum())
        assert count == np.ceil(share * len(weights)) < len(weights)
        assert sorted(found[found > 0].tolist(), reverse=True) == weights[:count].tolist()  # with the weight that they had
        assert torch.equal(found[found > 0], batch.weights[real][found > 0])


def test_even_counts_what_is_admitted_fully_and_may_narrow(weighted: Path) -> None:
    batch, _ = whole(weighted)
    dataset = open_dataset(weighted, "train", "coco")
    real = batch.labels >= 0
    curriculum = Curriculum(dataset, LabelsSection(first=1, last=0.5, ramp=0, count="even"), TOTAL)
    found = curriculum.at(0, batch).weights[real]
    assert set(found.tolist()) == {0.0, 1.0} and found.mean() == pytest.approx(0.5, abs=0.01)
    every = Curriculum(dataset, LabelsSection(count="even"), TOTAL).at(0, batch).weights[real]
    assert every.min() == 1.0 > float(batch.weights[real].min())


def test_by_default_the_batch_is_not_touched(weighted: Path) -> None:
    batch, _ = whole(weighted)
    assert Curriculum(open_dataset(weighted, "train", "coco"), LabelsSection(), TOTAL).at(0, batch) is batch


def test_without_weights_there_is_nothing_to_choose_by(nuclei_fixture: Path) -> None:
    with pytest.raises(DataError, match="all annotations have the same weight") as raised:
        Curriculum(open_dataset(nuclei_fixture, "train"), LabelsSection(first=0.5), TOTAL)
    assert "label-quality" in str(raised.value.remedy)
