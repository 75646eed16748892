"""Does a served engine keep its promises under load: 80 % of what it can do for minutes, three times that, and afterwards?

    python bench/server_load.py --seconds 300 --evidence bench/evidence/server-load.json

The engine is exported for MLServer and started on the first core, the client has the others. How many requests a second it
answers is measured first, with as many clients as keep it busy. Then, at a rate that does not wait for answers: a share of that
with mixed budgets and one wrong request in twenty; ``--overload`` times that; the share again, until it is as it was. At last the
capacity once more, which tells whether the machine kept its speed.

``capacity``: good answers a second. Times of good answers are counted from the moment of the plan. ``recovered_seconds``: after
the end of the overload, the end of the last second in which a good request failed or the median was above the p99 of before.
``tiles``: the mean that good answers spent, by the budget that was asked for; with ``--overload-budget`` some get less.
``anchor_ms``: a fixed computation of the client, timed once a second, which tells when the core of the client did less.
Exit code 1: a promise was not kept.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from evidence import write_evidence
from server_anchor import Sample, anchored
from server_client import Answered, Client, Mix, closed_loop, moments, open_loop
from server_memory import Memory
from server_process import ServerProcess, free_ports
from server_rows import REFUSALS, Row, recovered, row

from apex_runtime.data.sources import resolve_sources
from apex_runtime.engine import default_engine
from apex_runtime.errors import ConfigError
from apex_runtime.serving.mlserver_export import Ports, export_mlserver
from apex_runtime.serving.settings import parse_settings

MODEL = "engine"
RATIO = 3.0  # p99 over p50
RECOVERY = 5.0  # seconds
GROWTH_PERCENT = 3.0


@click.command()
@click.option("--engine", type=click.Path(exists=True, path_type=Path), help="A bundle.  [default: the shipped one]")
@click.option("--data", default="engines/samples", show_default=True, help="Image, folder or pattern.")
@click.option("--budget", "budgets", default="0.125,0.25,0.5,1.0", show_default=True)
@click.option("--min-score", default=0.3, show_default=True)
@click.option("--workers", default=1, show_default=True, help="Images at a time.")
@click.option("--queue", default=16, show_default=True)
@click.option("--overload-budget", help="At most this while many wait.  [default: no limit]")
@click.option("--overload-waiting", default=2, show_default=True, help="Requests that must wait for --overload-budget.")
@click.option("--timeout-ms", default=5000.0, show_default=True)
@click.option("--probe-seconds", default=30.0, show_default=True, help="How long the capacity is measured.")
@click.option("--seconds", default=300.0, show_default=True, help="Of the sustained load.")
@click.option("--share", default=0.8, show_default=True, help="Of the capacity.")
@click.option("--bad-share", default=0.05, show_default=True, help="Requests that are wrong.")
@click.option("--overload", default=3.0, show_default=True, help="Times the capacity.")
@click.option("--overload-seconds", default=30.0, show_default=True)
@click.option("--recovery-seconds", default=15.0, show_default=True, help="How long it is watched afterwards.")
@click.option("--arrivals", type=click.Choice(["even", "poisson"]), default="even", show_default=True)
@click.option("--evidence", type=click.Path(path_type=Path))
def main(engine: Path | None, data: str, evidence: Path | None, **asked: Any) -> None:
    """Measure, print a line per phase; ``--evidence`` also writes what was seen every second."""
    images = [item.path.read_bytes() for item in resolve_sources(data)]
    same = ("min_score", "workers", "queue", "timeout_ms", "overload_budget", "overload_waiting")
    try:
        settings = parse_settings({name: asked[name] for name in same}, "server_load.py")
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    first, *others = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        export_mlserver(engine or default_engine(), Path(folder), MODEL, settings, Ports("127.0.0.1", *free_ports(3)))
        server = ServerProcess.start(Path(folder), MODEL, [first] if others else [])
        if others:
            os.sched_setaffinity(0, others)
        try:
            found = asyncio.run(phases(server, images, asked))
        finally:
            code = server.stop()
            os.sched_setaffinity(0, [first, *others])
    found["exit_code"] = code
    promises = judge(found)
    for line in said(found):
        click.echo(line)
    for promise, kept in promises.items():
        click.echo(f"{'kept' if kept else 'BROKEN'}: {promise}")
    if evidence is not None:
        cores = {"server": [first] if others else "all", "client": others or "all"}
        versions = {name: importlib.metadata.version(name) for name in ("mlserver", "tritonclient", "grpcio")}
        terms = {"asked": asked | {"images": len(images), "cores": cores}, "serving_versions": versions}
        from apex_train.report.measure import finite  # brings torch, which the load is not to wait for

        write_evidence(evidence, finite({**terms, **found, "promises": promises}))
    if not all(promises.values()):
        raise SystemExit(1)


async def phases(server: ServerProcess, images: Sequence[bytes], asked: dict[str, Any]) -> Row:
    """Capacity, sustained load, overload, recovery: a row for each."""
    budgets = asked["budgets"].split(",")
    client = Client(server.grpc, MODEL, asked["timeout_ms"])
    memory = Memory(server)
    # The capacity is that of requests that get all they ask for: fewer wait than an overload begins with.
    clients = asked["workers"] + (2 if asked["overload_budget"] is None else min(2, asked["overload_waiting"] - 1))

    async def busy() -> tuple[Row, float]:
        found = await closed_loop(client, Mix(images, budgets, 0.0), clients, asked["probe_seconds"])
        return row(found), sum(one.status == "OK" for one in found) / asked["probe_seconds"]

    probe, capacity = await busy()
    mix = Mix(images, budgets, asked["bad_share"])

    async def at_rate(rate: float, seconds: float) -> tuple[list[Answered], list[Sample]]:
        return await anchored(open_loop(client, mix, moments(rate, seconds, asked["arrivals"]), memory.watch))

    memory.mark()
    sustained, beside_sustained = await at_rate(capacity * asked["share"], asked["seconds"])
    grown = memory.since_mark()
    overload, beside_overload = await at_rate(capacity * asked["overload"], asked["overload_seconds"])
    recovery, beside_recovery = await at_rate(capacity * asked["share"], asked["recovery_seconds"])
    _again, capacity_after = await busy()
    await client.close()
    calm = row(sustained, beside_sustained)
    # Requests of the overload are all answered when it returns: what the recovery took began with its last arrival.
    tail = max((one.at + one.seconds for one in overload), default=0.0) - asked["overload_seconds"]
    late = max(0.0, tail) + recovered(recovery, calm["p99_ms"] / 1000)
    return {
        "capacity": capacity,
        "capacity_after": capacity_after,
        "probe": probe,
        "sustained": calm,
        "memory": grown,
        "overload": row(overload, beside_overload) | {"deadline_ms": asked["timeout_ms"]},
        "recovery": row(recovery, beside_recovery) | {"recovered_seconds": late},
    }


def judge(found: Row) -> dict[str, bool]:
    """Every promise, and whether it was kept."""
    calm, storm = found["sustained"], found["overload"]
    return {
        "no error on good requests under sustained load": set(calm["good"]) == {"OK"},
        "every wrong request is called invalid": set(calm["wrong"]) <= {"INVALID_ARGUMENT"},
        f"p99 at most {RATIO:g} times p50": calm["p99_ms"] <= RATIO * calm["p50_ms"],
        f"memory grows by at most {GROWTH_PERCENT:g} %": found["memory"]["growth_percent"] <= GROWTH_PERCENT,
        "overload is refused, by codes of its own": bool(set(storm["good"]) & REFUSALS)
        and set(storm["good"]) <= REFUSALS | {"OK"},
        "good answers under overload come within the deadline": storm["p100_ms"] <= storm["deadline_ms"],
        f"recovers within {RECOVERY:g} s": found["recovery"]["recovered_seconds"] <= RECOVERY,
        "stops when it is asked to": found["exit_code"] == 0,
    }


def said(found: Row) -> list[str]:
    """The phases in words."""
    memory, storm = found["memory"], found["overload"]
    refused = 1 - storm["good"].get("OK", 0) / sum(storm["good"].values())
    lines = [f"capacity: {found['capacity']:.1f} good answers/s, at the end {found['capacity_after']:.1f}"]
    for name in ("sustained", "overload", "recovery"):
        one = found[name]
        lines.append(f"{name}: {one['requests']} requests, good {one['good']}, wrong {one['wrong']}")
        lines.append(f"  p50 {one['p50_ms']:.0f} ms, p95 {one['p95_ms']:.0f}, p99 {one['p99_ms']:.0f}, most {one['p100_ms']:.0f}")
        tiles = ", ".join(f"{spent:.1f} of {budget}" for budget, spent in one["tiles"].items())
        lines.append(f"  tiles by budget: {tiles}; anchor p50 {one['anchor_p50_ms']:.2f} ms, p99 {one['anchor_p99_ms']:.2f}")
    lines.append(f"refused under overload: {100 * refused:.1f} %, p99 {storm['refused_p99_ms']:.0f} ms")
    lines.append(f"recovered after {found['recovery']['recovered_seconds']:.1f} s")
    mib = f"{memory['first_mib']:.0f} to {memory['last_mib']:.0f} MiB"
    lines.append(f"memory: {mib}, {memory['mib_per_minute']:+.2f} MiB a minute")
    return lines


if __name__ == "__main__":
    main()
