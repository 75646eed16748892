"""One training step on every data set and layout there is: the committed twins, and the large sets where they are present."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from rich.console import Console

from apex_runtime.data.open import open_dataset, split_names
from apex_train.config import load_config
from apex_train.data.loader import Batch
from apex_train.engine.trainer import Trainer
from apex_train.losses.compute import KEYS

SMALL = {"train.size": 128, "train.crop": 128, "train.batch": 2, "train.workers": 0, "train.epochs": 1}

# folder under ../shared/data, layout, split that is trained on, whether the set has masks
LARGE = [
    ("nuclei-dsb2018", "coco", "train", True),
    ("satellite-dubai", "coco", "train", True),
    ("satellite-dubai", "satellite", "train", True),
    ("satellite-banepa", "coco", "train", True),
    ("satellite-banepa", "satellite", "train", True),
    ("coco-mini", "coco", "train", True),
    ("coco-mini", "yolo", "train", True),
    ("coco-panoptic-mini", "coco", "train", True),
    ("coco-panoptic-mini", "coco", "panoptic_train", True),
    ("aerial-vehicles", "coco", "train", False),
    ("aerial-vehicles", "yolo", "train", False),
    ("video-davis", "coco", "test", True),
    ("video-davis", "satellite", "test", True),
    ("format-samples/spacenet-uint16", "satellite", "train", True),
    ("format-samples/trees-voc", "satellite", "train", False),
]


def step(data: Path, kind: str, split: str, output: Path) -> tuple[Batch, dict[str, float]]:
    """The first batch with an object, and the terms of a step on it."""
    dataset = open_dataset(data, split, kind)
    trainer = Trainer(load_config(None, SMALL), dataset, None, output, Console(file=io.StringIO()))
    for epoch in range(20):
        trainer.sampler.epoch = epoch
        for batch in trainer.loader:
            assert isinstance(batch, Batch), batch
            if batch.objects:
                return batch, trainer.train_step(batch)
    raise AssertionError(f"no object in 20 epochs of {data}")


def check(batch: Batch, terms: dict[str, float], masks: bool) -> None:
    assert set(KEYS) <= set(terms) and all(math.isfinite(value) for value in terms.values())
    assert terms["cls"] > 0 and terms["box"] > 0
    assert bool(batch.has_mask.any()) == masks
    assert (terms["mask_bce"] > 0) == masks


@pytest.mark.parametrize("kind", ["coco", "yolo", "satellite"])
def test_one_step_on_the_committed_twins(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    name = "nuclei_fixture" if kind == "coco" else f"nuclei_{kind}_fixture"
    check(*step(request.getfixturevalue(name), kind, "train", tmp_path), masks=True)


@pytest.mark.parametrize(("name", "kind", "split", "masks"), LARGE)
def test_one_step_on_the_large_sets(name: str, kind: str, split: str, masks: bool, shared_data: Path, tmp_path: Path) -> None:
    data = shared_data / name
    assert split in split_names(data, kind)
    check(*step(data, kind, split, tmp_path), masks=masks)
