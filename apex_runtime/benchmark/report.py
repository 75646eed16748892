"""What ``apex-rt bench`` answers: a JSON document, and the latency table that deadlines are planned by.

Schemas: ``apex_runtime/schemas/bench.schema.json`` and ``latency.schema.json``.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from apex_runtime.backends.session import in_all, per_level
from apex_runtime.benchmark.measure import TIMED, Measured, WarmUp
from apex_runtime.benchmark.ratios import pairs, ratio_row, settled
from apex_runtime.evaluation.memory import peak_resident_bytes
from apex_runtime.fairness.contract import Contract, differences
from apex_runtime.machine import machine, state, versions
from apex_runtime.own_time import clock_name
from apex_runtime.routing.latency_table import MIN_SAMPLES, LatencyTable, Point, TableKey, monotone

if TYPE_CHECKING:
    from apex_runtime.bundle.load import Opened
    from apex_runtime.model_info import TileInfo

BENCH_FORMAT_VERSION = 2
WHAT_WAS_TIMED = {
    "graph": "one call of the backend on arrays of the host that are ready; on a GPU its copies to and from the device are in it",
    "with_copies": "graph, stacking the letterboxed images and their tile_bonus into one batch, taking its outputs apart",
    "end_to_end": "with_copies, reading and decoding the files, letterboxing, boxes, masks, run lengths; no drawing, no writing",
}


def row(item: Measured, depth: int, contract: Contract) -> dict[str, Any]:
    """The figures of one cell: milliseconds of one call of ``batch`` images, and images per second.

    ``stages``: medians of the parts of ``end_to_end``. ``contract`` is that of the report; the row's own has its batch.
    """
    cell = item.cell
    return {
        "budget": cell.budget.asked,
        "tiles": in_all(cell.tiles),
        **({"per_level": list(per_level(cell.tiles))} if depth > 1 else {}),
        "batch": cell.batch,
        "samples": item.turns,
        **{name: _figures(item.milliseconds(name), cell.batch) for name in TIMED},
        "stages": {name: round(statistics.median(values), 3) for name, values in item.stages.items()},
        "contract_sha256": of_batch(contract, cell.batch).sha256(),
    }


def of_batch(contract: Contract, batch: int) -> Contract:
    """The contract of the rows with that many images per call."""
    return contract.model_copy(update={"batch": batch})


def _figures(milliseconds: list[float], batch: int) -> dict[str, float]:
    return {
        "median": round(statistics.median(milliseconds), 3),
        "p95": round(float(np.percentile(milliseconds, 95)), 3),
        "images_per_second": round(batch * 1000 / statistics.fmean(milliseconds), 3),
    }


@dataclass(frozen=True)
class Measurement:
    """All that a report is made of, but the engines. ``device_bytes``: peak memory of the device, where the session tells."""

    measured: Sequence[Measured]
    warm_up: WarmUp
    asked: dict[str, Any]
    status: str
    device_bytes: int | None
    circumstances: dict[str, Any]


def document(opened: Opened, precision: str, contract: Contract, found: Measurement) -> dict[str, Any]:
    """The answer for the first engine of a measurement."""
    own = [item for item in found.measured if item.engine == 0]
    return {
        "format_version": BENCH_FORMAT_VERSION,
        "status": found.status,
        "created_utc": _now(),
        "engine": engine_facts(opened, precision),
        "contract": found.asked,
        "fairness": contract.model_dump(mode="json"),
        "timed": WHAT_WAS_TIMED,
        "warm_up": {"rounds": found.warm_up.rounds, "steady": found.warm_up.steady},
        "rows": rows(own, opened, contract),
        "peak_memory": {"resident_bytes": peak_resident_bytes(), "device_bytes": found.device_bytes},
        "circumstances": found.circumstances,
    }


def rows(measured: Iterable[Measured], opened: Opened, contract: Contract) -> list[dict[str, Any]]:
    """A row per cell of one engine."""
    return [row(item, opened.session.info.tiles.depth, contract) for item in measured]


def engine_facts(opened: Opened, precision: str) -> dict[str, Any]:
    """Which engine was timed."""
    info = opened.session.info
    return {
        "model_sha256": opened.digest,
        "requested": opened.requested,
        "executed": opened.executed,
        "precision": precision,
        "reason": opened.reason or None,
        "input": [info.input.height, info.input.width],
        "tiles": info.tiles.count,
    }


def against(opened: Opened, precision: str, contract: Contract, first: Contract, found: Measurement) -> dict[str, Any]:
    """The second engine of a measurement: its contract and rows, the quotients, and where its contract is another.

    ``clock`` is that of the quotients: own is the wall's without the time in which the calling thread waited for a core.
    """
    return {
        "engine": engine_facts(opened, precision),
        "fairness": contract.model_dump(mode="json"),
        "rows": rows((item for item in found.measured if item.engine == 1), opened, contract),
        "clock": clock_name(),
        "settled": settled(found.measured),
        "ratios": [ratio_row(*pair) for pair in pairs(found.measured)],
        "differences": {name: list(values) for name, values in differences(first, contract).items()},
    }


def circumstances(before: dict[str, Any], hindered: dict[str, Any]) -> dict[str, Any]:
    """``before``: ``machine.state()`` when measuring began; ``hindered``: what ``hindrances.between`` says of it."""
    return {"machine": machine(), "before": before, "after": state(), "hindered": hindered, "versions": versions()}


def latency_table(
    key: TableKey, measured: Sequence[Measured], tiles: TileInfo, circumstances: dict[str, Any]
) -> LatencyTable | str:
    """The table of the cells of this key's batch, or why there is none: what covers a part must not replace what covers all."""
    cells = [item for item in measured if item.cell.batch == key.batch and _follows_the_ratio(item, tiles.depth)]
    if not {1, tiles.count} <= {in_all(item.cell.tiles) for item in cells}:
        return f"it covers 1 tile to all {tiles.count}; leave --budget and --tiles out for that"
    if any(item.turns < MIN_SAMPLES for item in cells):
        return f"it needs {MIN_SAMPLES} rounds"
    points = monotone(_point(item) for item in cells)
    return LatencyTable(key=key, points=points, created_utc=_now(), circumstances=circumstances)


def _follows_the_ratio(item: Measured, depth: int) -> bool:
    """Planned tiles of several levels are shared out by the file's ratio; a row of another division says nothing about them."""
    return depth == 1 or not item.cell.budget.levels


def _point(item: Measured) -> Point:
    figures = _figures(item.milliseconds("end_to_end"), item.cell.batch)
    return Point(tiles=in_all(item.cell.tiles), samples=item.turns, p50=figures["median"], p95=figures["p95"])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
