"""The counts of the summary, by hand."""

from __future__ import annotations

from apex_runtime.pipeline.totals import Totals


def test_counts_and_medians() -> None:
    totals = Totals()
    assert totals.summary() == {"detections": 0, "tiles_spent": 0, "median_milliseconds": {}}
    for found, spent, graph in ((2, 5, 3.0), (0, 1, 9.0004), (7, 4, 4.5)):
        totals.add({"annotations": [{}] * found, "budget": {"spent": spent}, "milliseconds": {"graph": graph, "post": 2 * graph}})
    assert totals.summary() == {"detections": 9, "tiles_spent": 10, "median_milliseconds": {"graph": 4.5, "post": 9.0}}
