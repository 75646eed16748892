"""``apex-rt bench record``: what an engine costs beside the anchor, as the baseline of a gate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apex_runtime.cli.interrupt import interruptible
from apex_runtime.cli.options import FiniteRange, json_option, not_empty, split_list
from apex_runtime.errors import UsageError

if TYPE_CHECKING:
    from apex_runtime.regression.record import Enough
    from apex_runtime.regression.rounds import Patience
    from apex_runtime.regression.workload import Workload

DEFAULT_SECONDS = 30.0
_ON_INTERRUPT = "interrupted: nothing will be written; once more to leave at once"


@click.command("record")
@click.argument("engine", type=click.Path(), callback=not_empty)
@click.option("--output", "-o", required=True, type=click.Path(dir_okay=False), callback=not_empty, help="The file to write.")
@click.option("--budget", multiple=True, callback=split_list, help="Budgets, some metrics each.  [default: 1, 0.25, 1.0]")
@click.option(
    "--threads", type=click.IntRange(1, 1024), default=1, show_default=True, help="Threads; with one, noise disturbs least."
)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--seconds", type=FiniteRange(0, 86_400, min_open=True), help="The most to measure.  [default: 30]")
@click.option("--repeat", type=click.IntRange(1, 100_000), help="Just so many rounds, not --seconds.")
@json_option
def bench_record(
    engine: str,
    output: str,
    budget: tuple[str, ...],
    threads: int,
    device: str,
    seconds: float | None,
    repeat: int | None,
    as_json: bool,
) -> None:
    """Measure ENGINE (bundle or model.onnx) and write what it costs: the baseline that bench check compares with.

    On a CPU every call is timed beside a call of the anchor, a piece of work that never changes, and their quotient is
    kept besides the milliseconds. At least 12 rounds, then until every quotient is known to 1 %, or --seconds are over.

    \b
    Examples:
      apex-rt bench record bundle/ --output baseline.json
      apex-rt bench record model.onnx --budget 0.25 --seconds 60 -o baseline.json
    """
    from apex_runtime.cli.places import check_places
    from apex_runtime.pipeline.results import write_json
    from apex_runtime.regression.record import steady
    from apex_runtime.regression.workload import Settings, open_workload

    check_places({"--output": output}, (engine,))
    chosen = Settings(budget or Settings().budgets, threads, device)
    measured = measure(open_workload(engine, chosen), patience(seconds, repeat), steady)
    write_json(Path(output), measured)
    if as_json:
        click.echo(json.dumps(measured, indent=2, allow_nan=False))
        return
    from apex_runtime.regression.tables import measurement_table

    _print(measurement_table(measured))
    click.echo(f"baseline: {output}")


def patience(seconds: float | None, repeat: int | None) -> Patience:
    """What --seconds and --repeat mean together. Raises UsageError."""
    from apex_runtime.regression.rounds import Patience

    if repeat is not None and seconds is not None:
        raise UsageError("--repeat and --seconds: both say how long to measure.", "Give one of them.")
    return Patience(DEFAULT_SECONDS if seconds is None else seconds, repeat)


def measure(workload: Workload, how_long: Patience, enough: Enough) -> dict[str, Any]:
    """Measure, to be ended by Ctrl-C. Raises ApexError then, BackendError."""
    from apex_runtime.regression.record import record

    with interruptible(_ON_INTERRUPT) as stop:
        return record(workload, how_long, enough, stop)


def _print(table: object) -> None:
    from rich.console import Console

    Console().print(table)
