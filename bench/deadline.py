"""Does the planner keep its deadlines? Live, end to end, the tiles it plans against the best there were, in one interleaved run.

Every round gives each number of tiles one turn on the same image. Once through the images makes the latency table, of the ladder
that ``apex-rt bench`` measures; once through them judges, and so on, so both see the same images and the same hours. The
deadlines are those that the table gives its numbers of tiles and some between them, so the straight lines are judged too. A
violation is a turn that takes longer than its deadline. The best K is the largest that was late in at most one in twenty turns.

    python bench/deadline.py engines/nuclei-nano --threads 2 --seconds 120 --output bench/evidence/deadline.json
"""

from __future__ import annotations

import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
from evidence import write_evidence

from apex_runtime.benchmark.images import choose_images
from apex_runtime.benchmark.measure import Bench, Cell, ladder
from apex_runtime.bundle.load import open_engine
from apex_runtime.cli.progress import counter
from apex_runtime.routing.budget import parse_budget
from apex_runtime.routing.latency_table import MIN_SAMPLES, LatencyTable, Point, TableKey, monotone
from apex_runtime.routing.planner import tiles_within

ALLOWED = 0.05  # of the turns: what a 95th percentile promises


@click.command()
@click.argument("engine", type=click.Path(exists=True, path_type=Path))
@click.option("--threads", default=2, show_default=True)
@click.option("--seconds", default=120.0, show_default=True)
@click.option("--data", type=click.Path(exists=True), help="Image, folder or pattern.  [default: the shipped samples]")
@click.option("--output", type=click.Path(path_type=Path))
def main(engine: Path, threads: int, seconds: float, data: str | None, output: Path | None) -> None:
    """Measure, print a row per deadline; ``--output`` also writes the samples."""
    opened = open_engine(engine, threads)
    info, paths = opened.session.info, choose_images(data)
    steps = ladder(info.tiles.count)
    between = [(low + high) // 2 for low, high in list(pairwise(steps))[1::2]]
    cells = [Cell.of(parse_budget(count), 1, info) for count in sorted({*steps, *between})]
    bench = Bench([(opened.session, cells)], paths, threading.Event())
    warm = bench.warm_up()
    passes = max(1, round(seconds / warm.seconds_of_last / len(paths) / 2), -(-MIN_SAMPLES // len(paths)))
    bench.run(2 * passes * len(paths), lambda total: counter(total, "deadline"))
    samples = {int(item.cell.budget.value): item.milliseconds("end_to_end") for item in bench.measured}
    halves = {count: alternate(values, len(paths)) for count, values in samples.items()}
    table = table_of({count: halves[count][0] for count in steps}, TableKey.of(opened, threads, 1))
    judged = {count: half[1] for count, half in halves.items()}
    rows = [judge(time_of(count, table), judged, table) for count in sorted(set(samples) - {1})]
    worst = max(row["points_more_than_best"] for row in rows)
    for row in rows:
        late = f"late {row['late']:.1%}, best K {row['best']}: {row['best_late']:.1%}"
        click.echo(f"{row['deadline_ms']:8.1f} ms: planned K {row['planned']:>3}, {late}")
    mean = float(np.mean([row["points_more_than_best"] for row in rows]))
    click.echo(f"planned over best, in points of violations: mean {mean:.1f}, worst {worst:.1f}; {len(judged[1])} turns each")
    if output is not None:
        contract = {
            "timed": "end to end, batch 1, from the file to run lengths",
            "model_sha256": opened.digest,
            "backend": opened.executed,
            "threads": threads,
            "images": len(paths),
            "rounds": bench.measured[0].turns,
            "warm_up_steady": warm.steady,
        }
        figures = {"worst_points": worst, "mean_points": mean, "rows": rows}
        points = [point.model_dump() for point in table.points]
        write_evidence(output, {"contract": contract, **figures, "table": points, "samples_ms": samples})


def alternate(values: list[float], length: int) -> tuple[list[float], list[float]]:
    """The values in two lists: ``length`` to the first, ``length`` to the second, and again."""
    halves: tuple[list[float], list[float]] = ([], [])
    for index, value in enumerate(values):
        halves[index // length % 2].append(value)
    return halves


def table_of(samples: dict[int, list[float]], key: TableKey) -> LatencyTable:
    """The table that these milliseconds per number of tiles make."""
    points = [
        Point(tiles=count, samples=len(values), p50=float(np.median(values)), p95=float(np.percentile(values, 95)))
        for count, values in samples.items()
    ]
    return LatencyTable(key=key, points=monotone(points), created_utc="", circumstances={})


def time_of(count: int, table: LatencyTable) -> float:
    """The milliseconds that the table gives ``count`` tiles."""
    return float(np.interp(count, [point.tiles for point in table.points], [point.p95 for point in table.points]))


def judge(deadline: float, judged: dict[int, list[float]], table: LatencyTable) -> dict[str, Any]:
    """How often the planned number of tiles is late, and how often the best is; ``judged``: milliseconds per number of tiles."""
    late = {count: float(np.mean(np.array(values) > deadline)) for count, values in judged.items()}
    planned = max(count for count in judged if count <= tiles_within(deadline, table, f"{deadline:.1f}ms"))
    best = max((count for count in judged if late[count] <= ALLOWED), default=min(judged))
    return {
        "deadline_ms": round(deadline, 3),
        "planned": planned,
        "late": late[planned],
        "best": best,
        "best_late": late[best],
        "points_more_than_best": 100 * (late[planned] - late[best]),
    }


if __name__ == "__main__":
    main()
