"""One checkpoint, every line of the frontier: which tiles, what was found with them, and how good that was.

The tiles of all lines are chosen first, image by image; then the engine runs budget by budget, all choices of an image in one
call, so that the results of one budget at a time are held.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from dense import densify
from frontier_choices import Oracle, Ranking, planned
from measured import letterboxed, same_classes
from peripheral_only import without_tiles

from apex_runtime.backends.ort import OrtSession
from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.detections import Detections
from apex_runtime.evaluation.bootstrap import Matches, matches_of
from apex_runtime.evaluation.coco_ap import shared_classes
from apex_runtime.evaluation.coco_matching import run_coco_eval
from apex_runtime.evaluation.results import detections_to_results
from apex_runtime.frontier.choices import Line, by_coverage, forced, random_tiles
from apex_runtime.pipeline.predictor import Predictor, Prepared
from apex_runtime.routing.budget import Budget, parse_budget
from apex_runtime.routing.grid import content_tiles
from apex_runtime.yardsticks.slicing import SlicedPredictor, Slicing
from apex_train.config import LossConfig
from apex_train.engine.tile_truth import TileTruth
from apex_train.export.exporter import export_onnx
from apex_train.export.trace import trace_detector
from apex_train.model.detector import ApexDetector
from apex_train.model.info import model_info

MIN_SCORE = 0.001
ALL, PERIPHERAL, DENSE, SLICED = Line("all tiles"), Line("peripheral"), Line("dense"), Line("sliced")
WHOLE = parse_budget(1.0)
Seen = Iterator[tuple[int, dict[Line, Detections]]]  # position of an image, what each line found in it


@dataclass(frozen=True)
class Plan:
    """What is asked: the images (positions in ``dataset``), kinds of overlap, detections that count per image, ``size`` (height,
    width) of the engine, budgets, seeds of random tiles, the oracle's ranking, the slicing."""

    dataset: InstanceDataset
    indices: list[int]
    kinds: tuple[str, ...]
    limit: int
    size: tuple[int, int]
    budgets: tuple[Budget, ...]
    seeds: int
    ranking: Ranking
    slicing: Slicing
    threads: int


@dataclass
class Measured:
    """What came out. ``tiles`` is the mean number looked at per image; ``matches`` per line and kind of overlap."""

    matches: dict[Line, dict[str, Matches]] = field(default_factory=dict)
    tiles: dict[Line, float] = field(default_factory=dict)
    windows: float = 0.0
    oracle_seconds: float = 0.0  # per image


class Engines:
    """One model as graphs in ONNX Runtime: the deployed one, and its twins without tiles, without routing, and of a window."""

    def __init__(self, model: ApexDetector, plan: Plan) -> None:
        side = (plan.slicing.side, plan.slicing.side)
        twins = {
            "peripheral": (without_tiles(model), plan.size),
            "dense": (densify(model), plan.size),
            "window": (densify(model), side),
        }
        with tempfile.TemporaryDirectory() as folder:
            export_onnx(model, plan.size, Path(folder) / "routed.onnx")
            for name, (twin, size) in twins.items():
                onnx.save(trace_detector(twin, model_info(model, *size)), Path(folder) / f"{name}.onnx")
            names = ("routed", *twins)
            self.routed, self.peripheral, self.dense, self.window = (
                OrtSession(Path(folder) / f"{name}.onnx", plan.threads) for name in names
            )


def measure_lines(model: ApexDetector, engines: Engines, plan: Plan, say: Callable[[str], None]) -> Measured:
    """Every line of the plan for one checkpoint. Raises DataError, UsageError, BackendError."""
    same_classes(model.config.classes, plan.dataset)
    found = Measured()
    choices: list[dict[Line, list[int]]] = []
    started = time.perf_counter()
    for done, index in enumerate(plan.indices, 1):
        choices.append(choose(model, plan, index))
        found.oracle_seconds = (time.perf_counter() - started) / done
        if done % 10 == 0 or done == len(plan.indices):
            say(f"truth of {done} of {len(plan.indices)} images, {found.oracle_seconds:.1f} s each")
    for budget in plan.budgets:
        say(f"budget {budget.asked}")
        _score(engines, plan, _routed(engines, plan, budget, choices, found), found)
    say("all tiles, peripheral, dense, sliced")
    _score(engines, plan, _standing(engines, plan, found), found)
    return found


def choose(model: ApexDetector, plan: Plan, index: int) -> dict[Line, list[int]]:
    """The forced choices of one image for every budget."""
    batch, box = letterboxed(plan.dataset, index, plan.size)
    info = model_info(model, *plan.size)
    content_N = content_tiles(box, info.tiles)
    shown = np.flatnonzero(content_N)
    oracle = Oracle(TileTruth(model, batch, LossConfig(), content_N), content_N, plan.ranking)
    covered = by_coverage(batch.boxes[0][batch.labels[0] >= 0].numpy(), shown, info.tiles)
    found: dict[Line, list[int]] = {}
    for budget in plan.budgets:
        tiles = budget.tiles_for(len(shown), len(content_N), info)
        best = oracle.choose(tiles)
        for line in planned([budget], plan.seeds):
            if line.seed is not None:
                found[line] = random_tiles(shown, tiles, line.seed, batch.image_ids[0])
            else:
                found[line] = best if line.kind == "oracle" else covered[:tiles]
    return found


def _routed(engines: Engines, plan: Plan, budget: Budget, choices: Sequence[dict[Line, list[int]]], found: Measured) -> Seen:
    """Per image what the engine finds with its own choice at this budget, and with every forced one."""
    predictor, lines = Predictor(engines.routed), planned([budget], plan.seeds)
    spent = []
    for index, choice in zip(plan.indices, choices, strict=True):
        own = predictor.prepare(plan.dataset.read_image(index), budget)
        spent.append(own.tiles)
        asked = [own, *(forced(own, choice[line]) for line in lines)]
        seen = _detect(predictor, asked, plan)
        for line, each in zip(lines, seen[1:], strict=True):
            if set(each.tile_ids.tolist()) != set(choice[line]):
                raise RuntimeError(f"{line}: the engine looked at other tiles than it was made to")
        yield index, dict(zip([Line("router", budget.asked), *lines], seen, strict=True))
    found.tiles |= dict.fromkeys([Line("router", budget.asked), *lines], float(np.mean(spent)))


def _standing(engines: Engines, plan: Plan, found: Measured) -> Seen:
    """Per image what is found by the lines that have no budget."""
    graphs = {ALL: engines.routed, PERIPHERAL: engines.peripheral, DENSE: engines.dense}
    predictors = {line: Predictor(session) for line, session in graphs.items()}
    sliced = SlicedPredictor(Predictor(engines.window), plan.slicing)
    spent, windows = [], []
    for index in plan.indices:
        image = plan.dataset.read_image(index)
        own = predictors[ALL].prepare(image, WHOLE)
        spent.append(own.tiles)
        windows.append(len(plan.slicing.windows(*image.shape[:2])))
        seen = {line: _detect(predictor, [own], plan)[0] for line, predictor in predictors.items()}
        yield index, seen | {SLICED: sliced.predict([image], WHOLE, MIN_SCORE, plan.limit)[0]}
    found.tiles[ALL], found.windows = float(np.mean(spent)), float(np.mean(windows))


def _detect(predictor: Predictor, asked: list[Prepared], plan: Plan) -> list[Detections]:
    wanted = predictor.filter(MIN_SCORE, plan.limit, None)
    return [predictor.finish(each, item, wanted) for each, item in zip(predictor.run(asked), asked, strict=True)]


def _score(engines: Engines, plan: Plan, seen: Seen, found: Measured) -> None:
    """COCO results per line, matched with the truth."""
    id_of = shared_classes(engines.routed.info.classes, plan.dataset, "the model")
    results: dict[Line, list[dict[str, Any]]] = {}
    for index, lines in seen:
        for line, detections in lines.items():
            entries = detections_to_results(detections, plan.dataset.records[index].image_id)
            results.setdefault(line, []).extend(entry | {"category_id": id_of[entry["category_id"]]} for entry in entries)
    truth, ids = plan.dataset.ground_truth(), [plan.dataset.records[index].image_id for index in plan.indices]
    for line, entries in results.items():
        evaluations = {kind: run_coco_eval(truth, entries, kind, plan.limit, ids) for kind in plan.kinds}
        found.matches[line] = {kind: matches_of(each) for kind, each in evaluations.items()}
