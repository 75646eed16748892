"""From a data set to batches: per-sample seeds, a bounded cache of decoded images, one collate."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.errors import ApexError
from apex_train.config import FitConfig
from apex_train.data.augment import augment
from apex_train.data.sample import Sample, read_sample
from apex_train.model.config import MASK_STRIDE

CACHE_BYTES = 2 << 30  # decoded images and cut masks kept by all workers together


@dataclass(frozen=True)
class Batch:
    """B samples of one size. Objects are padded to G per image: ``labels`` is -1 there and ``masks`` 0.

    images uint8 [B,H,W,3], boxes float32 [B,G,4], labels int64 [B,G], masks uint8 [B,G,H/4,W/4] (coverage 0..255 of each cell),
    has_mask bool [B,G]; ignore uint8 [B,H/4,W/4]: 1 where a cell is touched by a region that is neither object nor background.
    """

    images: Tensor
    boxes: Tensor
    labels: Tensor
    masks: Tensor
    has_mask: Tensor
    ignore: Tensor
    image_ids: list[int]

    @property
    def objects(self) -> int:
        """Number of real objects."""
        return int((self.labels >= 0).sum())


class SourceCache:
    """The samples of a data set as they lie on the disk, kept in memory up to ``limit`` bytes."""

    def __init__(self, dataset: InstanceDataset, limit: int) -> None:
        self.dataset, self.limit = dataset, limit
        self.used = 0
        self._kept: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        """Sample ``index``. Raises what the data set's readers raise."""
        sample = self._kept.get(index)
        if sample is None:
            sample = read_sample(self.dataset, index)
            if self.used + sample.nbytes <= self.limit:
                self._kept[index] = sample
                self.used += sample.nbytes
        return sample


class TrainingSet(Dataset[Sample | ApexError]):
    """Augmented samples; sample (epoch, index) is the same whatever the number of workers."""

    def __init__(self, dataset: InstanceDataset, config: FitConfig) -> None:
        self.config = config
        self.sources = SourceCache(dataset, CACHE_BYTES // max(1, config.train.workers))  # each worker has a cache of its own

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, key: tuple[int, int]) -> Sample | ApexError:
        epoch, index = key
        train = self.config.train
        rng = np.random.default_rng(sample_seed(train.seed, epoch, index))
        try:
            return augment(self.sources, index, train.size, train.crop, self.config.augment, rng)
        except ApexError as error:  # as a value: raised in a worker it would reach the user as a traceback in a string
            return error


class EpochSampler(Sampler[tuple[int, int]]):
    """A seeded shuffle per epoch that hands the epoch on to the data set."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed, self.epoch = count, seed, 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.count)
        return iter([(self.epoch, int(index)) for index in order])


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """A 64-bit seed from (seed, epoch, index); worker count and order change nothing."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def training_loader(dataset: InstanceDataset, config: FitConfig) -> tuple[DataLoader[Batch | ApexError], EpochSampler]:
    """Batches of one epoch; set ``sampler.epoch`` before iterating. The last incomplete batch is dropped unless it is the only
    one."""
    sampler = EpochSampler(len(dataset), config.train.seed)
    workers = config.train.workers
    loader: DataLoader[Batch | ApexError] = DataLoader(
        TrainingSet(dataset, config),  # type: ignore[arg-type]
        batch_size=config.train.batch,
        sampler=sampler,
        num_workers=workers,
        collate_fn=collate_or_error,
        generator=torch.Generator().manual_seed(config.train.seed),  # of its own: the run's random state is not touched
        drop_last=len(dataset) >= config.train.batch,
        persistent_workers=workers > 0,
        worker_init_fn=_start_worker if workers else None,
    )
    return loader, sampler


def collate_or_error(samples: list[Sample | ApexError]) -> Batch | ApexError:
    """``collate``, or the first error among the samples."""
    good = [sample for sample in samples if isinstance(sample, Sample)]
    return collate(good) if len(good) == len(samples) else next(item for item in samples if isinstance(item, ApexError))


def collate(samples: list[Sample]) -> Batch:
    """Samples of one image size -> Batch."""
    height, width = samples[0].image.shape[:2]
    count = max(1, max(len(sample.labels) for sample in samples))
    boxes = np.zeros((len(samples), count, 4), np.float32)
    labels = np.full((len(samples), count), -1, np.int64)
    masks = np.zeros((len(samples), count, height // MASK_STRIDE, width // MASK_STRIDE), np.uint8)
    has_mask = np.zeros((len(samples), count), bool)
    ignore = np.zeros((len(samples), *masks.shape[2:]), np.uint8)
    for b, sample in enumerate(samples):
        n = len(sample.labels)
        boxes[b, :n], labels[b, :n] = sample.boxes, sample.labels
        for g, mask in enumerate(sample.masks):
            if mask is not None:
                _draw_coverage(masks[b, g], mask)
                has_mask[b, g] = True
        for region in sample.ignore:
            _mark_touched(ignore[b], region)
    images = np.stack([sample.image for sample in samples])
    tensor = torch.from_numpy
    ids = [sample.image_id for sample in samples]
    return Batch(tensor(images), tensor(boxes), tensor(labels), tensor(masks), tensor(has_mask), tensor(ignore), ids)


def _draw_coverage(cells: np.ndarray, mask: RoiMask) -> None:
    """Write how much of each 4 x 4 pixel cell the mask covers (0..255) into ``cells`` [H/4,W/4]."""
    rows, columns, patch = _on_cells(cells.shape, mask)
    area = (columns.stop - columns.start, rows.stop - rows.start)
    cells[rows, columns] = cv2.resize(patch * np.uint8(255), area, interpolation=cv2.INTER_AREA)


def _mark_touched(cells: np.ndarray, region: RoiMask) -> None:
    """Write 1 into each 4 x 4 pixel cell of ``cells`` [H/4,W/4] that holds a pixel of the region.

    Any pixel, not half of them: background that is passed over costs little, an unmarked object that is taught to be background
    costs a detection, so the region rather grows by up to 3 pixels than loses its rim.
    """
    rows, columns, patch = _on_cells(cells.shape, region)
    blocks = patch.reshape(patch.shape[0] // MASK_STRIDE, MASK_STRIDE, -1, MASK_STRIDE)
    cells[rows, columns] |= blocks.max((1, 3))


def _on_cells(shape: tuple[int, ...], mask: RoiMask) -> tuple[slice, slice, np.ndarray]:
    """The rows and columns of cells that the mask reaches in a grid of ``shape``, and its pixels (uint8 0 and 1) on them."""
    s = MASK_STRIDE
    left, top = mask.x // s, mask.y // s
    right = min(shape[1], -(-(mask.x + mask.bits.shape[1]) // s))
    bottom = min(shape[0], -(-(mask.y + mask.bits.shape[0]) // s))
    patch = RoiMask(mask.x - left * s, mask.y - top * s, mask.bits).full((bottom - top) * s, (right - left) * s)
    return slice(top, bottom), slice(left, right), patch


def _start_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which ends its workers
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
