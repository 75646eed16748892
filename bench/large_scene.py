"""How much memory does a scene of 108 million pixels take? Real images side by side, ``apex-rt infer`` as its own process.

    python bench/large_scene.py --data DIR --size 9000x12000 --budget 0.05 --output bench/evidence/large-scene.json

The scene is written as JPEG, which has to be decoded whole, and as an uncompressed TIFF in tiles, which is read window by window.
Exit code 1: more memory than promised, or a run that failed.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import rasterio
from evidence import write_evidence
from measured import read_size
from processes import looks_at, start

from apex_runtime.bundle.hashing import sha256_of
from apex_runtime.data.image import decode_image
from apex_runtime.data.sources import resolve_sources
from apex_runtime.engine import default_engine

REACH_BYTES = 1_500_000_000
TIFF_TILE = 256


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True), help="Image, folder or pattern.")
@click.option("--engine", type=click.Path(exists=True, path_type=Path), help="model.onnx.  [default: the shipped one]")
@click.option("--size", default="9000x12000", show_default=True, callback=read_size, help="HEIGHTxWIDTH.")
@click.option("--budget", default="0.05", show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--min-score", "scores", default="0.001,0.05", show_default=True)
@click.option("--save", default="none", show_default=True, help="As for apex-rt infer.")
@click.option("--output", type=click.Path(path_type=Path))
def main(data: str, engine: Path | None, size: tuple[int, int], scores: str, output: Path | None, **asked: Any) -> None:
    """Measure every file at every score; ``--output`` also writes them down."""
    engine = engine or default_engine() / "model.onnx"
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_scene(tiled(data, *size), folder)
        for file, score in itertools.product(files, scores.split(",")):
            words = [word for key, value in asked.items() for word in (f"--{key}", value)]
            words = ["infer", file, "--engine", engine, "--min-score", score, *words]
            rows.append({"file": file.suffix[1:], "min_score": float(score), **measure(words, folder / f"{len(rows)}")})
            click.echo(json.dumps(rows[-1]))
    if output is not None:
        write_evidence(output, asked | {"size": size, "engine_sha256": sha256_of(engine), "rows": rows})
    if any(row["exit_code"] or row["peak_bytes"] > REACH_BYTES for row in rows):
        raise SystemExit(1)


def tiled(data: str, height: int, width: int) -> np.ndarray:
    """uint8 [height,width,3]: the images of ``data`` row by row, at their own size, each cut where the next begins."""
    scene = np.zeros((height, width, 3), np.uint8)
    images = itertools.cycle(item.path for item in resolve_sources(data))
    top = 0
    while top < height:
        left, bottom = 0, height
        while left < width:
            image = decode_image(next(images))[: bottom - top, : width - left]
            bottom = top + image.shape[0]  # a row is as high as its lowest image: what is below it, the next row covers
            scene[top:bottom, left : left + image.shape[1]] = image
            left += image.shape[1]
        top = bottom
    return scene


def write_scene(scene: np.ndarray, folder: Path) -> list[Path]:
    """The scene as JPEG and as TIFF."""
    height, width = scene.shape[:2]
    files = [folder / "scene.jpg", folder / "scene.tif"]
    cv2.imwrite(str(files[0]), np.ascontiguousarray(scene[:, :, ::-1]))
    form = {"driver": "GTiff", "tiled": True, "blockxsize": TIFF_TILE, "blockysize": TIFF_TILE, "photometric": "RGB"}
    with rasterio.open(files[1], "w", height=height, width=width, count=3, dtype="uint8", interleave="pixel", **form) as file:
        file.write(np.moveaxis(scene, 2, 0))
    return files


def measure(words: list[object], output: Path) -> dict[str, Any]:
    """Seconds, peak of the resident memory, and what was found."""
    started = time.perf_counter()
    process: subprocess.Popen[bytes] = start([*words, "-o", output], output.with_suffix(".txt"))
    peak = max(looks_at(process, "VmHWM"), default=0)
    facts: dict[str, Any] = {"exit_code": process.wait(), "seconds": round(time.perf_counter() - started, 1), "peak_bytes": peak}
    if facts["exit_code"]:
        return facts | {"said": output.with_suffix(".txt").read_text(errors="replace")[-500:]}
    record = json.loads((output / "results.json").read_text())["images"][0]
    summary = json.loads((output / "summary.json").read_text())
    spent = {"windows": len(record["windows"]), "tiles": summary["tiles_spent"], "detections": summary["detections"]}
    return facts | spent | {"milliseconds": record["milliseconds"]}


if __name__ == "__main__":
    main()
