"""Milliseconds on a GPU, by its own events: of work replayed as a CUDA graph, and of calls made one after the other."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

Call = Callable[[], Any]
SAMPLES = 21


def graph_milliseconds(calls: Sequence[Call], repeats: int = 4) -> float:
    """Median time of one call when all of ``calls`` are replayed as one graph: nothing of Python, no gaps of launching.

    Every call has its own inputs, and its results are kept, so that no call finds in the cache what another left there.
    """
    for call in calls:  # compiled, loaded, handles made
        call()
    torch.cuda.synchronize()
    graph, kept = torch.cuda.CUDAGraph(), []
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            kept += [call() for call in calls]
    count = len(kept)
    samples = sorted(_between(graph.replay) / count for _ in range(SAMPLES))
    del kept, graph
    torch.cuda.empty_cache()
    return statistics.median(samples)


def eager_milliseconds(call: Call, samples: int = 9) -> float:
    """Median wall time of a call that is waited for, launching from Python included."""
    for _ in range(2):
        call()
    found = []
    for _ in range(samples):
        torch.cuda.synchronize()
        started = time.perf_counter()
        call()
        torch.cuda.synchronize()
        found.append((time.perf_counter() - started) * 1000)
    return statistics.median(found)


def copy_rate(moved: int, sets: int) -> float:
    """Bytes per second, read and written ones counted, of copies that move so many bytes each, between ``sets`` of arrays.

    The faster of the driver's copy and of a kernel that reads and writes 16 bytes at a time.
    """
    sources = [torch.rand(moved // 8, device="cuda") for _ in range(sets)]
    targets = [torch.empty_like(source) for source in sources]
    pairs = list(zip(sources, targets, strict=True))
    by_driver = [partial(target.copy_, source) for source, target in pairs]
    by_kernel = [partial(torch.mul, source, 1.0, out=target) for source, target in pairs]
    return moved / (min(graph_milliseconds(calls) for calls in (by_driver, by_kernel)) / 1000)


def _between(work: Call) -> float:
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    work()
    last.record()
    torch.cuda.synchronize()
    return float(first.elapsed_time(last))
