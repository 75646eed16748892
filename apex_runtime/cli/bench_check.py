"""``apex-rt bench check``: one rule for every metric of an engine against its baseline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apex_runtime.cli.options import FiniteRange, json_option, not_empty
from apex_runtime.errors import UsageError

if TYPE_CHECKING:
    from apex_runtime.regression.baseline import Measurement
    from apex_runtime.regression.check import Limits


@click.command("check")
@click.argument("current", type=click.Path(), callback=not_empty)
@click.option(
    "--baseline", required=True, type=click.Path(dir_okay=False), callback=not_empty, help="A file that bench record wrote."
)
@click.option(
    "--ratio",
    multiple=True,
    metavar="[METRIC=]SHARE",
    help="What a metric may be more, as a share; METRIC may have a *.  [default: 0.07]",
)
@click.option(
    "--abs", "amount", multiple=True, metavar="[METRIC=]AMOUNT", help="And besides, in the unit of the metric.  [default: 0]"
)
@click.option("--absolute", is_flag=True, help="Judge milliseconds beside the anchor too: for a machine that does nothing else.")
@click.option("--seconds", type=FiniteRange(0, 86_400, min_open=True), help="The most to measure.  [default: 30]")
@click.option("--repeat", type=click.IntRange(1, 100_000), help="Just so many rounds, not --seconds.")
@click.option("--output", "-o", type=click.Path(dir_okay=False), callback=not_empty, help="Also write the report to this file.")
@json_option
def bench_check(
    current: str,
    baseline: str,
    ratio: tuple[str, ...],
    amount: tuple[str, ...],
    absolute: bool,
    seconds: float | None,
    repeat: int | None,
    output: str | None,
    as_json: bool,
) -> None:
    """Compare CURRENT, an engine to measure now or a file of bench record, with a baseline. Exit code 0 pass, 1 fail.

    A metric fails when it is more than baseline * (1 + ratio) + abs, when it is missing on either side, and when it is
    not a positive number. Another machine, backend, input size or number of threads than the baseline's fails too:
    record one there. On a CPU quotients with the anchor and memory are judged, the rest is shown. An engine is measured
    as its baseline was, until every quotient lies clearly on one side of its limit, or --seconds are over.

    \b
    Examples:
      apex-rt bench check bundle/ --baseline baseline.json
      apex-rt bench check now.json --baseline baseline.json --ratio 0.05 --json -o check.json
      apex-rt bench check model.onnx --baseline baseline.json --ratio peak_memory_bytes=0.2 --abs 'graph_over_anchor@*=0.01'
    """
    from apex_runtime.cli.places import check_places
    from apex_runtime.regression.baseline import read_measurement
    from apex_runtime.regression.check import check
    from apex_runtime.regression.rule import check_patterns

    check_places({"--output": output}, (current, baseline))
    limits = _limits(ratio, amount, absolute)
    before = read_measurement(Path(baseline))
    for option, allowances in (("--ratio", limits.ratios), ("--abs", limits.amounts)):
        check_patterns(allowances, list(before.metrics), option)
    now = _current(current, before, limits, seconds, repeat)
    report = check(before, now, limits)
    if output is not None:
        from apex_runtime.pipeline.results import write_json

        write_json(Path(output), report)
    if as_json:
        click.echo(json.dumps(report, indent=2, allow_nan=False))
    else:
        _show(report)
    if report["verdict"] == "fail":
        raise SystemExit(1)


def _limits(ratio: tuple[str, ...], amount: tuple[str, ...], absolute: bool) -> Limits:
    from apex_runtime.regression.check import Limits
    from apex_runtime.regression.rule import DEFAULT_RATIO, parse_allowances

    return Limits(parse_allowances(ratio, "--ratio", DEFAULT_RATIO), parse_allowances(amount, "--abs", 0.0), absolute)


def _current(current: str, before: Measurement, limits: Limits, seconds: float | None, repeat: int | None) -> Measurement:
    from apex_runtime.cli.bench_record import measure, patience
    from apex_runtime.regression.baseline import Measurement, read_measurement
    from apex_runtime.regression.check import settings_of, undecided
    from apex_runtime.regression.workload import open_workload

    if Path(current).suffix.lower() == ".json":
        if seconds is not None or repeat is not None:
            raise UsageError(f"{current}: was measured already; --seconds and --repeat mean nothing.", "Leave them out.")
        return read_measurement(Path(current))
    found = measure(open_workload(current, settings_of(before)), patience(seconds, repeat), undecided(before, limits))
    return Measurement.model_validate_json(json.dumps(found), strict=True)


def _show(report: dict[str, Any]) -> None:
    from rich.console import Console

    from apex_runtime.regression.tables import check_table

    Console().print(check_table(report))
    for reason in report["reasons"]:
        click.echo(reason)
    measured = report["measured"]
    unsure = "" if measured["settled"] else ", and not every figure is known well"
    click.echo(f"{report['verdict']}: {measured['rounds']} rounds in {measured['seconds']:.0f} s{unsure}")
