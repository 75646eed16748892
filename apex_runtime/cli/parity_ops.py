"""``apex-rt parity --ops``: does every face of every op compute what its NumPy meaning says?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from apex_runtime.errors import UsageError


def run_ops(ops: bool, names: Sequence[str], output: Path, as_json: bool) -> bool:
    """Compare, show and write the report; whether everything passed. Raises UsageError."""
    from apex_runtime.cli.places import check_places
    from apex_runtime.cli.progress import counter
    from apex_runtime.parity.ops.check import check_ops, load_op_tolerances, ops_passed, steps
    from apex_runtime.parity.ops.report import ops_tables, ops_to_dict
    from apex_runtime.parity.report import write_report

    if not ops:
        raise UsageError("--op names ops, and only --ops compares them.", "Add --ops.")
    check_places({"--output": str(output)})
    allowed = load_op_tolerances()
    with counter(steps(names), "ops") as step:
        rows = check_ops(names, allowed, step)
    document = ops_to_dict(rows, allowed)
    write_report(document, output)
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        from rich.console import Console

        console = Console()
        for table in ops_tables(rows):
            console.print(table)
        for row in rows:
            for reason in row.reasons if row.verdict == "fail" else []:
                console.print(f"{row.op} {row.face} {row.precision}: {reason}", markup=False, highlight=False, soft_wrap=True)
        word = "pass" if ops_passed(rows) else "fail"
        console.print(f"ops {word}; report: {output}", markup=False, highlight=False, soft_wrap=True)
    return ops_passed(rows)
