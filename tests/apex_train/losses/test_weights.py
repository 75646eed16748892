"""A label of weight w counts w times in every term of its object, and the background as ever; from the file to the loss."""

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
from apex_train.config import LossConfig
from apex_train.data.copy_paste import paste_objects
from apex_train.data.loader import Batch, collate
from apex_train.data.place import select, side_by_side
from apex_train.data.regions import Rect
from apex_train.data.sample import read_sample
from apex_train.losses.compute import compute_training_losses
from apex_train.model.config import ModelConfig
from apex_train.model.detector import ApexDetector

SIDE = 64


def batch_of(weights: list[float]) -> Batch:
    boxes = torch.tensor([[[4.0, 4, 28, 28], [36, 32, 60, 60]]])
    masks = torch.zeros(1, 2, SIDE // 4, SIDE // 4, dtype=torch.uint8)
    masks[0, 0, 1:7, 1:7] = masks[0, 1, 8:15, 9:15] = 255
    labels = torch.zeros(1, 2, dtype=torch.int64)
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (1, SIDE, SIDE, 3), np.uint8))
    ignore = torch.zeros(1, SIDE // 4, SIDE // 4, dtype=torch.uint8)
    return Batch(image, boxes, labels, masks, labels >= 0, ignore, [1], torch.tensor([weights]))


def terms(weights: list[float]) -> dict[str, float]:
    torch.manual_seed(0)
    model, batch = ApexDetector(ModelConfig()).eval(), batch_of(weights)
    with torch.no_grad():
        outputs = model(batch.images, 1, torch.zeros(1, 1), with_peripheral=True)
        found = compute_training_losses(outputs, batch, LossConfig(mask_boundary=0.5))[1]
    return {key: float(value) for key, value in found.items()}


def test_every_term_is_linear_in_the_weight_of_an_object() -> None:
    none, first, second, both = terms([0, 0]), terms([1, 0]), terms([0, 1]), terms([1, 1])
    mixed = terms([0.25, 0.75])
    for key in ("cls", "box", "mask_bce", "mask_dice", "mask_boundary"):
        expected = none[key] + 0.25 * (first[key] - none[key]) + 0.75 * (second[key] - none[key])
        assert mixed[key] == pytest.approx(expected, rel=1e-4)
        assert both[key] == pytest.approx(first[key] + second[key] - none[key], rel=1e-4)
        assert first[key] > none[key] and second[key] > none[key]
    assert none["cls"] > 0 and none["box"] == none["mask_bce"] == 0


@pytest.fixture
def weighted(nuclei_fixture: Path, tmp_path: Path) -> Path:
    """The fixture with the weight of every label from its id: 1 / (1 + id % 7)."""
    data = shutil.copytree(nuclei_fixture, tmp_path / "set")
    file = data / "annotations" / "train.json"
    document = json.loads(file.read_text())
    for entry in document["annotations"]:
        entry["weight"] = 1 / (1 + entry["id"] % 7)
    file.write_text(json.dumps(document))
    return data


def test_weights_reach_the_batch_in_the_order_of_their_objects(weighted: Path) -> None:
    dataset = open_dataset(weighted, "train", "coco")
    document = json.loads((weighted / "annotations" / "train.json").read_text())
    sample = read_sample(dataset, 0)
    mine = [entry for entry in document["annotations"] if entry["image_id"] == sample.image_id]
    assert sample.weights.tolist() == pytest.approx([entry["weight"] for entry in mine]) and len(set(sample.weights)) > 3
    height, width = (side - side % 4 for side in sample.image.shape[:2])
    batch = collate([replace(sample, image=sample.image[:height, :width])])
    assert batch.weights[0].tolist() == sample.weights.tolist() and batch.part(0, 1).weights.shape == batch.labels.shape
    kept = select(sample, [3, 1])
    assert kept.weights.tolist() == sample.weights[[3, 1]].tolist()
    pair = side_by_side([kept, sample], [Rect(0, 0, width, height)] * 2, sample.image.shape[:2])
    assert pair.weights.tolist() == [*kept.weights, *sample.weights]


def test_a_pasted_object_brings_its_weight(weighted: Path) -> None:
    dataset = open_dataset(weighted, "train", "coco")
    donor = read_sample(dataset, 0)
    donor = replace(
        donor,
        masks=[mask and replace(mask, bits=mask.bits.astype(bool)) for mask in donor.masks],
        labels=np.arange(len(donor.labels)) + 1000,
    )
    below = select(replace(donor, image=np.zeros_like(donor.image)), [])
    joined = paste_objects(below, donor, 6, 0.0, np.random.default_rng(0))
    assert len(joined.labels) > 0
    assert joined.weights.tolist() == donor.weights[joined.labels - 1000].tolist()


def test_a_weight_is_a_share(weighted: Path) -> None:
    file = weighted / "annotations" / "train.json"
    for wrong in (0, -0.5, 1.5, "much", None, True):
        document = json.loads(file.read_text())
        document["annotations"][2]["weight"] = wrong
        file.write_text(json.dumps(document))
        with pytest.raises(DataError, match="weight is"):
            open_dataset(weighted, "train", "coco")
