"""From a data set to batches: per-sample seeds, a bounded cache of decoded images, one collate."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.errors import ApexError, UsageError
from apex_train.config import FitConfig
from apex_train.data.augment import augment
from apex_train.data.sample import Sample, read_sample
from apex_train.data.sample_weights import drawn, read_sample_weights
from apex_train.model.config import MASK_STRIDE

CACHE_BYTES = 2 << 30  # decoded images and cut masks kept by all workers together

_UNSAID = torch.zeros(0)


@dataclass(frozen=True)
class Batch:
    """B samples of one size. Objects are padded to G per image: ``labels`` is -1 there and ``masks`` 0.

    images uint8 [B,H,W,3], boxes float32 [B,G,4], labels int64 [B,G], masks uint8 [B,G,H/4,W/4] (coverage 0..255 of each cell),
    has_mask bool [B,G]; ignore uint8 [B,H/4,W/4]: 1 where a cell is touched by a region that is neither object nor background;
    weights float32 [B,G]: how much each object counts, 1 when not given.
    """

    images: Tensor
    boxes: Tensor
    labels: Tensor
    masks: Tensor
    has_mask: Tensor
    ignore: Tensor
    image_ids: list[int]
    weights: Tensor = field(default_factory=lambda: _UNSAID)

    def __post_init__(self) -> None:
        if self.weights is _UNSAID:
            object.__setattr__(self, "weights", torch.ones_like(self.labels, dtype=torch.float32))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def objects(self) -> int:
        """Number of real objects."""
        return int((self.labels >= 0).sum())

    def part(self, start: int, stop: int) -> Batch:
        """Some of the samples; objects stay padded to the G of the whole."""
        return Batch(*(getattr(self, each.name)[start:stop] for each in fields(self)))

    def pick(self, rows_R: Tensor) -> Batch:
        """The samples of these numbers; objects stay padded to the G of the whole."""
        ids = [self.image_ids[row] for row in rows_R.tolist()]
        return replace(self._each(lambda tensor: tensor[rows_R]), image_ids=ids)

    def to(self, device: torch.device) -> Batch:
        """The tensors on ``device``; from pinned memory the copy runs beside the computation."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The tensors in page-locked memory; the name is the one that torch's loader looks for."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        changed: dict[str, Any] = {name: change(value) for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **changed)


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
    """Augmented samples; sample (epoch, index) is the same whatever the number of workers.

    A number beyond the images is another look at one of them: index modulo their count says at which.
    """

    def __init__(self, dataset: InstanceDataset, config: FitConfig, world: int = 1) -> None:
        self.config = config
        # Each worker of each process has a cache of its own.
        self.sources = SourceCache(dataset, CACHE_BYTES // (max(1, config.train.workers) * world))

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, key: tuple[int, int]) -> Sample | ApexError:
        epoch, index = key
        train = self.config.train
        rng = np.random.default_rng(sample_seed(train.seed, epoch, index))
        try:
            place = index % len(self.sources)
            return augment(self.sources, place, train.letterbox, (train.crop, train.crop), self.config.augment, rng)
        except ApexError as error:  # as a value: raised in a worker it would reach the user as a traceback in a string
            return error


class BatchSampler(Sampler[list[tuple[int, int]]]):
    """A seeded shuffle per epoch, cut into effective batches, of which each of ``world`` processes gets its share.

    Set ``epoch``, and ``first`` to go on in the middle of one. The last incomplete batch is dropped unless it is the only one.
    ``weights`` float64 [count] say how often an image comes on average, in proportion; without them every one comes once.
    Keys are (epoch, index). Raises UsageError when a process would get nothing.
    """

    def __init__(
        self, count: int, batch: int, seed: int, rank: int = 0, world: int = 1, weights: np.ndarray | None = None
    ) -> None:
        self.weights = weights
        self.count, self.batch, self.seed = count, min(count, batch), seed
        self.rank, self.world = rank, world
        self.epoch, self.first = 0, 0
        if self.batch < world:
            raise UsageError(
                f"{world} processes cannot share batches of {self.batch} images.", "Start fewer processes or raise train.batch."
            )

    def __len__(self) -> int:
        return self.count // self.batch

    @property
    def rows(self) -> slice:
        """Which rows of the effective batch are this process' share."""
        mine = np.array_split(np.arange(self.batch), self.world)[self.rank]
        return slice(int(mine[0]), int(mine[-1]) + 1)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(self.count) if self.weights is None else drawn(self.weights, rng)
        for number in range(self.first, len(self)):
            whole = order[number * self.batch : (number + 1) * self.batch]
            yield [(self.epoch, int(index)) for index in whole[self.rows]]


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """A 64-bit seed from (seed, epoch, index); worker count and order change nothing."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def training_loader(
    dataset: InstanceDataset, config: FitConfig, rank: int = 0, world: int = 1, pin: bool = False
) -> tuple[DataLoader[Batch | ApexError], BatchSampler]:
    """Batches of one epoch; set ``sampler.epoch`` before iterating. ``pin``: into page-locked memory, for a GPU."""
    train = config.train
    weights = None if train.sample_weights is None else read_sample_weights(Path(train.sample_weights), dataset)
    sampler = BatchSampler(len(dataset), train.batch, train.seed, rank, world, weights)
    loader: DataLoader[Batch | ApexError] = DataLoader(
        TrainingSet(dataset, config, world),  # type: ignore[arg-type]
        batch_sampler=sampler,
        num_workers=train.workers,
        collate_fn=collate_or_error,
        generator=torch.Generator().manual_seed(train.seed),  # of its own: the run's random state is not touched
        persistent_workers=train.workers > 0,
        pin_memory=pin,
        worker_init_fn=_start_worker if train.workers else None,
    )
    return loader, sampler


def stop_workers(loader: DataLoader[Batch | ApexError]) -> None:
    """End the loader's processes now; they start anew when it is used again.

    Left to the interpreter's exit, they would be terminated while an error still holds the loader, and torch would report that.
    torch has no public call for it.
    """
    iterator = getattr(loader, "_iterator", None)
    if iterator is not None:
        iterator._shutdown_workers()
        loader._iterator = None


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
    weights = np.ones((len(samples), count), np.float32)
    ignore = np.zeros((len(samples), *masks.shape[2:]), np.uint8)
    for b, sample in enumerate(samples):
        n = len(sample.labels)
        boxes[b, :n], labels[b, :n], weights[b, :n] = sample.boxes, sample.labels, sample.weights
        for g, mask in enumerate(sample.masks):
            if mask is not None:
                _draw_coverage(masks[b, g], mask)
                has_mask[b, g] = True
        for region in sample.ignore:
            _mark_touched(ignore[b], region)
    images = np.stack([sample.image for sample in samples])
    tensor = torch.from_numpy
    ids = [sample.image_id for sample in samples]
    return Batch(
        images=tensor(images),
        boxes=tensor(boxes),
        labels=tensor(labels),
        masks=tensor(masks),
        has_mask=tensor(has_mask),
        ignore=tensor(ignore),
        image_ids=ids,
        weights=tensor(weights),
    )


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
    # So is a SIGTERM to the whole group; a second one is meant for the worker.
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
