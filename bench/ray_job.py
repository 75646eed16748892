"""What does a job of Ray cost beside the plain pipeline, does it give the same, and what does a killed worker change?

    python bench/ray_job.py --data DIR --images 5000 --kills 5 --evidence bench/evidence/ray-job.json

DIR is a folder of images, which are linked again and again under other names. Every round takes a part of them through
``apex-rt infer`` twice, in turn: plain with ``--workers`` threads, and by so many workers of Ray with a thread each. ``ratio`` is
the images per second of Ray over those of the plain pipeline, both as their summaries have them: of Ray the start of the workers
and the merge count, Ray's own start does not; ``wall_ratio`` counts all of the processes. Then some jobs lose a worker by SIGKILL
at a random moment. What a node and the driver were measured to need is what ``bench/ray_scaling.py`` reads.

Exit code 1: results differ, an image has not just one answer, or the ratio is below 0.85.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from endurance import link_images
from evidence import write_evidence
from killed_runs import results_of
from processes import finish, start
from worker_processes import kill_worker

from apex_runtime.bundle.hashing import sha256_of
from apex_runtime.data.sources import resolve_sources
from apex_runtime.engine import default_engine

REACH = 0.85
POLL = 0.02  # seconds
SCHEDULED = 500  # blocks that nothing is done with


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--engine", type=click.Path(exists=True, path_type=Path), help="[default: the one that comes along]")
@click.option("--budget", default="0.25", show_default=True)
@click.option("--min-score", default=0.05, show_default=True)
@click.option("--images", default=5000, show_default=True)
@click.option("--workers", default=2, show_default=True, help="Workers of one thread; threads of the plain pipeline.")
@click.option("--block", type=int, help="Images of a block.  [default: that of the command]")
@click.option("--rounds", default=2, show_default=True, help="Parts of the images, each by both; who begins alternates.")
@click.option("--kills", default=5, show_default=True, help="Jobs that lose a worker.")
@click.option("--kill-images", default=500, show_default=True, help="Images of such a job.")
@click.option("--evidence", type=click.Path(path_type=Path))
def main(data: Path, engine: Path | None, images: int, rounds: int, kills: int, kill_images: int, **asked: Any) -> None:
    """Measure, print, and with ``--evidence`` write it down."""
    evidence, model = asked.pop("evidence"), engine or default_engine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        links = link_images(data, folder / "all", images)
        commands = Commands(model, asked, folder / "said.txt")
        samples = []
        for number in range(rounds):
            samples.append(measure(commands, part_of(links[number::rounds], folder / f"part{number}"), number % 2 == 1))
            click.echo(json.dumps({key: value for key, value in samples[-1].items() if key != "blocks"}))
        victims = part_of(links[:kill_images], folder / "victims")
        rows = [*killed_jobs(commands, victims, kills)]
    found = figures(samples) | {"kills": len(rows), "kills_exact": sum(row["equal"] and row["exact"] for row in rows)}
    click.echo(json.dumps(found, indent=2))
    if evidence is not None:
        contract = asked | {"images": images, "rounds": rounds, "kill_images": kill_images, "reach": REACH}
        digest = sha256_of(model if model.is_file() else model / "model.onnx")
        blocks = [block for sample in samples for block in sample["blocks"]]
        largest = max(blocks, key=lambda block: block["bytes"])
        node = node_figures(samples, asked["workers"], scheduling(asked["workers"], largest["images"], largest["bytes"]))
        write_evidence(
            evidence,
            {
                "contract": contract | {"engine_sha256": digest},
                "figures": found,
                "node": node,
                "rounds": samples,
                "kill_rows": rows,
            },
        )
    raise SystemExit(0 if found["ratio"] >= REACH and found["equal"] and found["kills_exact"] == kills else 1)


class Commands:
    """The two commands that are compared, for any folder of images."""

    def __init__(self, engine: Path, asked: dict[str, Any], said: Path) -> None:
        self.common = ["--engine", engine, "--budget", asked["budget"], "--min-score", asked["min_score"], "--save", "none"]
        self.workers, self.block, self.said = asked["workers"], asked["block"], said

    def plain(self, images: Path, output: Path) -> list[object]:
        """``apex-rt infer`` with all threads."""
        return ["infer", images, *self.common, "--threads", self.workers, "-o", output]

    def ray(self, images: Path, output: Path) -> list[object]:
        """The same by workers with a thread each."""
        block = [] if self.block is None else ["--block", self.block]
        job = ["--on", "ray", "--workers", self.workers, "--threads", 1, *block]
        return ["infer", images, *self.common, *job, "-o", output]

    def run(self, words: Sequence[object]) -> float:
        """Seconds of the process. Raises RuntimeError when it fails."""
        started = time.perf_counter()
        code = finish(words, self.said)
        if code != 0:
            raise RuntimeError(f"exit code {code}: {self.said.read_text(errors='replace')[-2000:]}")
        return time.perf_counter() - started


def part_of(links: Sequence[Path], folder: Path) -> Path:
    """A folder with these links."""
    folder.mkdir()
    for link in links:
        (folder / link.name).symlink_to(link.resolve())
    return folder


def measure(commands: Commands, images: Path, ray_first: bool) -> dict[str, Any]:
    """A round: both commands over the same images, what they say, whether they agree, and the blocks of the job."""
    outputs = {name: images.with_name(f"{images.name}-{name}") for name in ("plain", "ray")}
    wall: dict[str, float] = {}
    for name in ("ray", "plain") if ray_first else ("plain", "ray"):
        wall[name] = commands.run(getattr(commands, name)(images, outputs[name]))
    summaries = {name: json.loads((output / "summary.json").read_text()) for name, output in outputs.items()}
    started = time.perf_counter()
    items = resolve_sources(str(images))
    listing = time.perf_counter() - started
    found = {
        "images": len(items),
        "plain_seconds": summaries["plain"]["seconds"],
        "ray_seconds": summaries["ray"]["seconds"],
        "plain_wall_seconds": wall["plain"],
        "ray_wall_seconds": wall["ray"],
        "first_block_seconds": summaries["ray"]["ray"]["seconds"]["first"],
        "equal": results_of(outputs["plain"]) == results_of(outputs["ray"]),
        "exact": answered_once(outputs["ray"], images),
        "driver": driver_figures(outputs["ray"], summaries["ray"], listing),
        "read_bytes": sum(item.path.stat().st_size for item in items),
        "blocks": list(blocks_of(outputs["ray"])),
    }
    for output in outputs.values():
        shutil.rmtree(output)
    return found


def answered_once(output: Path, images: Path) -> bool:
    """Whether every image is in the journal or in the failures, just once; read by nothing of the runtime."""
    answers = Counter(json.loads(line)["file_name"] for line in (output / "results.jsonl").open())
    answers.update(item["file_name"] for item in json.loads((output / "failures.json").read_text()))
    return answers == Counter(path.name for path in images.iterdir())


def blocks_of(output: Path) -> list[dict[str, float]]:
    """Images, seconds and bytes of every shard."""
    shards = sorted((output / "shards").glob("*.json"))
    indices = [json.loads(shard.read_text()) for shard in shards]
    return [
        {
            "images": len(index["names"]) + len(index["failures"]),
            "seconds": index["seconds"],
            "bytes": shard.with_name(f"{shard.stem.removeprefix('_')}.jsonl").stat().st_size,
        }
        for shard, index in zip(shards, indices, strict=True)
    ]


def driver_figures(output: Path, summary: dict[str, Any], listing: float) -> dict[str, float]:
    """Seconds of the one process that all results go through: ``listing`` the images, ``store`` and ``merge`` as the job says,
    ``coco`` for results.json (written once more here), and the processor time of all of it."""
    from apex_runtime.model_info import Category
    from apex_runtime.pipeline.results import JOURNAL, OutputFolder

    categories = tuple(Category(**item) for item in json.loads((output / "results.json").read_text())["categories"])
    copy = output.with_name(f"{output.name}-again")
    copy.mkdir()
    shutil.copy(output / JOURNAL, copy)
    (copy / "summary.json").write_text(json.dumps({"status": "interrupted", "settings": {}}))
    folder = OutputFolder(copy, categories)
    folder.start({json.loads(line)["file_name"]: json.loads(line)["id"] for line in (copy / JOURNAL).open()}, {}, True)
    started = time.perf_counter()
    folder.finish({})
    coco = time.perf_counter() - started
    shutil.rmtree(copy)
    ray = summary["ray"]
    seconds = {name: ray["seconds"][name] for name in ("store", "merge")}
    return {"listing": listing, **seconds, "coco": coco, "cpu": ray["driver_cpu_seconds"]}


def killed_jobs(commands: Commands, images: Path, kills: int) -> list[dict[str, Any]]:
    """So many jobs that each lose a worker between their first shard and their end, compared with one that was left alone."""
    if kills == 0:
        return []
    whole = images.with_name("whole")
    commands.run(commands.ray(images, whole))
    summary, rows = json.loads((whole / "summary.json").read_text()), []
    rest = summary["seconds"] - summary["ray"]["seconds"]["first"] - summary["ray"]["seconds"]["merge"]
    for seed in range(kills):
        output = images.with_name(f"killed{seed}")
        process = start(commands.ray(images, output), commands.said)
        while process.poll() is None and not any((output / "shards").glob("*.json")):
            time.sleep(POLL)
        time.sleep(float(np.random.default_rng(seed).uniform(0, 0.8 * rest)))
        before = len(list((output / "shards").glob("*.json")))
        victim, code = kill_worker(process.pid), process.wait()
        row = {"seed": seed, "shards_before": before, "killed": victim is not None, "exit_code": code}
        row |= {
            "equal": code == 0 and results_of(output) == results_of(whole),
            "exact": code == 0 and answered_once(output, images),
        }
        rows.append(row)
        click.echo(json.dumps(row))
        shutil.rmtree(output)
    return rows


def figures(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Over all rounds."""
    total = {name: sum(sample[name] for sample in samples) for name in samples[0] if name.endswith("seconds") or name == "images"}
    return {
        "plain_images_per_second": total["images"] / total["plain_seconds"],
        "ray_images_per_second": total["images"] / total["ray_seconds"],
        "ratio": total["plain_seconds"] / total["ray_seconds"],
        "ratio_of_rounds": [sample["plain_seconds"] / sample["ray_seconds"] for sample in samples],
        "wall_ratio": total["plain_wall_seconds"] / total["ray_wall_seconds"],
        "equal": all(sample["equal"] and sample["exact"] for sample in samples),
    }


class Idle:
    """A worker that answers at once, with as many bytes as a block gave."""

    def __init__(self, work: Any, parcel: list[Any], digest: str, release: str) -> None:
        self._lines = b"x" * int(digest)

    def __call__(self, table: Any) -> Any:
        """As ``BlockWorker``."""
        from apex_runtime.offline.blocks import Block
        from apex_runtime.offline.outcome import Outcome

        return Outcome(Block.from_json(table.column("block")[0].as_py()).key, self._lines).to_table()


def scheduling(workers: int, images: int, size: float, count: int = SCHEDULED) -> float:
    """Seconds for each block that Ray Data and the way of a block and its answer take when nothing is done with it."""
    from apex_runtime.offline.blocks import Image, plan_blocks
    from apex_runtime.offline.cluster import Pool, joined
    from apex_runtime.offline.rounds import ray_answers

    names = [f"{number:08}.png" for number in range(1, images * count + 1)]
    every = [Image(name, number, f"/data/{name}", name) for number, name in enumerate(names, 1)]
    with joined("ray", workers, 1):
        answers: Any = ray_answers(None, None, str(int(size)), "", Pool(workers, 1, False), Idle)  # type: ignore[arg-type]
        outcomes = answers(plan_blocks(every, (), workers, images, ()), 2)
        next(outcomes)
        started = time.perf_counter()
        for _outcome in outcomes:
            pass
        return (time.perf_counter() - started) / (count - 1)


def node_figures(samples: Sequence[dict[str, Any]], workers: int, per_block: float) -> dict[str, Any]:
    """What the scaling model reads: the trace of the blocks, bytes, and the driver's seconds for each image and block."""
    images, blocks = sum(sample["images"] for sample in samples), [block for sample in samples for block in sample["blocks"]]
    driver = {name: sum(sample["driver"][name] for sample in samples) for name in samples[0]["driver"]}
    return {
        "workers": workers,
        "images": images,
        "read_bytes_per_image": sum(sample["read_bytes"] for sample in samples) / images,
        "result_bytes_per_image": sum(block["bytes"] for block in blocks) / images,
        "start_seconds": min(sample["first_block_seconds"] - sample["blocks"][0]["seconds"] for sample in samples),
        "driver_seconds_per_image": {name: driver[name] / images for name in ("listing", "store", "merge", "coco")},
        "driver_seconds_per_block": per_block,
        "blocks": blocks,
    }


if __name__ == "__main__":
    main()
