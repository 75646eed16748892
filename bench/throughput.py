"""How much of the engine's speed is left once files are read and results written? One process, interleaved.

    python bench/throughput.py --data DIR --threads 2 --output bench/evidence/throughput.json

Every round takes a part of the images through ``apex-rt infer --save none``, from the files to the lines of results.jsonl: by the
command's defaults, which are lanes, several calls of the graph at a time with a share of the threads each (no prefix below), and
with one call at a time that has all threads (``single_``). Then the same calls of the graph are made again on the arrays that lie
ready, nothing around them: with all threads in one call (``graph_``), and in lanes (``lanes_graph_``).

``ratio`` is the run over the graph with all threads in one call, ``ratio_to_lanes`` the run over the graph in lanes: what the
same cores can do. The latter is the product of two others: the share of the run that the lanes were busy (the rest they waited
for work), and what a call costs in lanes alone over what it costs while files are decoded and results written beside it.
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
REST = 0.2  # seconds: threads of a session spin for a while after its last call
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
    single, many = (open_engine(engine or default_engine(), threads, many=lanes) for lanes in (False, True))
    found = resolve_sources(data)
    items = [found[place] for place in spread(list(range(len(found))), asked["images"])]
    names, rounds = budgets.split(","), list(parts(items, asked["rounds"]))
    for budget in names:  # warm
        measure(single, many, items[:2], budget, asked["min_score"])
    samples: dict[str, list[dict[str, float]]] = {budget: [] for budget in names}
    with counter(len(rounds), "throughput") as progress:
        for number, part in enumerate(rounds, 1):
            for budget in names:
                samples[budget].append(measure(single, many, part, budget, asked["min_score"], swap=number % 2 == 0))
            progress(number, 0)
    rows = [figures(budget, samples[budget], many.lanes) for budget in names]
    for row in rows:
        click.echo(said(row))
    if output is not None:
        contract = {"backend": many.executed, "threads": threads, "lanes": many.lanes, "found": len(items)}
        write_evidence(output, {"contract": contract | {"engine_sha256": many.digest} | asked, "rows": rows, "samples": samples})


def measure(
    single: Opened, many: Opened, items: Sequence[SourceItem], budget: str, min_score: float, swap: bool = False
) -> dict[str, float]:
    """A round: seconds and processor seconds of both runs and of the graph alone, and the stages. ``swap``: lanes come second."""
    found: dict[str, float] = {"images": len(items)}
    recorder = Recorder(single.session)
    pair = [("", many), ("single_", single)]
    for prefix, opened in reversed(pair) if swap else pair:
        recorder = Recorder(opened.session)
        before = _now()
        summary = infer(opened, recorder, items, budget, min_score)
        found[f"{prefix}seconds"] = summary["seconds"]
        found[f"{prefix}cpu_seconds"] = _now()["cpu_seconds"] - before["cpu_seconds"]
        found[f"{prefix}graph_within_seconds"] = recorder.seconds
        found[f"{prefix}detections"] = summary["detections"]
        found |= {f"{prefix}{name}_ms": value for name, value in summary["median_milliseconds"].items()}
    for prefix, opened in reversed(pair) if swap else pair:
        before = _now()
        recorder.again(opened.session, opened.lanes)
        after = _now()
        name = "graph_" if prefix else "lanes_graph_"
        found |= {f"{name}{clock}": after[clock] - before[clock] for clock in CLOCKS}
        time.sleep(REST)
    return found | {"calls": len(recorder.calls)}


def figures(budget: str, rounds: Sequence[dict[str, float]], lanes: int, resamples: int = 1000) -> dict[str, Any]:
    """The row of a budget. Intervals: 95 % of resampled rounds. ``host_cpu_ms``: processor time per image beside the graph."""
    total = {name: sum(one[name] for one in rounds) for name in rounds[0]}
    drawn = np.random.default_rng(0).integers(0, len(rounds), (resamples, len(rounds)))

    def interval(above: str, below: str) -> list[float]:
        first, second = (np.array([one[name] for one in rounds])[drawn].sum(1) for name in (above, below))
        return [float(bound) for bound in np.percentile(first / second, [2.5, 97.5])]

    return {
        "budget": budget,
        "images_per_second": total["images"] / total["seconds"],
        "graph_per_second": total["images"] / total["graph_seconds"],
        "ratio": total["graph_seconds"] / total["seconds"],
        "ratio_interval": interval("graph_seconds", "seconds"),
        "ratio_of_rounds": [one["graph_seconds"] / one["seconds"] for one in rounds],
        "lanes_graph_per_second": total["images"] / total["lanes_graph_seconds"],
        "ratio_to_lanes": total["lanes_graph_seconds"] / total["seconds"],
        "ratio_to_lanes_interval": interval("lanes_graph_seconds", "seconds"),
        "lanes_busy": total["graph_within_seconds"] / (lanes * total["seconds"]),
        "lanes_alone_over_within": lanes * total["lanes_graph_seconds"] / total["graph_within_seconds"],
        "host_cpu_ms": 1000 * (total["cpu_seconds"] - total["lanes_graph_cpu_seconds"]) / total["images"],
        "single_images_per_second": total["images"] / total["single_seconds"],
        "single_ratio": total["graph_seconds"] / total["single_seconds"],
        "single_ratio_interval": interval("graph_seconds", "single_seconds"),
        "gain": total["single_seconds"] / total["seconds"],
        "gain_interval": interval("single_seconds", "seconds"),
    }


def said(row: dict[str, Any]) -> str:
    """A row in words."""
    (low, high), (least, most) = row["ratio_interval"], row["ratio_to_lanes_interval"]
    return "\n  ".join(
        [
            f"budget {row['budget']:>5}: {row['images_per_second']:.2f} images/s",
            f"one call at a time: {row['single_images_per_second']:.2f}, x{row['single_ratio']:.3f} of the graph",
            f"graph, one call: {row['graph_per_second']:.2f}, x{row['ratio']:.3f} ({low:.3f} to {high:.3f}; asked {REACH})",
            f"graph, lanes: {row['lanes_graph_per_second']:.2f}, x{row['ratio_to_lanes']:.3f} ({least:.3f} to {most:.3f})",
        ]
    )


def _now() -> dict[str, float]:
    return {name: clock() for name, clock in CLOCKS.items()}


if __name__ == "__main__":
    main()
