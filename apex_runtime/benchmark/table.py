"""The report of ``apex-rt bench`` as a terminal shows it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from apex_runtime.benchmark.layers import lines as layer_lines
from apex_runtime.benchmark.measure import TIMED


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
    yield from _stage_lines(report["rows"])
    yield from layer_lines(report.get("layers", []))
    yield from _against_lines(report.get("against"))
    yield from (f"{name.replace('_', ' ')}: {text}" for name, text in report["timed"].items())
    yield _circumstances(report)


def _stage_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Where the time of a call goes: the cheapest row and the dearest one."""
    ends = (min(rows, key=_end_to_end), max(rows, key=_end_to_end))
    for item in ends if len(rows) > 1 else ends[:1]:
        parts = ", ".join(f"{name} {value:.1f}" for name, value in item["stages"].items())
        yield f"stages of budget {item['budget']}, batch {item['batch']}: {parts}"


def _end_to_end(item: dict[str, Any]) -> float:
    return item["end_to_end"]["median"]


def _against_lines(other: dict[str, Any] | None) -> Iterator[str]:
    if other is None:
        return
    clock = other["clock"]
    name = f"{other['engine']['executed']}, {other['engine']['precision']}"
    yield f"against {name}: its {clock} time over the first's, round by round{'' if other['settled'] else ', not settled'}"
    for item in other["ratios"]:
        quotients = "".join(f"{name.replace('_', ' ')} {_quotient(item[name]):<28}" for name in ("graph", "end_to_end"))
        yield f"  {item['budget']:<9}batch {item['batch']:<4}{quotients}"
    for name, (first, second) in other["differences"].items():
        yield f"  not the same: {name} {first} and {second}"


def _quotient(found: dict[str, Any]) -> str:
    if found["low"] is None:
        return f"{found['ratio']:.3f} (too few rounds)"
    return f"{found['ratio']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def _circumstances(report: dict[str, Any]) -> str:
    facts, memory = report["circumstances"], report["peak_memory"]
    before, hardware = facts["before"], facts["machine"]
    words = [f"{hardware['processor']}, {hardware['usable_cpus']} cpus"]
    words += [f"governor {before['governor']}"] if before["governor"] else []
    words += [f"{before['megahertz']:.0f} MHz"] if before["megahertz"] else []
    words += [f"load {before['load'][0]:.1f} before"] if before["load"] else []
    words += [f"peak memory {memory['resident_bytes'] / 1e6:.0f} MB"] if memory["resident_bytes"] else []
    words += [f"{memory['device_bytes'] / 1e6:.0f} MB on the device"] if memory["device_bytes"] else []
    hindered = facts["hindered"]
    words += [f"{100 * hindered['stolen_share']:.1f} % of its time went to other guests"] if hindered["stolen_share"] else []
    words += [f"{hindered['thermal_throttles']} times slowed by heat"] if hindered["thermal_throttles"] else []
    words += [f"{hindered['quota_seconds']:.1f} s stopped by its quota"] if hindered["quota_seconds"] else []
    warm = report["warm_up"]
    words += [f"{warm['rounds']} rounds of warm-up" + ("" if warm["steady"] else ", still not steady")]
    return "; ".join(words)
