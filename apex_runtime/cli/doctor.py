"""``apex-rt doctor``: what this machine can build and run, and how to get the rest."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from apex_runtime.cli.options import json_option

if TYPE_CHECKING:
    from apex_runtime.backends.capabilities import Answer, Capability


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Print the capability matrix: per backend whether bundles can be built and run here, and if not, why and what to do.

    The exit code is 1 when the default backend, ort-cpu, does not work.

    \b
    Examples:
      apex-rt doctor
      apex-rt doctor --json
    """
    from apex_runtime.backends.capabilities import probe_all

    matrix = probe_all()
    if as_json:
        click.echo(json.dumps({"backends": [_row(item) for item in matrix]}, indent=2))
    else:
        click.echo(_table(matrix))
    if not matrix[0].run.available:
        raise SystemExit(1)


def _row(item: Capability) -> dict[str, Any]:
    return {"backend": item.backend, "version": item.version or None, "build": _answer(item.build), "run": _answer(item.run)}


def _answer(answer: Answer) -> dict[str, Any]:
    reason = None if answer.reason is None else answer.reason.value
    return {"available": answer.available, "reason": reason, "detail": answer.detail, "remedy": answer.remedy}


def _table(matrix: tuple[Capability, ...]) -> str:
    lines = [f"{'backend':<14}{'version':<14}{'build':<7}{'run':<5}"]
    for item in matrix:
        lines.append(f"{item.backend:<14}{item.version or '-':<14}{_word(item.build):<7}{_word(item.run):<5}".rstrip())
    for item in matrix:
        for verb, answer in _refusals(item):
            lines.append(f"\n{item.backend}, {verb}: {answer.reason} ({answer.detail})\n  {answer.remedy}")
    return "\n".join(lines)


def _refusals(item: Capability) -> list[tuple[str, Answer]]:
    if item.build == item.run:
        return [] if item.run.available else [("build and run", item.run)]
    return [(verb, answer) for verb, answer in (("build", item.build), ("run", item.run)) if not answer.available]


def _word(answer: Answer) -> str:
    return "yes" if answer.available else "no"
