"""``apex-rt bench trend``: measurements line by line, as a table and as a picture."""

from __future__ import annotations

import json
from pathlib import Path

import click

from apex_runtime.cli.options import json_option, not_empty
from apex_runtime.errors import UsageError


@click.command("trend")
@click.argument("trend", type=click.Path(dir_okay=False), callback=not_empty)
@click.option("--add", type=click.Path(dir_okay=False), callback=not_empty, help="A file of bench record to add first.")
@click.option("--plot", type=click.Path(dir_okay=False), callback=not_empty, help="Also draw it, as an .svg file.")
@json_option
def bench_trend(trend: str, add: str | None, plot: str | None, as_json: bool) -> None:
    """Show how the measurements collected in TREND (a .jsonl file) went, one series per machine, backend and settings.

    Lines are only ever added, in one step. A file with a damaged line is refused, and the line named.

    \b
    Examples:
      apex-rt bench trend trend.jsonl --add baseline.json
      apex-rt bench trend trend.jsonl --plot trend.svg
    """
    from apex_runtime.cli.places import check_places, check_suffix
    from apex_runtime.regression.baseline import read_measurement
    from apex_runtime.regression.trend import add_row, read_trend, row_of

    path = Path(trend)
    check_suffix("--plot", plot, (".svg",))
    check_places({"--plot": plot}, [trend, *([] if add is None else [add])])  # before a line is added
    rows = read_trend(path) if add is None else add_row(path, row_of(read_measurement(Path(add)), Path(add)))
    if not rows:
        raise UsageError(f"{path}: has no lines.", "Add one: --add FILE.json (of apex-rt bench record).", path=path)
    if plot is not None:
        from apex_runtime.files import write_atomically
        from apex_runtime.regression.trend_plot import trend_svg

        write_atomically(Path(plot), trend_svg(rows).encode("utf-8"))
    if as_json:
        click.echo(json.dumps([row.model_dump() for row in rows], indent=2))
        return
    from apex_runtime.cli.wide_console import wide_console
    from apex_runtime.regression.tables import trend_tables

    for table in trend_tables(rows):
        wide_console().print(table)
