"""A YOLO11n-seg on the folds of ``folds.py``, from random weights: a yardstick, run as the separate program that it is.

    python bench/yolo_seg.py folds/ --program OTHER/bin/yolo --epochs 20 --size 512 --output runs/yolo

OTHER is an environment of its own with ultralytics. Its settings are its own defaults except for those named below.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from folds import LIMIT, cpu_seconds
from pycocotools import mask as coco_mask

from apex_runtime.files import write_atomically

# No mixed precision and no pretrained weights; the last weights are used, so nothing is measured on the way.
TRAINING = ("model=yolo11n-seg.yaml", "device=cpu", "workers=0", "pretrained=False", "amp=False", "val=False", "plots=False")
ANSWERING = ("device=cpu", "conf=0.001", f"max_det={LIMIT}", "save=False", "save_txt=True", "save_conf=True", "verbose=False")


@click.command()
@click.argument("folds", type=click.Path(exists=True, path_type=Path))
@click.option("--program", required=True, type=click.Path(exists=True), help="The yolo command of the other environment.")
@click.option("--epochs", required=True, type=int)
@click.option("--size", default=512, show_default=True)
@click.option("--batch", default=8, show_default=True)
@click.option("--output", required=True, type=click.Path(path_type=Path))
def main(folds: Path, program: str, epochs: int, size: int, batch: int, output: Path) -> None:
    """Train on every fold that has no results yet, and answer for its test images with the last weights."""
    output.mkdir(parents=True, exist_ok=True)
    for fold in sorted(folds.iterdir()):
        proof = output / f"{fold.name}.json"
        if proof.is_file():
            continue
        description = output / f"{fold.name}.yaml"
        moved = {"path": str((fold / "yolo").resolve())}
        description.write_text(json.dumps(json.loads((fold / "yolo" / "data.yaml").read_text()) | moved))
        place = (f"project={output.resolve()}", "exist_ok=True", f"imgsz={size}")
        before = cpu_seconds()
        asked = (f"data={description}", f"epochs={epochs}", f"batch={batch}", f"name={fold.name}")
        subprocess.run([program, "segment", "train", *TRAINING, *asked, *place], check=True)
        seconds = cpu_seconds() - before
        weights = output / fold.name / "weights" / "last.pt"
        asked = (f"model={weights}", f"source={fold / 'yolo' / 'test' / 'images'}", f"name={fold.name}-test")
        subprocess.run([program, "segment", "predict", *ANSWERING, *asked, *place], check=True)
        results = list(_results(fold, output / f"{fold.name}-test" / "labels"))
        write_atomically(proof, json.dumps({"cpu_seconds": seconds, "results": {"all": results}}).encode())
        click.echo(f"{fold.name}: {seconds / 60:.1f} minutes of one processor")


def _results(fold: Path, answers: Path) -> Iterator[dict[str, Any]]:
    """COCO results of the lines ``class x y x y ... score`` that the program wrote, one file per image with any."""
    document = json.loads((fold / "annotations" / "test.json").read_text())
    for image in document["images"]:
        path = answers / f"{Path(image['file_name']).stem}.txt"
        for line in path.read_text().splitlines() if path.is_file() else ():
            label, *points, score = map(float, line.split())
            polygon = (np.array(points).reshape(-1, 2) * (image["width"], image["height"])).ravel()
            if len(polygon) < 6:
                continue
            mask = coco_mask.merge(coco_mask.frPyObjects([polygon.tolist()], image["height"], image["width"]))
            yield {
                "image_id": image["id"],
                "category_id": document["categories"][int(label)]["id"],
                "score": score,
                "segmentation": {"size": mask["size"], "counts": mask["counts"].decode()},
            }


if __name__ == "__main__":
    main()
