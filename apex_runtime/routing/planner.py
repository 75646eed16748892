"""Deadlines: from milliseconds to a number of tiles, by the latency table of this machine.

The planner gives the most tiles whose 95th percentile, measured end to end, fits. Between two measured numbers of tiles the time
is taken as the straight line between them, since a tile costs about the same wherever it is; beyond the measured ones nothing is
assumed. With a batch the time is that of the whole batch: its last image must be done by then.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from apex_runtime.errors import UsageError
from apex_runtime.routing.budget import Budget
from apex_runtime.routing.latency_table import LatencyTable, TableKey, bench_command, read_table

if TYPE_CHECKING:
    from apex_runtime.bundle.load import Opened


def planned(
    budget: Budget,
    opened: Opened,
    threads: int | None = None,
    batch: int = 1,
    device: str = "cpu",
    engine: str | Path = "ENGINE",
) -> Budget:
    """The budget as tiles where it was a deadline, and as it is otherwise, and its limit likewise; ``asked`` stays as written.

    ``threads``, ``batch`` and ``device`` as the engine is used, ``engine`` as the user named it. Raises UsageError, code
    ``latency_table_missing``, without a table for just that; and one that names the least possible deadline.
    """
    if budget.limit is not None:
        budget = replace(budget, limit=planned(budget.limit, opened, threads, batch, device, engine))
    if budget.kind != "ms":
        return budget
    key = TableKey.of(opened, threads, batch, device)
    command = bench_command(engine, key, permissive=bool(opened.reason))
    return resolve_deadline(budget, read_table(key, budget.asked, command))


def resolve_deadline(budget: Budget, table: LatencyTable) -> Budget:
    """A budget of tiles that keeps the deadline; its limit stays. Raises UsageError when not even one tile fits."""
    return replace(budget, kind="tiles", value=tiles_within(budget.value, table, budget.asked))


def tiles_within(milliseconds: float, table: LatencyTable, asked: str) -> int:
    """K: the most tiles whose p95 is at most ``milliseconds``; never more than the table has. Rising with ``milliseconds``."""
    fitting = [index for index, point in enumerate(table.points) if point.p95 <= milliseconds]
    if not fitting:
        images = "one image" if table.key.batch == 1 else f"a batch of {table.key.batch} images"
        least = f"{math.ceil(table.points[0].p95 * 10) / 10:.10g}ms"
        raise UsageError(f"budget {asked}: {images} with one tile already takes {least} here.", f"Give at least {least}.")
    here = table.points[fitting[-1]]
    if fitting[-1] == len(table.points) - 1:
        return here.tiles
    there = table.points[fitting[-1] + 1]
    between = (milliseconds - here.p95) / (there.p95 - here.p95) * (there.tiles - here.tiles)
    return min(here.tiles + math.floor(between + 1e-9), there.tiles - 1)
