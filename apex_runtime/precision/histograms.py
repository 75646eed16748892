"""Where the range of a tensor may be cut for eight bits, from a histogram of its values on all images: ONNX Runtime's methods.

Its HistogramCollector keeps the width of bins that the first image had: behind a dark image, a bright one makes thousands of
them into millions. Here their number stays, and their width doubles when an image needs it. Its flag ``symmetric`` is left off:
entropy ignores it (its candidates are symmetric anyway, then cut to what was seen), and a symmetric quantiser takes the
magnitude of the range.

Exact zeros stay out of entropy: a quantiser says them exactly, and they are half of what a Relu gives. With them it cuts Relus of
the default engine at a quarter of their range, without them at 0.5 to 1; the squared error of eight bits is least at 0.6 to 0.9.
"""

from __future__ import annotations

import math
from contextlib import redirect_stdout
from typing import Any, Literal

import numpy as np

from apex_runtime.precision.ranges import Range

HistogramMethod = Literal["percentile", "entropy"]
# Powers of two, so that bins can be joined. Entropy tries every cut in Python: its time grows with the square of them.
BINS: dict[HistogramMethod, int] = {"percentile": 8192, "entropy": 1024}
PERCENTILE = 99.999  # ONNX Runtime's own: half of a hundred-thousandth of the values may lie beyond either end
LEVELS = 256  # of eight bits. ONNX Runtime's own, 128 levels for 128 bins, leaves one candidate: nothing is ever cut
_NOTHING = 1e-30  # what never exceeds it counts as zero: NumPy cannot divide the smallest float32 into bins


class Histograms:
    """Histograms of tensors by name, as large after a thousand images as after one."""

    def __init__(self, method: HistogramMethod) -> None:
        from onnxruntime.quantization.calibrate import HistogramCollector

        self._method = method
        self._collector = HistogramCollector(method, False, BINS[method], LEVELS, PERCENTILE, "same")

    def add(self, name: str, values: np.ndarray) -> None:
        """What a tensor is on one more image: finite float32 of any shape, not empty."""
        magnitude = max(-float(values.min()), float(values.max()))
        if magnitude < _NOTHING:
            values = np.zeros_like(values)
        kept = self._collector.histogram_dict
        if name in kept and 0 < kept[name][-1] < magnitude:
            kept[name] = _widened(kept[name], magnitude)
        if self._method == "entropy":
            values = values[values != 0]
        with redirect_stdout(None):  # the collector prints
            self._collector.collect({name: values})

    def ranges(self) -> dict[str, Range]:
        """The range of each tensor by the method: it contains 0, and else lies within what was seen.

        Where the method leaves nothing but 0, as a percentile does when all but a few values are 0, it is all that was seen: a
        range of 0 would erase the tensor.
        """
        seen = {name: Range(float(entry[2]), float(entry[3])) for name, entry in self._collector.histogram_dict.items()}
        if not seen:
            return {}
        with redirect_stdout(None), np.errstate(divide="ignore", invalid="ignore"):  # it takes logarithms of empty bins
            found = self._collector.compute_collection_result()
        cut = {name: Range(float(least), float(largest)).with_zero() for name, (least, largest, *_) in found.items()}
        return {name: item if item.magnitude else seen[name].with_zero() for name, item in cut.items()}


def _widened(entry: tuple[Any, ...], magnitude: float) -> tuple[Any, ...]:
    """An entry of the collector over the smallest range, its own times a power of two, that holds ``magnitude``; as many bins."""
    counts, edges, least, largest, threshold = entry
    doublings = 0
    while math.ldexp(float(threshold), doublings) < magnitude:
        doublings += 1
    joined = counts.reshape(-1, min(2**doublings, len(counts) // 2)).sum(axis=1)
    padded = np.pad(joined, (len(counts) - len(joined)) // 2)
    return padded, np.ldexp(edges, doublings), least, largest, np.ldexp(threshold, doublings)
