"""A run as a table: one row per image, for spreadsheets."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from apex_runtime.files import replacing_text
from apex_runtime.model_info import Category

_TIMES = ("decode", "graph", "post", "total")


def write_table(path: Path, records: Iterable[dict[str, Any]], categories: Sequence[Category], least: float) -> None:
    """Size, detections, of these the ones that score at least ``least`` in all and per class, budget and milliseconds of every
    record of results.jsonl. Raises OSError."""
    with replacing_text(path) as stream:
        table = csv.writer(stream, lineterminator="\n")
        names = [category.name for category in categories]
        times = [f"{name}_ms" for name in _TIMES]
        table.writerow(["file_name", "width", "height", "detections", "shown", *names, "budget", "tiles", "spent", *times])
        for record in records:
            shown = Counter(item["category_id"] for item in record["annotations"] if item["score"] >= least)
            counts = [len(record["annotations"]), shown.total(), *(shown[category.id] for category in categories)]
            budget = [record["budget"][key] for key in ("asked", "tiles", "spent")]
            milliseconds = [record["milliseconds"][name] for name in _TIMES]
            table.writerow([record["file_name"], record["width"], record["height"], *counts, *budget, *milliseconds])
