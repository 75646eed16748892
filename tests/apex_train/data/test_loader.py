"""Batches: the same whatever the number of workers, padded objects marked, masks as covered shares, crowds as ignored cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apex_runtime.data.dataset import ImageRecord, InstanceDataset, Instances
from apex_runtime.data.findings import Findings, Location
from apex_runtime.data.image import Picture, Scaling
from apex_runtime.data.open import open_dataset
from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.errors import DataError
from apex_runtime.model_info import Category
from apex_train.config import load_config
from apex_train.data import loader as loader_module
from apex_train.data.loader import Batch, SourceCache, TrainingSet, collate, sample_seed, training_loader
from apex_train.data.sample import Sample, read_sample

SMALL = {"train.size": 128, "train.crop": 64, "train.batch": 2}
ALL_ON = {"augment.affine": 0.5, "augment.mosaic": 0.5, "augment.copy_paste": 0.7, "augment.hue": 20, "augment.gamma": 0.3}


class Memory(InstanceDataset):
    """Five pictures in memory, each with a masked object, one that has only a box, a crowd with a mask and one without."""

    def __init__(self, broken: int | None = None) -> None:
        self.kind, self.split, self.source, self.findings = "coco", "train", Path("memory"), []
        self.categories = (Category(id=7, name="thing"), Category(id=9, name="other"))
        self.records = [ImageRecord(i, f"{i}.png", 60, 50, Path(f"{i}.png"), Location(Path("memory"))) for i in range(5)]
        self.broken = broken

    def read(self, index: int) -> Picture:
        if index == self.broken:
            raise DataError("2.png: not an image", "Replace it.")
        return Picture(np.random.default_rng(index).integers(0, 256, (50, 60, 3), dtype=np.uint8), Scaling(3.0, 900.0))

    def decode(self, index: int) -> tuple[Instances, Findings]:
        boxes = np.array([[4, 4, 20, 24], [22.5, 6, 40, 20], [0, 30, 20, 50], [44.2, 40, 60, 49.5]], np.float32)
        masks = [RoiMask(4, 4, np.ones((20, 16), np.uint8)), None, RoiMask(0, 30, np.tri(20, dtype=np.uint8)), None]
        crowd = np.array([False, False, True, True])
        return Instances(boxes, np.array([0, 1, 0, 0]), masks, crowd, np.ones(4, np.float32)), []

    def annotation_files(self) -> list[Path]:
        return []


def batches(dataset: InstanceDataset, workers: int, epoch: int, more: dict | None = None) -> list[Batch]:
    loader, sampler = training_loader(dataset, load_config(None, SMALL | {"train.workers": workers} | (more or {})))
    sampler.epoch = epoch
    return list(loader)


def test_workers_change_nothing(nuclei_fixture) -> None:
    """Neither without workers nor with two, partners of mosaics and of pasting included."""
    alone, helped = (batches(open_dataset(nuclei_fixture, "train"), workers, 1, ALL_ON) for workers in (0, 2))
    assert len(alone) == 2
    for a, b in zip(alone, helped, strict=True):
        assert a.image_ids == b.image_ids
        for name in ("images", "boxes", "labels", "masks", "has_mask", "ignore"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name


def test_a_sample_depends_on_nothing_that_was_read_before(nuclei_fixture) -> None:
    config = load_config(None, SMALL | ALL_ON)
    used, fresh = (TrainingSet(open_dataset(nuclei_fixture, "train"), config) for _ in range(2))
    for key in ((0, 1), (3, 2), (0, 0)):
        used[key]
    np.testing.assert_array_equal(used[0, 4].image, fresh[0, 4].image)


def test_epochs_differ(nuclei_fixture) -> None:
    first, second = (batches(open_dataset(nuclei_fixture, "train"), 0, epoch)[0] for epoch in (0, 1))
    assert not torch.equal(first.images, second.images)


def test_seeds_do_not_collide() -> None:
    seeds = {sample_seed(s, e, i) for s in range(3) for e in range(20) for i in range(50)}
    assert len(seeds) == 3 * 20 * 50


def test_a_sample_says_what_it_is() -> None:
    """Crowds leave the objects and become regions, by their mask or else by every pixel of their box."""
    sample = read_sample(Memory(), 3)
    assert sample.boxes.tolist() == [[4, 4, 20, 24], [22.5, 6, 40, 20]] and sample.labels.tolist() == [0, 1]
    assert sample.original_size == (50, 60) and sample.image_id == 3 and sample.scaling == Scaling(3.0, 900.0)
    assert [category.name for category in sample.categories] == ["thing", "other"]
    triangle, box = sample.ignore
    assert triangle.area == 210
    assert (box.x, box.y, *box.bits.shape) == (44, 40, 10, 16) and box.bits.all()


@pytest.mark.parametrize("more", [{}, ALL_ON], ids=["defaults", "all on"])
def test_masks_are_numbers_before_and_truth_after_the_augmentation(more: dict) -> None:
    config = load_config(None, SMALL | more)
    found = TrainingSet(Memory(), config)
    seen = 0
    for epoch in range(8):
        for index in range(5):
            source, sample = found.sources[index], found[epoch, index]
            assert isinstance(sample, Sample)
            assert {m.bits.dtype for m in [*source.masks, *source.ignore] if m} == {np.dtype(np.uint8)}
            after = [m for m in [*sample.masks, *sample.ignore] if m]
            assert all(m.bits.dtype == bool for m in after)
            assert sample.categories == source.categories and sample.scaling == source.scaling
            seen += len(after)
    assert seen > 40
    (batch,) = batches(Memory(), 0, 0, {"train.size": 64, "train.batch": 5} | more)  # mostly the whole pictures
    assert batch.masks.dtype == batch.ignore.dtype == batch.images.dtype == torch.uint8
    assert batch.ignore.shape == (5, 16, 16) and set(batch.ignore.unique().tolist()) == {0, 1}
    assert batch.has_mask.dtype == torch.bool and batch.has_mask.any() and not batch.has_mask.all()


def test_what_cannot_be_read_travels_as_a_value() -> None:
    """Also when it is only the partner of a mosaic."""
    config = load_config(None, SMALL | {"augment.mosaic": 1, "train.batch": 5, "train.workers": 0})
    found = TrainingSet(Memory(broken=2), config)
    results = [found[0, index] for index in range(5)]
    assert isinstance(results[2], DataError)
    assert sum(isinstance(result, DataError) for result in results) > 1
    loader, _ = training_loader(Memory(broken=2), config)
    assert [type(item) for item in loader] == [DataError]


@pytest.mark.parametrize(("limit", "kept"), [(0, 0), (20_000, 2), (1 << 30, 5)])
def test_the_cache_keeps_to_its_limit(limit: int, kept: int) -> None:
    cache = SourceCache(Memory(), limit)
    first = [cache[i] for i in range(5)]
    assert cache.used <= limit
    assert sum(cache[i] is sample for i, sample in enumerate(first)) == kept


@pytest.mark.parametrize(("workers", "share"), [(0, 1), (1, 1), (4, 4)])
def test_all_workers_share_one_limit(workers: int, share: int) -> None:
    config = load_config(None, SMALL | {"train.workers": workers})
    assert TrainingSet(Memory(), config).sources.limit == loader_module.CACHE_BYTES // share


def test_collate_pads_and_measures_coverage() -> None:
    bits = np.ones((6, 9), bool)
    image = np.zeros((32, 32, 3), np.uint8)
    one = Sample(image, np.array([[3, 2, 12, 8]], np.float32), np.array([1]), [RoiMask(3, 2, bits)], [], 5, (9, 9))
    none = Sample(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), [], [], 6, (9, 9))
    batch = collate([none, one])
    assert batch.labels.tolist() == [[-1], [1]] and batch.objects == 1 and batch.image_ids == [6, 5]
    full = RoiMask(3, 2, bits).full(32, 32).astype(float)
    share = full.reshape(8, 4, 8, 4).mean((1, 3)) * 255
    np.testing.assert_allclose(batch.masks[1, 0].numpy(), share, atol=1)
    assert not batch.masks[0].any() and not batch.has_mask[0].any() and not batch.ignore.any()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 3))
def test_a_cell_is_ignored_when_a_pixel_of_it_is(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 28, (count, 2))
    regions = [RoiMask(int(x), int(y), rng.random(tuple(rng.integers(1, 5, 2))) < 0.3) for x, y in corners]
    image = np.zeros((32, 32, 3), np.uint8)
    batch = collate([Sample(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), [], regions, 5, (9, 9))])
    union = np.zeros((32, 32), bool)
    for region in regions:
        union |= region.full(32, 32).astype(bool)
    np.testing.assert_array_equal(batch.ignore[0].numpy().astype(bool), union.reshape(8, 4, 8, 4).any((1, 3)))


def test_a_sample_refuses_lists_of_different_length() -> None:
    with pytest.raises(ValueError, match="do not match"):
        Sample(np.zeros((8, 8, 3), np.uint8), np.zeros((2, 4), np.float32), np.zeros(1, np.int64), [None], [], 1, (8, 8))
