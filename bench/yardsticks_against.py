"""What ``apex_runtime/yardsticks`` makes of other projects' exports, beside what their own programs make of them.

    python bench/yardsticks_against.py --data tests/fixtures/nuclei/images --ultralytics A/bin/python --rf-detr B/bin/python
        --sahi B/bin/python --output bench/evidence/yardsticks.json

A and B are environments of their own, with ultralytics, and with rfdetr and sahi. They run there as the separate programs that
they are (``yardstick_programs.py``), with random weights: nothing is fetched. A detection is matched with the nearest one of its
class. ``inner`` pixels are all; where masks are cut to boxes those of the box without a rim of one pixel: which pixels lie in a
box is decided by their centre here and by their corner there.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import yaml
from evidence import write_evidence
from yardstick_programs import RF_DETR, SAHI, ULTRALYTICS

from apex_runtime.data.image import decode_image
from apex_runtime.data.sources import resolve_sources
from apex_runtime.detections import Detections
from apex_runtime.yardsticks.slicing import Slicing, suppressed
from apex_runtime.yardsticks.yardstick import Yardstick

MIN_SCORE, NEAR = 0.05, 1.0  # pixels
NMS = {"suppression": {"iou": 0.7}}
YOLO = {"tensor": "output0", "prototypes": "output1", "unit": "pixels"}
STRETCHED = {"resize": "stretch", "rounded": False, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
DETR = {"form": "separate", "boxes": "dets", "scores": "labels", "masks": "masks", "box": "cxcywh", "unit": "normalised"}


@dataclass(frozen=True)
class Case:
    """One export: what its program is told, and how its file is described."""

    name: str
    words: tuple[str, ...]
    description: Mapping[str, Any]


CASES = {
    "ultralytics": (
        Case("YOLO11n-seg", ("yolo11n-seg", "joined"), {"outputs": YOLO | {"form": "joined", "box": "cxcywh"}} | NMS),
        Case("YOLO26n-seg", ("yolo26n-seg", "end_to_end"), {"outputs": YOLO | {"form": "end_to_end", "box": "xyxy"}}),
    ),
    "rf_detr": (
        Case(
            "RF-DETR seg nano",
            (),
            {
                "classes": {0: "a", 1: "b", 2: "c", 3: "background"},  # its own program answers with that column too
                "input": STRETCHED,
                "outputs": DETR | {"score": "sigmoid", "cut_masks": False},
                "max_candidates": 100,
            },
        ),
    ),
}
PROGRAMS = {"ultralytics": ULTRALYTICS, "rf_detr": RF_DETR}


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True), help="Image, folder or pattern.")
@click.option("--ultralytics", type=click.Path(exists=True), help="Python of its environment.")
@click.option("--rf-detr", type=click.Path(exists=True), help="Python of its environment.")
@click.option("--sahi", type=click.Path(exists=True), help="Python of its environment.")
@click.option("--output", type=click.Path(path_type=Path))
def main(data: str, sahi: str | None, output: Path | None, **pythons: str | None) -> None:
    """Compare, print a line per export; ``--output`` also writes the figures of every image."""
    paths = [item.path.resolve() for item in resolve_sources(data)]
    exports = [_export(python, kind, case, paths) for kind, python in pythons.items() if python for case in CASES[kind]]
    slicing = None if sahi is None else _sahi(sahi)
    for row in exports:
        click.echo(json.dumps({name: value for name, value in row.items() if name != "images"}))
    click.echo(json.dumps(slicing))
    if output is not None:
        contract = {"min_score": MIN_SCORE, "near": NEAR, "images": len(paths), "weights": "random, seed 0"}
        write_evidence(output, {"contract": contract, "exports": exports, "slicing": slicing})


def _export(python: str, kind: str, case: Case, paths: Sequence[Path]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images.txt").write_text("".join(f"{path}\n" for path in paths))
        version = _run(python, PROGRAMS[kind], case.words, folder)
        whole = {"title": case.name, "model": "model.onnx", "classes": ["a", "b", "c"]} | dict(case.description)
        (folder / "case.yaml").write_text(yaml.safe_dump(whole))
        yardstick = Yardstick(folder / "case.yaml", threads=1)
        with np.load(folder / "answers.npz") as answers:
            rows = list(_images(yardstick, answers, paths))
    facts = yardstick.facts
    return {
        "name": case.name,
        "program": f"{kind} {version}",
        "model_sha256": facts.model_sha256,
        "around": f"{facts.resize}; {facts.postprocessing}",
        **total(rows),
        "images": rows,
    }


def _run(python: str, program: str, words: Sequence[str], folder: Path) -> str:
    """Run a program in its environment and folder; the version that it prints last."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "YOLO_CONFIG_DIR": str(folder), "YOLO_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    command = [str(Path(python).absolute()), "-c", program, *words]
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return next(line.removeprefix("version ") for line in done.stdout.splitlines()[::-1] if line.startswith("version "))


def _images(yardstick: Yardstick, answers: Mapping[str, np.ndarray], paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for number, path in enumerate(paths):
        image = decode_image(path)
        theirs = {name: answers[f"{name}_{number}"] for name in ("boxes", "scores", "labels", "masks")}
        (ours,) = yardstick.predict([image], min_score=MIN_SCORE, max_detections=300)
        cut = "masks cut" in yardstick.facts.postprocessing
        yield {"image": path.name, "size": list(image.shape[:2]), **compared(ours, theirs, cut)}


def compared(ours: Detections, theirs: Mapping[str, np.ndarray], cut: bool) -> dict[str, Any]:
    """Counts, and of what matches the largest differences; ``masks``: pixels that differ, of all that are ``inner``."""
    figures: dict[str, Any] = {"theirs": len(theirs["scores"]), "ours": len(ours), "matched": 0}
    figures |= {"box_pixels": 0.0, "score": 0.0, "mask_pixels": 0, "inner_pixels": 0}
    height, width = theirs["masks"].shape[1:]
    for box, score, label, mask in zip(*(theirs[name] for name in ("boxes", "scores", "labels", "masks")), strict=True):
        apart = np.abs(ours.boxes - box).max(axis=1, initial=0) + NEAR * (np.abs(ours.scores - score) + (ours.labels != label))
        if not len(apart) or apart.min() >= NEAR:
            continue
        nearest = int(apart.argmin())
        inner = _inner(box, height, width) if cut else np.ones((height, width), bool)
        differing = (ours.masks[nearest].full(height, width) > 0) != mask
        figures["matched"] += 1
        figures["box_pixels"] = max(figures["box_pixels"], float(np.abs(ours.boxes[nearest] - box).max()))
        figures["score"] = max(figures["score"], float(abs(ours.scores[nearest] - score)))
        figures["mask_pixels"] += int(np.count_nonzero(differing & inner))
        figures["inner_pixels"] += int(np.count_nonzero(inner))
    return figures


def _inner(box: np.ndarray, height: int, width: int) -> np.ndarray:
    """bool [h,w]: the pixels of a box, whichever way they are counted, without the outermost ones."""
    left, top, right, bottom = box
    inner = np.zeros((height, width), bool)
    inner[int(np.ceil(top)) + 1 : max(0, int(bottom) - 1), int(np.ceil(left)) + 1 : max(0, int(right) - 1)] = True
    return inner


def total(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sums of the counts, the largest of the differences."""
    counts = {name: sum(row[name] for row in rows) for name in ("theirs", "ours", "matched", "mask_pixels", "inner_pixels")}
    return counts | {name: max(row[name] for row in rows) for name in ("box_pixels", "score")}


def _sahi(python: str) -> dict[str, Any]:
    """Windows of random images, and suppression in random sets of boxes: how many are the same."""
    rng = np.random.default_rng(0)
    overlaps = rng.choice([0, 0.1, 0.2, 0.25, 0.33, 0.5], 2000)
    images = [[*map(int, rng.integers(1, 900, 2)), int(rng.integers(16, 400)), float(overlap)] for overlap in overlaps]
    boxes = [_boxes(rng) for _ in range(500)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "asked.json").write_text(json.dumps({"images": images, "boxes": [rows.tolist() for rows in boxes]}))
        version = _run(python, SAHI, (), folder)
        answers = json.loads((folder / "answers.json").read_text())
    figures: dict[str, Any] = {"program": f"sahi {version}", "images": len(images), "sets": len(boxes)}
    pairs = zip(images, answers["windows"], strict=True)
    figures["same_windows"] = sum(
        _windows(image) == sorted((y1, x1, y2, x2) for x1, y1, x2, y2 in found) for image, found in pairs
    )
    for match in ("ios", "iou"):
        figures[f"same_{match}"] = sum(_kept(rows, match) == found for rows, found in zip(boxes, answers[match], strict=True))
    return figures


def _boxes(rng: np.random.Generator) -> np.ndarray:
    """float32 [n,6]: xyxy, score (no two are equal), class."""
    count = int(rng.integers(1, 80))
    corners = rng.uniform(0, 100, (count, 2))
    scores = rng.permutation(np.linspace(0.1, 0.9, count))
    columns = (corners, corners + rng.uniform(3, 60, (count, 2)), scores[:, None], rng.integers(0, 3, (count, 1)))
    return np.concatenate(columns, axis=1).astype(np.float32)


def _windows(image: Sequence[Any]) -> list[tuple[int, int, int, int]]:
    height, width, side, overlap = image
    return sorted(Slicing(side, overlap).windows(height, width))


def _kept(rows: np.ndarray, match: Any) -> list[int]:
    slicing = Slicing(100, match=match, within=True)
    return [int(place) for place in suppressed(rows[:, :4], rows[:, 4], rows[:, 5], np.zeros(len(rows)), slicing)]


if __name__ == "__main__":
    main()
