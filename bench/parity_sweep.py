"""The whole sweep of an engine: fp32, fp16, int8 and fp8, three budgets, two batch sizes, every backend that runs here.

    python bench/parity_sweep.py engines/nuclei-nano/model.onnx --output bench/evidence/parity-sweep.json

What ``apex-rt parity MODEL --sweep DIR --batch 1,4`` does, with its seconds. The images are the shipped samples and the synthetic
ones.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import click
from evidence import write_evidence

from apex_runtime.cli.progress import counter
from apex_runtime.parity.check import Settings, watch_all
from apex_runtime.parity.report import to_dict
from apex_runtime.parity.sweep import sweep
from apex_runtime.parity.tolerance import load_profile
from apex_runtime.routing.budget import parse_budget

BUDGETS, BATCHES = ("0.25", "0.5", "1.0"), (1, 4)


@click.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--output", type=click.Path(path_type=Path))
def main(model: Path, output: Path | None) -> None:
    """Compare and print the verdicts; ``--output`` also writes every figure."""
    settings = Settings(tuple(map(parse_budget, BUDGETS)), load_profile("quality"), batches=BATCHES)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = sweep(model, Path(folder), settings, click.echo, lambda total: counter(total, "parity"), watch_all([]))
        document = to_dict(found.result, found.absent)
    seconds = time.perf_counter() - began
    for item in document["comparisons"]:
        item["candidate"]["path"] = Path(item["candidate"]["path"]).name  # the folder was a temporary one
        click.echo(f"{item['candidate']['path']}: {item['verdict']}")
    click.echo(f"{seconds:.0f} s; absent: {', '.join(_told(item) for item in document['absent'])}")
    if output is not None:
        write_evidence(output, {"seconds": round(seconds, 1), "parity": document})


def _told(item: dict[str, Any]) -> str:
    return f"{item['backend']} ({item['reason']})"


if __name__ == "__main__":
    main()
