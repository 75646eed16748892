"""How much of the engine's speed is left once files are read and results written? One process, interleaved.

    python bench/throughput.py --data DIR --threads 2 --output bench/evidence/throughput.json

Every round takes a part of the images through ``apex-rt infer --save none``, from the files to the lines of results.jsonl, and
then makes the same calls of the graph again on the arrays that lie ready, nothing around them. The quotient of the two is the
product of two others: the share of the run that the graph was busy (the rest it waited for work), and what a call costs alone
over what it costs while files are decoded and results written beside it on the same cores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from evidence import write_evidence
from infer_rounds import Recorder, infer, parts
from measured import spread

from apex_runtime.bundle.load import Opened, open_engine
from apex_runtime.cli.progress import counter
from apex_runtime.data.sources import SourceItem, resolve_sources
from apex_runtime.engine import default_engine

REACH = 0.85
CLOCKS: dict[str, Callable[[], float]] = {"seconds": time.perf_counter, "cpu_seconds": time.process_time}


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True), help="Image, folder or pattern.")
@click.option("--engine", type=click.Path(exists=True, path_type=Path), help="[default: the engine that comes along]")
@click.option("--threads", default=2, show_default=True)
@click.option("--budget", "budgets", default="0.25,1.0", show_default=True)
@click.option("--min-score", default=0.001, show_default=True)
@click.option("--images", type=int, help="At most, evenly spread.  [default: all]")
@click.option("--rounds", default=8, show_default=True, help="Parts of the images.")
@click.option("--output", type=click.Path(path_type=Path))
def main(data: str, engine: Path | None, threads: int, budgets: str, output: Path | None, **asked: Any) -> None:
    """Measure, print a line per budget; ``--output`` also writes every round."""
    opened = open_engine(engine or default_engine(), threads)
    found = resolve_sources(data)
    items = [found[place] for place in spread(list(range(len(found))), asked["images"])]
    names, rounds = budgets.split(","), list(parts(items, asked["rounds"]))
    for budget in names:  # warm
        measure(opened, items[:2], budget, asked["min_score"])
    samples: dict[str, list[dict[str, float]]] = {budget: [] for budget in names}
    with counter(len(rounds), "throughput") as progress:
        for number, part in enumerate(rounds, 1):
            for budget in names:
                samples[budget].append(measure(opened, part, budget, asked["min_score"]))
            progress(number, 0)
    rows = [figures(budget, samples[budget]) for budget in names]
    for row in rows:
        low, high = row["ratio_interval"]
        speeds = f"{row['images_per_second']:.2f} images/s of {row['graph_per_second']:.2f}"
        click.echo(f"budget {row['budget']:>5}: {speeds}, x{row['ratio']:.3f} ({low:.3f} to {high:.3f}; asked {REACH})")
    if output is not None:
        contract = {"backend": opened.executed, "threads": threads, "found": len(items), "engine_sha256": opened.digest}
        write_evidence(output, {"contract": contract | asked, "rows": rows, "samples": samples})


def measure(opened: Opened, items: Sequence[SourceItem], budget: str, min_score: float) -> dict[str, float]:
    """A round: seconds and processor seconds of the run and of the graph alone, of the graph within the run, and the stages."""
    recorder = Recorder(opened.session)
    before = _now()
    summary = infer(opened, recorder, items, budget, min_score)
    between = _now()
    recorder.again()
    after = _now()
    return {
        "images": len(items),
        "calls": len(recorder.calls),
        "detections": summary["detections"],
        "seconds": summary["seconds"],
        "cpu_seconds": between["cpu_seconds"] - before["cpu_seconds"],
        "graph_within_seconds": recorder.seconds,
        "graph_seconds": after["seconds"] - between["seconds"],
        "graph_cpu_seconds": after["cpu_seconds"] - between["cpu_seconds"],
        **{f"{name}_ms": value for name, value in summary["median_milliseconds"].items()},
    }


def figures(budget: str, rounds: Sequence[dict[str, float]], resamples: int = 1000) -> dict[str, Any]:
    """The row of a budget. Interval: 95 % over resampled rounds. ``host_cpu_ms``: processor time of an image beside the graph."""
    total = {name: sum(one[name] for one in rounds) for name in rounds[0]}
    drawn = np.random.default_rng(0).integers(0, len(rounds), (resamples, len(rounds)))
    graph, run = (np.array([one[name] for one in rounds])[drawn].sum(1) for name in ("graph_seconds", "seconds"))
    return {
        "budget": budget,
        "images_per_second": total["images"] / total["seconds"],
        "graph_per_second": total["images"] / total["graph_seconds"],
        "ratio": total["graph_seconds"] / total["seconds"],
        "ratio_interval": np.percentile(graph / run, [2.5, 97.5]).tolist(),
        "ratio_of_rounds": [one["graph_seconds"] / one["seconds"] for one in rounds],
        "graph_busy": total["graph_within_seconds"] / total["seconds"],
        "graph_alone_over_within": total["graph_seconds"] / total["graph_within_seconds"],
        "host_cpu_ms": 1000 * (total["cpu_seconds"] - total["graph_cpu_seconds"]) / total["images"],
    }


def _now() -> dict[str, float]:
    return {name: clock() for name, clock in CLOCKS.items()}


if __name__ == "__main__":
    main()
