"""What hysteresis of the tiles does to a clip with known objects: flips, accuracy, how long objects that enter wait for a look.

    python bench/video_hysteresis.py runs/0/best.pt runs/1/best.pt --data DIR --split test --size 384x1280 --output FILE

The frames are the images of the split in the order of their names, all of one clip. Objects are followed from frame to frame by
the nearest centre within their own length. One that has no predecessor has entered; it is covered when the tile that holds its
centre is looked at. Several checkpoints, of trainings that differ in their seed: every one has its rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from evidence import write_evidence
from measured import one_level, read_size

from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.data.open import open_dataset
from apex_runtime.detections import Detections
from apex_runtime.evaluation.coco_ap import detection_limit, evaluate_coco, predict_results
from apex_runtime.model_info import TileInfo
from apex_runtime.pipeline.predictor import Filter, Predictor
from apex_runtime.postprocess.letterbox import Letterbox
from apex_runtime.routing.budget import Budget, parse_budget
from apex_runtime.routing.hysteresis import FlipCounter, TileMemory
from apex_train.checkpoint import file_sha256, load_model
from apex_train.predictor import TorchSession

WITHIN = 3  # frames in which an object that enters should be looked at


@dataclass(frozen=True)
class Frame:
    """One frame: boxes xyxy [G,4] in its own pixels, letterbox, ids of the tiles that were looked at."""

    boxes_G4: np.ndarray
    letterbox: Letterbox
    tiles: frozenset[int]


@click.command()
@click.argument("checkpoints", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--split", default="test", show_default=True)
@click.option("--size", default="512", show_default=True, callback=read_size, help="One side, or HEIGHTxWIDTH.")
@click.option("--budget", default="0.25", show_default=True)
@click.option("--bonus", "bonuses", multiple=True, type=float, default=(0.0, 0.35, 0.5, 1.0, 1.5, 2.0), show_default=True)
@click.option("--output", type=click.Path(path_type=Path))
def main(
    checkpoints: tuple[Path, ...],
    data: Path,
    split: str,
    size: tuple[int, int],
    budget: str,
    bonuses: tuple[float, ...],
    output: Path | None,
) -> None:
    """Measure every bonus on the same frames."""
    dataset = open_dataset(data, split)
    order = sorted(range(len(dataset)), key=lambda index: dataset.records[index].file_name)
    rows = []
    for number, checkpoint in enumerate(checkpoints):
        predictor = Predictor(TorchSession(one_level(load_model(checkpoint)), *size))
        for bonus in bonuses:
            frames, figures = play(predictor, dataset, order, budget, bonus)
            rows.append({"checkpoint": number, "bonus": bonus} | figures | waits(frames, predictor.info.tiles))
            click.echo(
                "  ".join(
                    f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}" for key, value in rows[-1].items()
                )
            )
    if output is not None:
        hashes = [file_sha256(checkpoint) for checkpoint in checkpoints]
        asked = {"split": split, "size": size, "budget": budget, "frames": len(order), "fingerprint": dataset.fingerprint()}
        write_evidence(output, {"checkpoints_sha256": hashes} | asked | {"rows": rows, "means": _means(rows, bonuses)})


def _means(rows: Sequence[dict[str, Any]], bonuses: Sequence[float]) -> list[dict[str, Any]]:
    """Per bonus the mean over checkpoints, and of the flip rate also the quotient over that of the first bonus."""
    found: list[dict[str, Any]] = []
    for bonus in bonuses:
        own = [row for row in rows if row["bonus"] == bonus]
        mean = {key: float(np.mean([row[key] for row in own])) for key in ("flip_rate", "AP50", "AP", "covered_within_3")}
        first = found[0] if found else {"flip_rate": mean["flip_rate"]}
        found.append({"bonus": bonus} | mean | {"flips_over_first": mean["flip_rate"] / first["flip_rate"]})
    return found


class SteadyPredictor:
    """A predictor of the frames of one clip, one after the other, with hysteresis; it keeps what it looked at."""

    def __init__(self, predictor: Predictor, bonus: float) -> None:
        self._predictor, self.info = predictor, predictor.info
        self._memory = TileMemory(bonus)
        self.flips = FlipCounter()
        self.looked: list[tuple[Letterbox, frozenset[int]]] = []

    def predict(
        self,
        images: Sequence[np.ndarray],
        budget: Budget | int | float | str = 1.0,
        min_score: float = 0.001,
        max_detections: int | None = None,
    ) -> list[Detections]:
        """The detections of the next frames."""
        wanted = self._predictor.filter(min_score, max_detections, None)
        return [self._next(image, parse_budget(budget), wanted) for image in images]

    def _next(self, image: np.ndarray, budget: Budget, wanted: Filter) -> Detections:
        prepared = self._predictor.prepare(image, budget)
        prepared.bonus_N[:] = self._memory.bonus_for("clip", prepared.bonus_N)
        (outputs,) = self._predictor.run([prepared])
        ids = outputs["tile_ids"].tolist()
        self._memory.remember("clip", ids)
        self.flips.add(ids)
        self.looked.append((prepared.letterbox, frozenset(ids)))
        return self._predictor.finish(outputs, prepared, wanted)


def play(
    predictor: Predictor, dataset: InstanceDataset, order: Sequence[int], budget: str, bonus: float
) -> tuple[list[Frame], dict[str, Any]]:
    """The frames one after the other with hysteresis, their flip rate and AP."""
    steady, truth = SteadyPredictor(predictor, bonus), dataset.ground_truth()
    limit = detection_limit(truth)
    results = predict_results(steady, dataset, budget, max_detections=limit, batch=1, indices=order)
    figures = evaluate_coco(truth, results, ("bbox",), limit)
    objects = (dataset.instances(index) for index in order)
    frames = [Frame(each.boxes[~each.crowd], *looked) for each, looked in zip(objects, steady.looked, strict=True)]
    return frames, {"flip_rate": steady.flips.flip_rate, "AP50": figures["AP50_bbox"], "AP": figures["mAP_bbox"]}


def waits(frames: Sequence[Frame], tiles: TileInfo) -> dict[str, Any]:
    """Of the objects that enter after the first frame and can be followed for WITHIN frames: how many, and the share that was
    looked at in one of these. Who counts depends on the boxes alone, and is the same for every bonus."""
    entered, covered = 0, 0
    for start in range(1, len(frames)):
        before = _successors(frames[start - 1].boxes_G4, frames[start].boxes_G4)
        for item in sorted(set(range(len(frames[start].boxes_G4))) - set(before.values())):
            path = _follow(frames[start : start + WITHIN], item)
            if len(path) == WITHIN:
                seen = zip(path, frames[start : start + WITHIN], strict=True)
                entered += 1
                covered += any(tile_of(frame.boxes_G4[at], frame.letterbox, tiles) in frame.tiles for at, frame in seen)
    return {"entered": entered, "covered_within_3": covered / entered if entered else None}


def _follow(frames: Sequence[Frame], item: int) -> list[int]:
    """Which object of each frame the object ``item`` of the first is, as far as it can be followed."""
    path = [item]
    for now, then in itertools.pairwise(frames):
        after = _successors(now.boxes_G4, then.boxes_G4)
        if path[-1] not in after:
            break
        path.append(after[path[-1]])
    return path


def tile_of(box_4: np.ndarray, letterbox: Letterbox, tiles: TileInfo) -> int:
    """The id of the tile that holds the centre of a box in image pixels."""
    vertical, horizontal = letterbox.scales
    x, y = (box_4[0] + box_4[2]) / 2 * horizontal, (box_4[1] + box_4[3]) / 2 * vertical
    return int(y // tiles.tile) * tiles.cols + int(x // tiles.tile)


def _successors(now_G4: np.ndarray, then_H4: np.ndarray) -> dict[int, int]:
    """Which object of the next frame each is: the nearest centre, no further than the object is long, the nearest pairs first."""
    if not len(now_G4) or not len(then_H4):
        return {}
    distance = np.linalg.norm(_centres(now_G4)[:, None] - _centres(then_H4)[None], axis=2)
    length_G = (now_G4[:, 2:] - now_G4[:, :2]).max(1)
    found: dict[int, int] = {}
    for place in np.argsort(distance, axis=None):
        now, then = divmod(int(place), len(then_H4))
        if distance[now, then] <= length_G[now] and now not in found and then not in found.values():
            found[now] = then
    return found


def _centres(boxes_G4: np.ndarray) -> np.ndarray:
    return (boxes_G4[:, :2] + boxes_G4[:, 2:]) / 2


if __name__ == "__main__":
    main()
