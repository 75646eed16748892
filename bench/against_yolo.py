"""Images per second of ``apex-rt infer`` beside those of ``ultralytics`` predict, which runs as the separate program that it is.

    yolo export model=yolo11n-seg.yaml format=onnx imgsz=512        (there; random weights: only the time counts)
    python bench/against_yolo.py yolo11n-seg.onnx --program OTHER/bin/python --data DIR --output bench/evidence/against-yolo.json

OTHER is an environment of its own with ultralytics and ONNX Runtime. Both sides keep their process; every round gives both of
them the same images, one at a time, from the files to masks; ours also writes results.jsonl. ONNX Runtime has one thread per core
there, so ``--threads`` should be the number of cores. Random weights find nothing above its default score of 0.25, which
spares that side its masks.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from evidence import write_evidence
from infer_rounds import infer, parts
from measured import spread

from apex_runtime.bundle.hashing import sha256_of
from apex_runtime.bundle.load import Opened, open_engine
from apex_runtime.cli.progress import counter
from apex_runtime.data.sources import SourceItem, resolve_sources
from apex_runtime.engine import default_engine

GOAL = 1.5
# Runs in the other environment: a list of images per line of standard input, a line of JSON for each.
DRIVER = """
import json, sys, time
import ultralytics
model = ultralytics.YOLO(sys.argv[1], task="segment")
for line in sys.stdin:
    started, found, stages = time.perf_counter(), 0, []
    for result in model.predict(line.strip(), imgsz=int(sys.argv[2]), device="cpu", batch=1, stream=True, verbose=False):
        found += len(result.boxes)
        stages.append(result.speed)
    answer = {"seconds": time.perf_counter() - started, "images": len(stages), "detections": found}
    answer["milliseconds"] = {name: sum(one[name] for one in stages) / len(stages) for name in stages[0]}
    print("answer " + json.dumps(answer | {"version": ultralytics.__version__}), flush=True)
"""


@click.command()
@click.argument("yolo", type=click.Path(exists=True, path_type=Path))
@click.option("--program", required=True, type=click.Path(exists=True), help="Python of the other environment.")
@click.option("--data", required=True, type=click.Path(exists=True), help="Image, folder or pattern.")
@click.option("--engine", type=click.Path(exists=True, path_type=Path), help="[default: the engine that comes along]")
@click.option("--budget", "budgets", default="1,0.25", show_default=True)
@click.option("--min-score", "scores", default="0.001,0.25", show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--images", type=int, help="At most, evenly spread.  [default: all]")
@click.option("--rounds", default=4, show_default=True, help="Parts of the images.")
@click.option("--output", type=click.Path(path_type=Path))
def main(yolo: Path, program: str, data: str, engine: Path | None, threads: int, output: Path | None, **asked: Any) -> None:
    """Measure, print a line per budget and score; ``--output`` also writes every round."""
    opened = open_engine(engine or default_engine(), threads, many=True)
    found, size = resolve_sources(data), opened.session.info.input.height
    items = [found[place] for place in spread(list(range(len(found))), asked["images"])]
    cells = [(budget, float(score)) for budget in asked["budgets"].split(",") for score in asked["scores"].split(",")]
    with Other(program, yolo, size, threads) as other:
        samples = interleaved(opened, other, list(parts(items, asked["rounds"])), cells)
    rows = [row(name, samples[name], samples["yolo"]) for name in samples]
    for each in rows:
        click.echo(f"{each['name']:<26}{each['images_per_second']:8.2f} images/s  x{each['ratio']:.3f} of yolo (goal {GOAL})")
    if output is not None:
        contract = {"threads": threads, "size": size, "engine_sha256": opened.digest, "yolo_sha256": sha256_of(yolo)}
        write_evidence(output, {"contract": contract | asked, "rows": rows, "samples": samples})


class Other:
    """The other program, waiting for lists of images while in use as a context."""

    def __init__(self, program: str, yolo: Path, size: int, threads: int) -> None:
        self._command = [program, "-c", DRIVER, str(yolo.resolve()), str(size)]
        self._environment = os.environ | {"OMP_NUM_THREADS": str(threads)}

    def __enter__(self) -> Other:
        self._folder = tempfile.TemporaryDirectory()
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            self._command, stdin=pipe, stdout=pipe, text=True, env=self._environment, cwd=self._folder.name
        )
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.communicate()
        self._folder.cleanup()

    def predict(self, items: Sequence[SourceItem]) -> dict[str, Any]:
        """Its answer for these images. Raises RuntimeError when it ends or cannot use one of them."""
        listed = Path(self._folder.name) / "images.txt"
        listed.write_text("".join(f"{item.path.resolve()}\n" for item in items))
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{listed}\n")
        self._process.stdin.flush()
        said = next((line for line in self._process.stdout if line.startswith("answer ")), None)
        answer: dict[str, Any] = json.loads(said.removeprefix("answer ")) if said else {"images": 0}
        if answer["images"] != len(items):
            raise RuntimeError(f"the other program answered for {answer['images']} of {len(items)} images")
        return answer


def interleaved(
    opened: Opened, other: Other, rounds: Sequence[Sequence[SourceItem]], cells: Sequence[tuple[str, float]]
) -> dict[str, list[dict[str, Any]]]:
    """Every round of every side; a short first one does not count."""
    samples: dict[str, list[dict[str, Any]]] = {}
    with counter(len(rounds), "against yolo") as progress:
        for number, part in enumerate([rounds[0][:2], *rounds]):
            taken = {"yolo": other.predict(part)}
            taken |= {name_of(cell): _ours(opened, part, *cell) for cell in cells}
            if number:
                for name, one in taken.items():
                    samples.setdefault(name, []).append(one)
                progress(number, 0)
    return samples


def name_of(cell: tuple[str, float]) -> str:
    """What a budget and a score are called in the rows."""
    return f"budget {cell[0]}, score {cell[1]:g}"


def _ours(opened: Opened, part: Sequence[SourceItem], budget: str, score: float) -> dict[str, Any]:
    summary = infer(opened, opened.session, part, budget, score)
    named = {"seconds": summary["seconds"], "images": len(part), "detections": summary["detections"]}
    return named | {"milliseconds": summary["median_milliseconds"]}


def row(name: str, own: Sequence[dict[str, Any]], yolo: Sequence[dict[str, Any]], resamples: int = 1000) -> dict[str, Any]:
    """Images per second, and over those of yolo with a 95 % interval over resampled rounds."""
    ours, theirs = (np.array([one["seconds"] for one in side]) for side in (own, yolo))
    drawn = np.random.default_rng(0).integers(0, len(ours), (resamples, len(ours)))
    return {
        "name": name,
        "images_per_second": sum(one["images"] for one in own) / ours.sum(),
        "detections": sum(one["detections"] for one in own),
        "ratio": theirs.sum() / ours.sum(),
        "ratio_interval": np.percentile(theirs[drawn].sum(1) / ours[drawn].sum(1), [2.5, 97.5]).tolist(),
    }


if __name__ == "__main__":
    main()
