"""The checklist as JSON values (schema ``apex_runtime/schemas/release.schema.json``) and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from apex_runtime.release.changelog_row import version_of
from apex_runtime.release.checkout import Checkout
from apex_runtime.release.row import Row

if TYPE_CHECKING:
    from rich.table import Table

FORMAT_VERSION = 1
_COLOURS = {"pass": "green", "fail": "red", "not run": "yellow"}


def passed(rows: Sequence[Row]) -> bool:
    """Whether every row passes; what was not run does not."""
    return bool(rows) and all(row.status == "pass" for row in rows)


def to_dict(checkout: Checkout, rows: Sequence[Row]) -> dict[str, Any]:
    """What ``--json`` prints."""
    return {
        "format_version": FORMAT_VERSION,
        "verdict": "pass" if passed(rows) else "fail",
        "version": version_of(checkout.root),
        "commit": checkout.commit,
        "uncommitted": None if checkout.changed is None else list(checkout.changed),
        "rows": [asdict(row) | {"details": list(row.details)} for row in rows],
    }


def release_table(checkout: Checkout, rows: Sequence[Row]) -> Table:
    """What a terminal shows."""
    from rich.table import Table
    from rich.text import Text

    commit = (checkout.commit or "no commit")[:12]
    table = Table(title=Text(f"release {version_of(checkout.root)} at {commit}"), title_justify="left")
    for column in ("row", "status", "reason", "file"):
        table.add_column(column, no_wrap=column in ("row", "status"), overflow="fold")
    for row in rows:
        table.add_row(row.name, Text(row.status, style=_COLOURS[row.status]), Text(row.reason), Text(row.file))
    return table
