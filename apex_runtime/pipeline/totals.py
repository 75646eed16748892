"""What the summary of a run counts over its images, kept while they come: nothing has to be read once more at the end."""

from __future__ import annotations

import statistics
from array import array
from collections import defaultdict
from typing import Any


class Totals:
    """Detections, tiles and median milliseconds over the records that were added."""

    def __init__(self) -> None:
        self._detections = 0
        self._tiles = 0
        self._times: dict[str, array[float]] = defaultdict(lambda: array("d"))

    def add(self, record: dict[str, Any]) -> None:
        """Count one image; ``record`` is its line of the journal."""
        self._detections += len(record["annotations"])
        self._tiles += record["budget"]["spent"]
        for name, value in record["milliseconds"].items():
            self._times[name].append(value)

    def summary(self) -> dict[str, Any]:
        """The fields ``detections``, ``tiles_spent`` and ``median_milliseconds``."""
        medians = {name: round(statistics.median(values), 3) for name, values in self._times.items()}
        return {"detections": self._detections, "tiles_spent": self._tiles, "median_milliseconds": medians}
