"""What ``apex-rt bench`` answers: a JSON document, a table for people, and the latency table that deadlines are planned by.

Schemas: ``apex_runtime/schemas/bench.schema.json`` and ``latency.schema.json``.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from apex_runtime.backends.session import in_all, per_level
from apex_runtime.benchmark.measure import TIMED, Measured, WarmUp
from apex_runtime.evaluation.memory import peak_resident_bytes
from apex_runtime.machine import machine, state, versions
from apex_runtime.routing.latency_table import MIN_SAMPLES, LatencyTable, Point, TableKey, monotone

if TYPE_CHECKING:
    from apex_runtime.bundle.load import Opened
    from apex_runtime.model_info import TileInfo

BENCH_FORMAT_VERSION = 1
WHAT_WAS_TIMED = {
    "graph": "one call of the backend on arrays of the host that are ready; on a GPU its copies to and from the device are in it",
    "with_copies": "graph, stacking the letterboxed images and their tile_bonus into one batch, taking its outputs apart",
    "end_to_end": "with_copies, reading and decoding the files, letterboxing, boxes, masks, run lengths; no drawing, no writing",
}


def row(item: Measured, depth: int) -> dict[str, Any]:
    """The figures of one cell: milliseconds of one call of ``batch`` images, and images per second."""
    cell = item.cell
    return {
        "budget": cell.budget.asked,
        "tiles": in_all(cell.tiles),
        **({"per_level": list(per_level(cell.tiles))} if depth > 1 else {}),
        "batch": cell.batch,
        "samples": item.turns,
        **{name: _figures(item.milliseconds[name], cell.batch) for name in TIMED},
    }


def _figures(milliseconds: list[float], batch: int) -> dict[str, float]:
    return {
        "median": round(statistics.median(milliseconds), 3),
        "p95": round(float(np.percentile(milliseconds, 95)), 3),
        "images_per_second": round(batch * 1000 / statistics.fmean(milliseconds), 3),
    }


def document(
    opened: Opened,
    measured: Sequence[Measured],
    warm_up: WarmUp,
    contract: dict[str, Any],
    status: str,
    device_bytes: int | None,
    before: dict[str, Any],
) -> dict[str, Any]:
    """The whole answer. ``before``: ``machine.state()`` when measuring began; ``device_bytes``: peak memory of the device."""
    info = opened.session.info
    return {
        "format_version": BENCH_FORMAT_VERSION,
        "status": status,
        "created_utc": _now(),
        "engine": {
            "model_sha256": opened.digest,
            "requested": opened.requested,
            "executed": opened.executed,
            "precision": opened.manifest.precision if opened.manifest else None,
            "reason": opened.reason or None,
            "input": [info.input.height, info.input.width],
            "tiles": info.tiles.count,
        },
        "contract": contract,
        "timed": WHAT_WAS_TIMED,
        "warm_up": {"rounds": warm_up.rounds, "steady": warm_up.steady},
        "rows": [row(item, info.tiles.depth) for item in measured],
        "peak_memory": {"resident_bytes": peak_resident_bytes(), "device_bytes": device_bytes},
        "circumstances": {"machine": machine(), "before": before, "after": state(), "versions": versions()},
    }


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
    figures = _figures(item.milliseconds["end_to_end"], item.cell.batch)
    return Point(tiles=in_all(item.cell.tiles), samples=item.turns, p50=figures["median"], p95=figures["p95"])


def table(report: dict[str, Any]) -> str:
    """What a terminal shows."""
    return "\n".join(_lines(report))


def _lines(report: dict[str, Any]) -> Iterator[str]:
    engine, contract = report["engine"], report["contract"]
    precision = f", {engine['precision']}" if engine["precision"] else ""
    head = f"{engine['executed']}{precision} at {'x'.join(map(str, engine['input']))}, {engine['tiles']} tiles"
    threads = "default threads" if contract["threads"] is None else f"{contract['threads']} threads"
    yield f"{head}, {threads}, {contract['images']} images; milliseconds per call"
    columns = "".join(f"{name.replace('_', ' ') + ' (p95)':>22}" for name in TIMED)
    yield f"{'budget':<9}{'tiles':>6}{'batch':>7}{columns}{'images/s':>10}"
    for item in report["rows"]:
        times = "".join(f"{item[name]['median']:>13.1f} ({item[name]['p95']:6.1f})" for name in TIMED)
        speed = item["end_to_end"]["images_per_second"]
        yield f"{item['budget']:<9}{item['tiles']:>6}{item['batch']:>7}{times}{speed:>10.1f}"
    yield from (f"{name.replace('_', ' ')}: {text}" for name, text in report["timed"].items())
    yield _circumstances(report)


def _circumstances(report: dict[str, Any]) -> str:
    facts, memory = report["circumstances"], report["peak_memory"]
    before, hardware = facts["before"], facts["machine"]
    words = [f"{hardware['processor']}, {hardware['usable_cpus']} cpus"]
    words += [f"governor {before['governor']}"] if before["governor"] else []
    words += [f"{before['megahertz']:.0f} MHz"] if before["megahertz"] else []
    words += [f"load {before['load'][0]:.1f} before"] if before["load"] else []
    words += [f"peak memory {memory['resident_bytes'] / 1e6:.0f} MB"] if memory["resident_bytes"] else []
    words += [f"{memory['device_bytes'] / 1e6:.0f} MB on the device"] if memory["device_bytes"] else []
    warm = report["warm_up"]
    words += [f"{warm['rounds']} rounds of warm-up" + ("" if warm["steady"] else ", still not steady")]
    return "; ".join(words)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
