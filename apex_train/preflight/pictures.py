"""Every picture of a split, decoded once in a few threads: is it readable, has it the annotated size, and which is it."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.data.findings import Fault, Finding
from apex_runtime.errors import ApexError, ImageError

_PIXELS_AHEAD = 48_000_000  # decoded at the same time, or waiting for it: three bytes each
_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Look:
    """What decoding one picture told: a hash of its pixels and shape, and whether all its pixels are equal; or a fault."""

    digest: bytes = b""
    uniform: bool = False
    finding: Finding | None = None


def looks(dataset: InstanceDataset, threads: int) -> Iterator[Look]:
    """A look at every picture, in order. The pixels in memory are bounded; a picture larger than that is decoded alone."""
    waiting: deque[tuple[int, Future[Look]]] = deque()
    ahead = 0
    pool = ThreadPoolExecutor(threads, thread_name_prefix="pictures")
    try:
        for index, record in enumerate(dataset.records):
            pixels = record.width * record.height
            while waiting and (ahead + pixels > _PIXELS_AHEAD or len(waiting) >= 4 * threads):
                ahead -= waiting[0][0]
                yield waiting.popleft()[1].result()
            waiting.append((pixels, pool.submit(_look, dataset, index)))
            ahead += pixels
        while waiting:
            yield waiting.popleft()[1].result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _look(dataset: InstanceDataset, index: int) -> Look:
    record = dataset.records[index]
    try:
        pixels = dataset.read_image(index)
    except ApexError as error:
        fault = Fault.UNREADABLE_IMAGE if isinstance(error, ImageError) else Fault.SIZE_MISMATCH
        reason = error.message.removeprefix(f"{record.path}: ")
        return Look(finding=Finding(fault, record.declared, f"image {record.file_name}: {reason}"))
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=_DIGEST_BYTES)
    digest.update(np.ascontiguousarray(pixels).data)
    return Look(digest.digest(), bool((pixels == pixels[0, 0]).all()))
