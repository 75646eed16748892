"""Batches: the same whatever the number of workers, padded objects marked, masks as covered shares."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from apex_runtime.data.open import open_dataset
from apex_runtime.data.roi_mask import RoiMask
from apex_train.config import load_config
from apex_train.data.loader import collate, sample_seed, training_loader
from apex_train.data.sample import Sample

SMALL = {"train.size": 128, "train.crop": 64, "train.batch": 2}


def batches(folder, workers: int, epoch: int):
    loader, sampler = training_loader(open_dataset(folder, "train"), load_config(None, SMALL | {"train.workers": workers}))
    sampler.epoch = epoch
    return list(loader)


def test_workers_change_nothing(nuclei_fixture) -> None:
    alone, helped = batches(nuclei_fixture, 0, 1), batches(nuclei_fixture, 2, 1)
    assert len(alone) == 2
    for a, b in zip(alone, helped, strict=True):
        assert a.image_ids == b.image_ids
        for name in ("images", "boxes", "labels", "masks", "has_mask", "ignore"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name


def test_epochs_differ(nuclei_fixture) -> None:
    assert not torch.equal(batches(nuclei_fixture, 0, 0)[0].images, batches(nuclei_fixture, 0, 1)[0].images)


def test_seeds_do_not_collide() -> None:
    seeds = {sample_seed(s, e, i) for s in range(3) for e in range(20) for i in range(50)}
    assert len(seeds) == 3 * 20 * 50


def test_collate_pads_and_measures_coverage() -> None:
    bits = np.ones((6, 9), np.uint8)
    one = Sample(
        np.zeros((32, 32, 3), np.uint8),
        np.array([[3, 2, 12, 8]], np.float32),
        np.array([1]),
        [RoiMask(3, 2, bits)],
        [],
        5,
        (9, 9),
    )
    none = Sample(np.zeros((32, 32, 3), np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64), [], [], 6, (9, 9))
    batch = collate([none, one])
    assert batch.labels.tolist() == [[-1], [1]] and batch.objects == 1 and batch.image_ids == [6, 5]
    full = RoiMask(3, 2, bits).full(32, 32).astype(float)
    share = full.reshape(8, 4, 8, 4).mean((1, 3)) * 255
    np.testing.assert_allclose(batch.masks[1, 0].numpy(), share, atol=1)
    assert not batch.masks[0].any() and not batch.has_mask[0].any()


def test_a_sample_refuses_lists_of_different_length() -> None:
    with pytest.raises(ValueError, match="do not match"):
        Sample(np.zeros((8, 8, 3), np.uint8), np.zeros((2, 4), np.float32), np.zeros(1, np.int64), [None], [], 1, (8, 8))
