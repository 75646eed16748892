"""The comparisons of a study as a terminal shows them."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from apex_train.ablation.report import points

_COLOURS = {"validated": "green", "harmful": "red", "no difference shown": ""}


def comparison_table(report: dict[str, Any]) -> Table:
    """A row per level that is not its factor's reference."""
    study = report["study"]
    table = Table(title=escape(f"{study['name']}: {study['metric']} on {study['split']}, points"), title_justify="left")
    for name in ("factor", "level", "against"):
        table.add_column(name)
    for name in ("reference", "level", "difference", f"{100 * (1 - study['alpha']):g} %", "effect", "p", "p by Holm"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in report["comparisons"]:
        table.add_row(*(escape(row[name]) for name in ("factor", "level", "reference")), *_figures(row), _verdict(row))
    commits = {cell["commit"] for cell in report["cells"]}
    mixed = f"; the cells are of {len(commits)} commits" if len(commits) > 1 else ""
    table.caption = f"{len(study['seeds'])} seeds in pairs, {study['epochs']} epochs, {study['test']} test{mixed}"
    return table


def _figures(row: dict[str, Any]) -> list[str]:
    effect = "" if row["effect_size"] is None else f"{row['effect_size']:+.2f}"
    means = [sum(row[name]) / len(row[name]) for name in ("reference_scores", "scores")]
    bounds = " to ".join(map(points, row["interval"]))
    p_values = [f"{row[name]:.3g}" for name in ("p", "p_corrected")]
    return [*(points(mean, signed=False) for mean in means), points(row["difference"]), bounds, effect, *p_values]


def _verdict(row: dict[str, Any]) -> Text:
    return Text(row["verdict"], style=_COLOURS[row["verdict"]])
