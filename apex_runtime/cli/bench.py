"""``apex-rt bench``: what a budget costs on this machine, and the table that deadlines are planned by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apex_runtime.cli.group import CommandWithActions
from apex_runtime.cli.interrupt import interruptible
from apex_runtime.cli.options import (
    FiniteRange,
    chosen_budgets,
    engine_options,
    json_option,
    not_empty,
    say_fallback,
    split_integers,
    split_list,
    tiles_option,
)
from apex_runtime.errors import ApexError, UsageError

if TYPE_CHECKING:
    from apex_runtime.benchmark.job import Job, Subject
    from apex_runtime.benchmark.measure import Cell, WarmUp
    from apex_runtime.benchmark.report import Measurement
    from apex_runtime.bundle.load import Opened

MAX_BATCH = 256
_MOST_ROUNDS = 300  # of two engines whose quotient does not settle
_ON_INTERRUPT = "interrupted: what was measured is reported; once more to leave at once"


# Beside measuring: what is done with measurements.
ACTIONS: dict[str, tuple[str, str]] = {
    "compare": ("apex_runtime.cli.bench_compare:compare", "Put the rows of several reports in one table, if that is fair."),
    "frontier": ("apex_runtime.cli.bench_frontier:frontier", "Accuracy and time over the budget, of one detector or several."),
    "check": ("apex_runtime.cli.bench_check:bench_check", "Is an engine slower or larger than its baseline allows?"),
    "record": ("apex_runtime.cli.bench_record:bench_record", "Measure an engine beside an anchor, as a baseline."),
    "trend": ("apex_runtime.cli.bench_trend:bench_trend", "Collect measurements, and draw how they went."),
}


@click.command(cls=CommandWithActions, lazy=ACTIONS)
@click.argument("engine", type=click.Path(), callback=not_empty)
@click.option(
    "--budget", multiple=True, callback=split_list, help="Budgets, one row each.  [default: a ladder from 1 tile to all]"
)
@tiles_option(multiple=True)
@click.option("--batch", multiple=True, default=("1",), show_default=True, callback=split_integers, help="Images per call.")
@click.option("--data", type=click.Path(), callback=not_empty, help="Image, folder or pattern.  [default: the shipped samples]")
@click.option(
    "--repeat", type=click.IntRange(1, 100_000), help="Rounds that are timed.  [default: 30; with --against, until it settles]"
)
@click.option("--seconds", type=FiniteRange(0, 86_400, min_open=True), help="About how long to measure, not --repeat.")
@engine_options
@click.option("--against", type=click.Path(), callback=not_empty, help="A second engine, timed in turn with ENGINE.")
@click.option("--layers", is_flag=True, help="Also time every node of the graph, by part of the model (ort-cpu).")
@click.option("--output", "-o", type=click.Path(dir_okay=False), callback=not_empty, help="Also write the report to this file.")
@click.option("--evidence", type=click.Path(), callback=not_empty, help="Also write an evidence bundle: a new folder.")
@json_option
def bench(
    engine: str,
    budget: tuple[str, ...],
    tiles: tuple[str, ...],
    batch: tuple[int, ...],
    data: str | None,
    repeat: int | None,
    seconds: float | None,
    threads: int | None,
    device: str,
    policy: str,
    against: str | None,
    layers: bool,
    output: str | None,
    evidence: str | None,
    as_json: bool,
) -> None:
    """Time ENGINE (bundle, model.onnx or best.pt) per budget: the graph, with the copies around it, and end to end.

    Every image is given as many tiles as the budget means for one that fills the input. Without --budget the latency table of
    this engine, machine, --threads and --batch is written to the cache folder: deadlines like 8ms are planned by it. With
    --against two engines take turns, and the quotient of their times is told with its interval; no latency table is written then.
    Ctrl-C ends the measurement; what was measured is reported, and the exit code is 1.

    \b
    Examples:
      apex-rt bench bundle/
      apex-rt bench model.onnx --threads 2 --batch 1,4 --data scans/ --seconds 60
      apex-rt bench bundle/ --budget 0.25,1.0 --repeat 100 --json -o bench.json
      apex-rt bench bundle/ --budget 8ms
      apex-rt bench bundle/ --budget 0.5 --against int8-bundle/ --evidence int8-is-faster/
    """
    from apex_runtime.benchmark.images import choose_images
    from apex_runtime.benchmark.job import Job, Subject
    from apex_runtime.cli.places import check_places
    from apex_runtime.pipeline.results import write_json

    if repeat is not None and seconds is not None:
        raise UsageError("--repeat and --seconds: both say how long to measure.", "Give one of them.")
    paths = (engine,) if against is None else (engine, against)
    check_places({"--output": output}, [*paths, *([data] if data else [])], evidence)
    job = Job(choose_images(data), data is not None, threads, device)
    subjects = []
    for path in paths:
        opened = job.open(path, policy)
        say_fallback(opened)
        subjects.append(Subject.of(path, opened, _cells(opened, path, budget, tiles, batch, job)))
    if layers:
        subjects[0].profiled_file()  # refused now, not when all is measured
    report, samples = _measure(subjects, job, repeat, seconds)
    if layers and report["status"] == "done":
        report["layers"] = job.layers(subjects[0])
    if evidence is not None:
        job.write_evidence(Path(evidence), subjects, report, samples)
    if output is not None:
        write_json(Path(output), report)
    if as_json:
        click.echo(json.dumps(report, indent=2, allow_nan=False))
    else:
        from apex_runtime.benchmark.table import table

        click.echo(table(report))
    if report["status"] != "done":
        raise SystemExit(1)


def _cells(
    opened: Opened, engine: str, budget: tuple[str, ...], tiles: tuple[str, ...], batch: tuple[int, ...], job: Job
) -> list[Cell]:
    """Every budget with every batch; the ladder without budgets. Raises UsageError."""
    from apex_runtime.benchmark.measure import Cell, ladder
    from apex_runtime.routing.planner import planned

    info = opened.session.info
    if not batch or not all(1 <= size <= MAX_BATCH for size in batch):
        raise UsageError(f"--batch {','.join(map(str, batch))}: expected 1 to {MAX_BATCH}.", "For example --batch 1,4")
    words = budget or [str(count) for count in ladder(info.tiles.count)]
    return [
        Cell.of(planned(each, opened, job.threads, size, job.device, engine), size, info)
        for size in dict.fromkeys(batch)
        for each in chosen_budgets(words, tiles)
    ]


def _measure(
    subjects: list[Subject], job: Job, repeat: int | None, seconds: float | None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The report, and the raw samples of every cell."""
    from apex_runtime import hindrances
    from apex_runtime.benchmark.measure import Bench
    from apex_runtime.benchmark.ratios import settled
    from apex_runtime.benchmark.report import Measurement, circumstances
    from apex_runtime.cli.progress import counter
    from apex_runtime.machine import state

    before, counters = state(), hindrances.read()
    with interruptible(_ON_INTERRUPT) as stop:
        bench = Bench([(subject.opened.session, subject.cells) for subject in subjects], job.paths, stop)
        warm_up = bench.warm_up()
        enough = (lambda: settled(bench.measured)) if len(subjects) > 1 and repeat is None and seconds is None else None
        rounds = _MOST_ROUNDS if enough else _rounds(repeat, seconds, warm_up)
        bench.run(rounds, lambda total: counter(total, "bench"), enough)
        status = "interrupted" if stop.is_set() else "done"
    measured = [item for item in bench.measured if item.turns]
    if not any(item.engine == 0 for item in measured):
        raise ApexError("Interrupted before anything was measured.", "Measure again, for example with fewer budgets.")
    facts = circumstances(before, hindrances.between(counters, hindrances.read()))
    found = Measurement(measured, warm_up, job.asked(), status, bench.timed[0].peak_memory_bytes, facts)
    report = job.report(subjects, found)
    report["latency_tables"] = _write_tables(subjects[0].opened, found, job) if len(subjects) == 1 else []
    return report, job.samples(measured)


def _rounds(repeat: int | None, seconds: float | None, warm_up: WarmUp) -> int:
    """How many rounds: as asked, or as many as fit into the seconds at the pace of the last round of warm-up."""
    if seconds is None:
        return 30 if repeat is None else repeat
    return max(1, int(seconds / max(warm_up.seconds_of_last, 1e-6)))


def _write_tables(opened: Opened, found: Measurement, job: Job) -> list[dict[str, Any]]:
    """One table per batch, or a note of why there is none; that the cache folder cannot be written spoils no report."""
    from apex_runtime.benchmark.report import latency_table
    from apex_runtime.routing.latency_table import TableKey, write_table

    written = []
    for batch in dict.fromkeys(item.cell.batch for item in found.measured):
        key = TableKey.of(opened, job.threads, batch, job.device)
        made = latency_table(key, found.measured, opened.session.info.tiles, found.circumstances)
        if isinstance(made, str):
            click.echo(f"note: no latency table written for batch {batch}: {made}", err=True)
            continue
        try:
            path = write_table(made)
        except OSError as error:
            click.echo(f"note: latency table for batch {batch} not written: {error}", err=True)
            continue
        click.echo(f"latency table for batch {batch}: {path}", err=True)
        written.append({"batch": batch, "points": [point.model_dump() for point in made.points]})
    return written
