"""What the summary of a run counts over its images, kept while they come: nothing has to be read once more at the end."""

from __future__ import annotations

import statistics
from array import array
from collections import defaultdict
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Counts:
    """Images of a run: ``found`` in its source, ``done`` and ``failed`` by it, ``resumed`` from an earlier one."""

    found: int
    done: int
    failed: int
    resumed: int


class Totals:
    """Detections, tiles and median milliseconds over the records that were added."""

    def __init__(self) -> None:
        self._detections = 0
        self._tiles = 0
        self._times: dict[str, array[float]] = defaultdict(lambda: array("d"))

    def add(self, record: dict[str, Any]) -> None:
        """Count one image; ``record`` is its line of the journal."""
        self.count(record, len(record["annotations"]))

    def count(self, record: dict[str, Any], detections: int) -> None:
        """``add`` for a record of so many detections whose annotations were not read."""
        self._detections += detections
        self._tiles += record["budget"]["spent"]
        for name, value in record["milliseconds"].items():
            self._times[name].append(value)

    def summary(self) -> dict[str, Any]:
        """The fields ``detections``, ``tiles_spent`` and ``median_milliseconds``."""
        medians = {name: round(statistics.median(values), 3) for name, values in self._times.items()}
        return {"detections": self._detections, "tiles_spent": self._tiles, "median_milliseconds": medians}


def run_summary(
    counts: Counts, totals: Totals, seconds: float, settings: dict[str, Any], facts: dict[str, Any]
) -> dict[str, Any]:
    """What ``summary.json`` says of a run that took so many seconds; ``facts`` are added as they are."""
    finished = counts.resumed + counts.done
    return {
        "status": "done" if finished + counts.failed == counts.found else "interrupted",
        "settings": settings,
        **facts,
        "images": {"found": counts.found, "done": finished, "failed": counts.failed, "resumed": counts.resumed},
        **totals.summary(),
        "seconds": round(seconds, 3),
        "images_per_second": round(counts.done / seconds, 3) if seconds > 0 else 0.0,
    }
