"""A document of ``apex-rt bench record`` whose figures a test chooses."""

from __future__ import annotations

from typing import Any


def made_measurement(metrics: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """One budget; ``changes``: fields of any part of the document by their name."""
    document: dict[str, Any] = {
        "format_version": 1,
        "kind": "apex-x-baseline",
        "created_utc": "2026-11-28T12:00:00+00:00",
        "code": {"version": "0.1.0", "commit": "0" * 40, "dirty": False},
        "engine": {"model_sha256": "a" * 64, "executed": "ort-cpu", "precision": None, "input": [64, 96], "tiles": 16},
        "contract": {
            "timed": "a call",
            "threads": 1,
            "device": "cpu",
            "clock": "own",
            "anchor_sha256": "b" * 64,
            "backend_version": "1.0",
        },
        "budgets": ["0.25"],
        "measured": {"rounds": 20, "seconds": 5.0, "settled": True},
        "metrics": {
            "graph_over_anchor@0.25": {"unit": "ratio", "value": 1.25, "low": 1.24, "high": 1.26, "samples": 20},
            "graph_ms@0.25": {"unit": "ms", "value": 50.0, "low": 48.0, "high": 52.0, "samples": 20},
            "graph_wall_ms@0.25": {"unit": "ms", "value": 60.0, "low": 50.0, "high": 70.0, "samples": 20},
            "anchor_ms": {"unit": "ms", "value": 40.0, "low": 39.0, "high": 41.0, "samples": 20},
            "peak_memory_bytes": {"unit": "bytes", "value": 200_000_000},
        }
        if metrics is None
        else metrics,
        "circumstances": {
            "machine": {"processor": "p", "cpus": 2, "usable_cpus": 2, "memory_bytes": 8, "system": "s", "gpus": []},
            "before": {},
            "after": {},
            "versions": {"python": "3"},
        },
    }
    parts = (document, document["engine"], document["contract"], document["circumstances"], document["circumstances"]["machine"])
    for name, value in changes.items():
        (part,) = [part for part in parts if name in part]
        part[name] = value
    return document
