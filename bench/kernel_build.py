"""How long does it take to compile the kernels of all ops for every architecture, cold and cached, and what do they need?

    python bench/kernel_build.py --output bench/evidence/kernel-build.json

Every round is the command ``python -m apex_plugins.kernels.build`` in a process of its own, first with an empty cache and then
with what that left. Timed are the whole process and, as the command says it, the compilation without the start of Python; beside
it stand the seconds of processor time that all processes of the round took, which others on the machine hardly change.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from evidence import write_evidence

from apex_plugins.kernels.cache import CACHE_VARIABLE
from apex_plugins.kernels.nvcc import find_toolkit

REACH_COLD, REACH_CACHED = 60.0, 0.1  # seconds


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--output", type=click.Path(path_type=Path))
def main(rounds: int, output: Path | None) -> None:
    """Measure, print a line per round and a line per kernel; ``--output`` also writes them."""
    cold, cached, told = [], [], {}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for rows in (cold, cached):
                told, times = compiled(Path(folder))
                rows.append({"seconds": told["seconds"]} | times)
        ops = ", ".join(f"{item['op']} {item['compile_seconds']:.1f}" for item in told["ops"])
        used = f"{cold[-1]['seconds']:.1f} s, {cold[-1]['processor_seconds']:.1f} of processor time"
        click.echo(f"cold {used} ({ops}), cached {cached[-1]['seconds']:.3f} s")
    kernels = [of_kernel(rows) for item in told["ops"] for rows in by_kernel(item["kernels"])]
    for row in kernels:
        click.echo(
            f"{row['kernel']:<40}registers {max(row['registers'].values()):>4}  shared {row['shared']:>6}  spills {row['spills']}"
        )
    content = {
        "toolkit": find_toolkit().version,
        "reach": {"cold": REACH_COLD, "cached": REACH_CACHED, "spills": 0},
        "cold": cold,
        "cached": cached,
        "ops": [{name: item[name] for name in ("op", "compile_seconds")} for item in told["ops"]],
        "spills": sum(row["spills"] + row["stack"] for row in kernels),
        "kernels": kernels,
    }
    if output is not None:
        write_evidence(output, content)


def compiled(cache: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """What the command says as JSON with its cache in a folder, and the seconds of its process on the clock and of processors."""
    start, used = time.perf_counter(), processor_seconds()
    command = [sys.executable, "-m", "apex_plugins.kernels.build", "--json"]
    done = subprocess.run(command, env=os.environ | {CACHE_VARIABLE: str(cache)}, stdout=subprocess.PIPE, check=False)
    times = {"process_seconds": time.perf_counter() - start, "processor_seconds": processor_seconds() - used}
    told: dict[str, Any] = json.loads(done.stdout)
    if done.returncode:
        raise click.ClickException(f"{told['message']} [{told['reason']}]")
    return told, times


def processor_seconds() -> float:
    """Of all processes that were started here and have ended, and of those that they started."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def by_kernel(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The reports of an op, those of one kernel together."""
    names = dict.fromkeys(row["kernel"] for row in rows)
    return [[row for row in rows if row["kernel"] == name] for name in names]


def of_kernel(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Registers by architecture; of the rest, which should be the same or nothing everywhere, the most."""
    most = {name: max(row[name] for row in rows) for name in ("shared", "stack", "spills")}
    return {"kernel": rows[0]["kernel"], "registers": {row["architecture"]: row["registers"] for row in rows}} | most


if __name__ == "__main__":
    main()
