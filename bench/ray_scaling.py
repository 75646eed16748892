"""How far does a job of Ray scale, and what holds it up? A model on paper of many nodes, fed with what two cores measured.

    python bench/ray_scaling.py bench/evidence/ray-job.json --nodes 1,10,100 --evidence bench/evidence/ray-scaling.json

The blocks that ``bench/ray_job.py`` measured are drawn again and again and given to the workers of so many simulated nodes. Four
things are shared by all: the store that the images are read from and the network of the driver, each so many bytes a second
(assumed, see the options), and two threads of the driver, of which one hands out blocks, the other writes shards, and at last
merges them; their seconds are measured. Each takes one after the other, so that a worker may wait for it. Nothing here ran on
many machines, and that Ray schedules thousands of workers as fast as two is assumed too.

For each number of nodes: images per second, their share of what the nodes could do alone (``efficiency``), how busy each shared
thing was while blocks were done, how the time is divided, and ``bottleneck``: the largest part of the time that is not the
workers' own; "none" where that is less than a tenth.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from evidence import write_evidence

NOTHING = 0.1  # of the time: a bottleneck that costs less is none
SHARED = ("store", "network", "scheduler", "driver")
WORDS = {
    "store": "the store of the images",
    "network": "the network of the driver",
    "scheduler": "Ray in the driver, which hands out blocks",
    "driver": "the driver, which writes shards",
    "merge": "the driver's merge at the end",
    "listing": "listing the images",
    "start": "starting the workers",
    "tail": "waiting for the last blocks",
}


@dataclass(frozen=True)
class Cluster:
    """``nodes`` of ``workers`` each. Bytes a second of the ``store`` for all, and of the driver's ``network``; a worker is
    ``speed`` times the measured one."""

    nodes: int
    workers: int
    store: float
    network: float
    speed: float


@click.command()
@click.argument("measured", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--nodes", default="1,2,5,10,20,50,100", show_default=True)
@click.option("--workers", default=16, show_default=True, help="Of a node, each as the measured one.")
@click.option("--images", default=1_000_000, show_default=True)
@click.option("--store-gbit", default=100.0, show_default=True, help="Assumed: reading from the store, all nodes together.")
@click.option("--network-gbit", default=10.0, show_default=True, help="Assumed: into the machine of the driver.")
@click.option("--speed", default=1.0, show_default=True, help="Assumed: a worker, times the measured one.")
@click.option("--evidence", type=click.Path(path_type=Path))
def main(measured: Path, nodes: str, evidence: Path | None, **asked: Any) -> None:
    """Print a row per number of nodes; ``--evidence`` also writes them."""
    node = json.loads(measured.read_text())["node"]
    rows = []
    for count in map(int, nodes.split(",")):
        cluster = Cluster(count, asked["workers"], asked["store_gbit"] * 1e9 / 8, asked["network_gbit"] * 1e9 / 8, asked["speed"])
        rows.append(row(node, cluster, asked["images"]))
        click.echo(said(rows[-1]))
    if evidence is not None:
        write_evidence(evidence, {"measured": measured.as_posix(), "assumed": asked, "rows": rows})


def row(node: dict[str, Any], cluster: Cluster, images: int) -> dict[str, Any]:
    """The figures of a cluster."""
    listing = node["driver_seconds_per_image"]["listing"] * images
    merge = (node["driver_seconds_per_image"]["merge"] + node["driver_seconds_per_image"]["coco"]) * images
    blocks = draw(node["blocks"], images)
    phase = simulate(node, cluster, blocks)
    alone = sum(seconds for _images, seconds, _bytes in blocks) / cluster.speed / (cluster.nodes * cluster.workers)
    total = listing + node["start_seconds"] + phase["seconds"] + merge
    # what the blocks took longer than the workers alone belongs to whatever was busiest, or to the last blocks
    busiest = max(SHARED, key=lambda name: phase["busy"][name])
    longer = phase["seconds"] - alone
    losses = {"listing": listing, "start": node["start_seconds"], "merge": merge, "tail": min(longer, phase["tail"])}
    losses[busiest] = max(0.0, longer - losses["tail"])
    worst = max(losses, key=lambda name: losses[name])
    return asdict(cluster) | {
        "images": images,
        "seconds": total,
        "images_per_second": images / total,
        "images_per_second_of_blocks": images / phase["seconds"],
        "efficiency": alone / total,
        "efficiency_of_blocks": alone / phase["seconds"],
        "busy": phase["busy"],
        "seconds_of": {"workers": alone, **losses},
        "bottleneck": WORDS[worst] if losses[worst] >= NOTHING * total else "none",
    }


Drawn = tuple[int, float, float]  # images, seconds, bytes of the results


def draw(trace: Sequence[dict[str, float]], images: int, seed: int = 0) -> list[Drawn]:
    """Blocks of the trace by chance, until they have so many images."""
    if not trace or min(block["images"] for block in trace) < 1:
        raise click.UsageError("the evidence has no trace of blocks")
    random, found, left = np.random.default_rng(seed), [], images
    while left > 0:
        block = trace[int(random.integers(len(trace)))]
        share = min(1.0, left / block["images"])
        found.append((min(left, int(block["images"])), block["seconds"] * share, block["bytes"] * share))
        left -= int(block["images"])
    return found


def simulate(node: dict[str, Any], cluster: Cluster, blocks: Sequence[Drawn]) -> dict[str, Any]:
    """Events in the order of time: a worker is free, its block was read, its block was done. A shared thing that is asked at a
    time gives its answer after all that asked before. Seconds of the phase, of its tail (from the first worker that finds no
    block to the last that ends one), and how busy each shared thing was."""
    free = dict.fromkeys(SHARED, 0.0)
    used = dict.fromkeys(free, 0.0)

    def served(name: str, at: float, seconds: float) -> float:
        free[name] = max(free[name], at) + seconds
        used[name] += seconds
        return free[name]

    hand_out, each = node["driver_seconds_per_block"], node["driver_seconds_per_image"]["store"]
    workers = cluster.nodes * cluster.workers
    events = [(0.0, number, "free", -1) for number in range(workers)]
    following, number, end, idle, last = 0, workers, 0.0, None, 0.0
    while events:
        at, _order, kind, index = heapq.heappop(events)
        if kind == "free":
            if following == len(blocks):
                idle = at if idle is None else idle
                continue
            index, following = following, following + 1
            images = blocks[index][0]
            handed = served("scheduler", at, hand_out)
            event = (served("store", handed, images * node["read_bytes_per_image"] / cluster.store), "read")
        elif kind == "read":
            event = (at + blocks[index][1] / cluster.speed, "done")
        else:
            images, _seconds, size = blocks[index]
            last = max(last, at)
            end = max(end, served("driver", served("network", at, size / cluster.network), images * each))
            event = (at, "free")
        number += 1
        heapq.heappush(events, (event[0], number, event[1], index))
    return {
        "seconds": end,
        "tail": max(0.0, last - (last if idle is None else idle)),
        "busy": {name: used[name] / end for name in used},
    }


def said(found: dict[str, Any]) -> str:
    """A row in words."""
    busy = ", ".join(f"{name} {value:.0%}" for name, value in found["busy"].items())
    return (
        f"{found['nodes']:>4} nodes: {found['images_per_second']:>9.1f} images/s, efficiency {found['efficiency']:.2f} "
        f"(of blocks {found['efficiency_of_blocks']:.2f}); busy: {busy}; bottleneck: {found['bottleneck']}"
    )


if __name__ == "__main__":
    main()
