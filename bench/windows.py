"""What cutting a scene into windows costs in accuracy, and what one budget over all windows buys.

    python bench/windows.py engines/nuclei-nano/model.onnx --data DIR --split test --grid 4x4 --output FILE
    python bench/windows.py aerial.onnx --data DIR --split test --grid 1x1 --ground 3x3 --budget 0.1,0.25 --output FILE

Images, scaled as the engine sees them, are put side by side to scenes of ``--grid`` rows and columns; with ``--ground`` every
scene is the middle of so many times its size, the rest being the blurred scene, in which there is nothing to find. Rows: the
images one by one (without ground); windows with one budget over all of them; windows with the same share each. ``seams``: pairs
of outputs of one class, where several windows had a say, whose masks overlap by more than 0.6 of their union.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from evidence import write_evidence
from measured import kinds_of

from apex_runtime.bundle.hashing import sha256_of
from apex_runtime.bundle.load import open_engine
from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.data.open import open_dataset
from apex_runtime.data.scenes.windows import Window, windows
from apex_runtime.evaluation.bootstrap import Matches, bootstrap_interval, matches_of, paired_bootstrap
from apex_runtime.evaluation.coco_matching import run_coco_eval
from apex_runtime.evaluation.results import result
from apex_runtime.pipeline.predictor import Filter, Predictor
from apex_runtime.postprocess.letterbox import letterbox_image
from apex_runtime.postprocess.rle import roi_to_rle
from apex_runtime.routing.budget import parse_budget
from apex_runtime.windows.found import Found
from apex_runtime.windows.look import look_at_scene
from apex_runtime.windows.overlaps import overlap, shared_pixels
from apex_runtime.windows.passes import Passes
from apex_runtime.windows.seams import DUPLICATE, join
from apex_train.data.geometry import scaling
from apex_train.data.place import place, shifted, side_by_side
from apex_train.data.regions import Rect
from apex_train.data.sample import Sample, read_sample

LIMIT = 10_000  # detections that count per scene
KEPT = Filter(min_score=0.01)
EVERYWHERE = (-(1 << 30), -(1 << 30), 1 << 30, 1 << 30)


@dataclass(frozen=True, eq=False)
class Scene:
    """Pixels uint8 [h,w,3], and the cells (windows of it) that are single images, with their objects in one sample."""

    sample: Sample
    cells: list[Window]


def read_grid(_ctx: click.Context, _parameter: click.Parameter, value: str) -> tuple[int, int]:
    """Callback: ``4x4`` as rows and columns."""
    rows, cols = (int(part) for part in value.split("x"))
    return rows, cols


@click.command()
@click.argument("engine", type=click.Path(exists=True, path_type=Path))
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--split", default="test", show_default=True)
@click.option("--grid", default="4x4", show_default=True, callback=read_grid)
@click.option("--ground", default="1x1", show_default=True, callback=read_grid)
@click.option("--budget", "budgets", default="0.25,1.0", show_default=True)
@click.option("--overlap", default=128, show_default=True)
@click.option("--output", type=click.Path(path_type=Path))
def main(
    engine: Path,
    data: Path,
    split: str,
    grid: tuple[int, int],
    ground: tuple[int, int],
    budgets: str,
    overlap: int,
    output: Path | None,
) -> None:
    """Measure every budget on the same scenes."""
    dataset = open_dataset(data, split)
    predictor = Predictor(open_engine(engine).session)
    scenes = list(_scenes(dataset, predictor, grid, ground))
    truth = _truth(scenes, dataset)
    rows = []
    for budget in budgets.split(","):
        found = {"windows": _windowed(predictor, scenes, budget, overlap), "evenly": _evenly(predictor, scenes, budget, overlap)}
        if ground == (1, 1):
            found["images"] = _one_by_one(predictor, scenes, budget)
        rows += _rows(truth, budget, found)
    if output is not None:
        asked = {
            "split": split,
            "grid": grid,
            "ground": ground,
            "overlap": overlap,
            "scenes": len(scenes),
            "kept": KEPT.min_score,
        }
        write_evidence(output, {"engine_sha256": sha256_of(engine), "data": dataset.fingerprint()} | asked | {"rows": rows})


def _scenes(dataset: InstanceDataset, predictor: Predictor, grid: tuple[int, int], ground: tuple[int, int]) -> Iterator[Scene]:
    height, width = predictor.info.input.height, predictor.info.input.width
    cells = [Window(col * width, row * height, width, height) for row in range(grid[0]) for col in range(grid[1])]
    for start in range(0, len(dataset), len(cells)):
        part = [_as_seen(dataset, index, height, width) for index in range(start, min(start + len(cells), len(dataset)))]
        scene = side_by_side(
            part,
            [Rect(cell.x, cell.y, cell.x + width, cell.y + height) for cell in cells[: len(part)]],
            (grid[0] * height, grid[1] * width),
        )
        yield _on_ground(Scene(scene, cells[: len(part)]), ground)


def _as_seen(dataset: InstanceDataset, index: int, height: int, width: int) -> Sample:
    """An image as the engine gets it, with its objects."""
    sample = read_sample(dataset, index)
    canvas, box = letterbox_image(sample.image, height, width)
    vertical, horizontal = box.scales
    return replace(place(sample, scaling(horizontal, vertical), (height, width), keep_visible=0.0), image=canvas)


def _on_ground(scene: Scene, ground: tuple[int, int]) -> Scene:
    """The scene amid blurred copies of itself."""
    if ground == (1, 1):
        return scene
    sample = scene.sample
    height, width = sample.image.shape[:2]
    blurred = cv2.GaussianBlur(sample.image, (0, 0), 24)
    canvas = np.tile(blurred, (*ground, 1))
    y, x = (ground[0] - 1) * height // 2, (ground[1] - 1) * width // 2
    canvas[y : y + height, x : x + width] = sample.image
    moved = [mask and shifted(mask, x, y) for mask in sample.masks]
    boxes = sample.boxes + np.array([x, y, x, y], np.float32)
    cells = [Window(cell.x + x, cell.y + y, cell.width, cell.height) for cell in scene.cells]
    return Scene(replace(sample, image=canvas, boxes=boxes, masks=moved), cells)


def _truth(scenes: Sequence[Scene], dataset: InstanceDataset) -> dict[str, Any]:
    """COCO annotations of the scenes, numbered from 1. Masks stand where all objects have one."""
    images, annotations = [], []
    for number, scene in enumerate(scenes, 1):
        height, width = scene.sample.image.shape[:2]
        images.append({"id": number, "height": height, "width": width, "file_name": f"{number}.png"})
        for box, label, mask in zip(scene.sample.boxes, scene.sample.labels, scene.sample.masks, strict=True):
            size = (box[2:] - box[:2]).tolist()
            entry = {"bbox": [*box[:2].tolist(), *size], "area": size[0] * size[1], "iscrowd": 0, "id": len(annotations) + 1}
            if mask is not None:
                entry |= {"segmentation": roi_to_rle(mask, height, width), "area": mask.area}
            annotations.append(entry | {"image_id": number, "category_id": dataset.categories[label].id})
    categories = [{"id": category.id, "name": category.name} for category in dataset.categories]
    return {"images": images, "annotations": annotations, "categories": categories}


def _windowed(predictor: Predictor, scenes: Sequence[Scene], budget: str, overlap: int) -> list[tuple[Found, int, int]]:
    """Per scene: what was found, tiles spent, pairs across seams."""
    found = []
    for scene in scenes:
        cut, size, read = _cut(predictor, scene, overlap)
        look = look_at_scene(predictor, cut, size, read, parse_budget(budget), KEPT)
        joined = look.joined()
        found.append((joined, look.spent, _duplicates(joined, cut)))
    return found


def _evenly(predictor: Predictor, scenes: Sequence[Scene], budget: str, overlap: int) -> list[tuple[Found, int, int]]:
    found = []
    for scene in scenes:
        cut, size, read = _cut(predictor, scene, overlap)
        passes = Passes(predictor, KEPT, cut, size, read)
        passes.run(range(len(cut)), [parse_budget(budget)] * len(cut))
        joined = join(passes.found(), cut)
        found.append((joined, passes.spent, _duplicates(joined, cut)))
    return found


def _cut(predictor: Predictor, scene: Scene, overlap: int) -> tuple[list[Window], tuple[int, int], Any]:
    pixels, engine = scene.sample.image, predictor.info.input
    size = pixels.shape[0], pixels.shape[1]
    cut = windows(*size, (engine.height, engine.width), overlap)
    return cut, size, lambda w: pixels[w.y : w.y + w.height, w.x : w.x + w.width]


def _one_by_one(predictor: Predictor, scenes: Sequence[Scene], budget: str) -> list[tuple[Found, int, int]]:
    found = []
    for scene in scenes:
        size = scene.sample.image.shape[0], scene.sample.image.shape[1]
        passes = Passes(predictor, KEPT, scene.cells, size, _cut(predictor, scene, 0)[2])
        passes.run(range(len(scene.cells)), [parse_budget(budget)] * len(scene.cells))
        found.append((join(passes.found(), scene.cells), passes.spent, 0))
    return found


def _duplicates(found: Found, cut: Sequence[Window]) -> int:
    """Pairs of outputs of one class that overlap too much where at least two windows show one of them."""
    masks = [mask.unpack() for mask in found.masks]
    x1, y1, x2, y2 = found.boxes.T
    shown = np.sum([(x1 < w.x + w.width) & (x2 > w.x) & (y1 < w.y + w.height) & (y2 > w.y) for w in cut], axis=0)
    touching = (found.boxes[:, None, :2] < found.boxes[None, :, 2:]).all(2)
    touching &= touching.T & (found.labels[:, None] == found.labels) & ((shown > 1)[:, None] | (shown > 1))
    pairs = np.argwhere(np.triu(touching, 1)).tolist()
    return sum(
        overlap(masks[a].area + masks[b].area, shared_pixels(masks[a], masks[b], EVERYWHERE)) > DUPLICATE for a, b in pairs
    )


def _rows(truth: dict[str, Any], budget: str, found: dict[str, list[tuple[Found, int, int]]]) -> list[dict[str, Any]]:
    kind = kinds_of(truth)[-1]
    matches = {name: _matches(truth, scenes, kind) for name, scenes in found.items()}
    rows = []
    for name, own in matches.items():
        row: dict[str, Any] = {"how": name, "budget": budget, "kind": kind}
        for figure in ("mAP", "AP50"):
            value, against = bootstrap_interval(own, figure), paired_bootstrap(matches["windows"], own, figure)
            row[figure] = [value.low, value.value, value.high]
            row[f"{figure}_minus_windows"] = [against.low, against.value, against.high]
        row |= {"tiles": sum(spent for _f, spent, _s in found[name]), "seams": sum(pairs for _f, _s, pairs in found[name])}
        click.echo(json.dumps(row))
        rows.append(row)
    return rows


def _matches(truth: dict[str, Any], scenes: list[tuple[Found, int, int]], kind: str) -> Matches:
    results = list(itertools.chain.from_iterable(_results(truth, number, scene[0]) for number, scene in enumerate(scenes, 1)))
    return matches_of(run_coco_eval(truth, results, kind, LIMIT))


def _results(truth: dict[str, Any], number: int, found: Found) -> Iterator[dict[str, Any]]:
    image = truth["images"][number - 1]
    ids = [category["id"] for category in truth["categories"]]
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), found.masks, strict=True)
    for box, score, label, mask in rows:
        yield result(number, ids[label], box, score, roi_to_rle(mask.unpack(), image["height"], image["width"]))


if __name__ == "__main__":
    main()
