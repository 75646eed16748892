"""``apex-rt doctor``: what this machine can build and run, of what it consists, and how to get the rest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from apex_runtime.cli.options import json_option

if TYPE_CHECKING:
    from apex_runtime.backends.capabilities import Answer, Capability


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Print the capability matrix: per backend whether bundles can be built and run here, and if not, why and what to do.

    Then the machine and the versions of the libraries. A backend that this project never executed on hardware is called unproven.
    The exit code is 1 when the default backend, ort-cpu, does not work.

    \b
    Examples:
      apex-rt doctor
      apex-rt doctor --json
    """
    from apex_runtime.backends.capabilities import probe_all
    from apex_runtime.machine import machine, state, versions

    matrix = probe_all()
    facts = {
        "backends": [item.as_json() for item in matrix],
        "machine": machine(),
        "state": state(),
        "versions": versions(),
    }
    click.echo(json.dumps(facts, indent=2) if as_json else "\n".join(_lines(matrix, facts)))
    if not matrix[0].run.available:
        raise SystemExit(1)


def _lines(matrix: tuple[Capability, ...], facts: dict[str, Any]) -> Iterator[str]:
    yield f"{'backend':<14}{'version':<14}{'build':<7}{'run':<5}executed on hardware"
    for item in matrix:
        yield f"{item.backend:<14}{item.version or '-':<14}{_word(item.build):<7}{_word(item.run):<5}{item.proven}"
    yield ""
    yield from _machine_lines(facts["machine"], facts["state"])
    numbers = (f"{name} {number or 'missing'}" for name, number in facts["versions"].items())
    yield f"versions: {', '.join(numbers)}"
    for item in matrix:
        for verb, answer in _refusals(item):
            yield f"\n{item.backend}, {verb}: {answer.reason} ({answer.detail})\n  {answer.remedy}"


def _machine_lines(hardware: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    words = [hardware["processor"], f"{hardware['usable_cpus']} of {hardware['cpus']} logical processors usable"]
    words += [f"{hardware['memory_bytes'] / 2**30:.1f} GiB"] if hardware["memory_bytes"] else []
    words += [f"governor {now['governor']}"] if now["governor"] else []
    words += [f"load {now['load'][0]:.1f}"] if now["load"] else []
    yield f"machine: {', '.join(words)}, {hardware['system']}"
    for gpu in hardware["gpus"]:
        memory = f", {gpu['memory_bytes'] / 2**30:.1f} GiB" if gpu["memory_bytes"] else ""
        capability = f", sm_{gpu['compute_capability']}" if gpu["compute_capability"] else ""
        yield f"GPU: {gpu['name']}{capability}{memory}, driver {gpu['driver']}"
    if not hardware["gpus"]:
        yield "GPU: none that nvidia-smi lists"


def _refusals(item: Capability) -> list[tuple[str, Answer]]:
    if item.build == item.run:
        return [] if item.run.available else [("build and run", item.run)]
    return [(verb, answer) for verb, answer in (("build", item.build), ("run", item.run)) if not answer.available]


def _word(answer: Answer) -> str:
    return "yes" if answer.available else "no"
