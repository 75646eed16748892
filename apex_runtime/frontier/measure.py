"""What every line of every contender finds, how good that is, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from apex_runtime.benchmark.turns import measure
from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.evaluation.bootstrap import Matches, matches_of
from apex_runtime.evaluation.coco_ap import shared_classes
from apex_runtime.evaluation.coco_matching import run_coco_eval
from apex_runtime.evaluation.results import detections_to_results
from apex_runtime.frontier.choices import Line
from apex_runtime.frontier.contenders import Contender, View, Wanted
from apex_runtime.routing.budget import Budget

_TIMED_IMAGES = 8  # evenly over the list: what a detection costs depends on what is in the image
WARM_UP = 2


@dataclass(frozen=True)
class Times:
    """Milliseconds of every round: from the pixels of an image to COCO results, and of the graph in it."""

    image: list[float]
    graph: list[float]


def view_of(dataset: InstanceDataset, index: int) -> View:
    """Image ``index`` with the boxes of its objects; crowds are none. Raises ImageError, DataError."""
    found = dataset.instances(index)
    return View(dataset.read_image(index), dataset.records[index].image_id, found.boxes[~found.crowd])


def check_classes(contenders: Sequence[Contender], dataset: InstanceDataset) -> None:
    """Raises DataError for a detector that has no class of the data set: before minutes are spent on those before it."""
    for contender in contenders:
        shared_classes(contender.predictor.info.classes, dataset, contender.title)


def find(
    contender: Contender, dataset: InstanceDataset, indices: Sequence[int], wanted: Wanted, done: Callable[[], None]
) -> dict[Line, list[dict[str, Any]]]:
    """COCO results of every line, in the data set's classes; ``done`` is called after each image.

    Raises DataError, ImageError, BackendError.
    """
    id_of = shared_classes(contender.predictor.info.classes, dataset, contender.title)
    results: dict[Line, list[dict[str, Any]]] = {line: [] for line in contender.lines(wanted)}
    for index in indices:
        view = view_of(dataset, index)
        for line, detections in contender.look(view, wanted):
            entries = detections_to_results(detections, view.image_id)
            results[line] += [e | {"category_id": id_of[e["category_id"]]} for e in entries if e["category_id"] in id_of]
        done()
    return results


def score(
    dataset: InstanceDataset, indices: Sequence[int], results: dict[Line, list[dict[str, Any]]], kinds: Iterable[str], limit: int
) -> dict[Line, dict[str, Matches]]:
    """Results matched with the truth, by kind of overlap."""
    truth, ids = dataset.ground_truth(), [dataset.records[index].image_id for index in indices]
    return {
        line: {kind: matches_of(run_coco_eval(truth, entries, kind, limit, ids)) for kind in kinds}
        for line, entries in results.items()
    }


def kinds_of(contender: Contender, kinds: Iterable[str]) -> list[str]:
    """Those of ``kinds`` that the contender answers with."""
    return [kind for kind in kinds if kind == "bbox" or contender.masks]


def time_all(
    contenders: Sequence[Contender],
    dataset: InstanceDataset,
    indices: Sequence[int],
    wanted: Wanted,
    rounds: int,
    turn: Callable[[], object],
) -> list[dict[Line, Times]]:
    """Every timed line of every contender in turn within every round, all on the same image. ``turn`` is called before each."""
    places = np.linspace(0, len(indices) - 1, min(len(indices), _TIMED_IMAGES)).astype(int)
    images = [dataset.read_image(indices[place]) for place in places]
    calls = {
        (number, line): _Call(contender, line, budget, images, wanted)
        for number, contender in enumerate(contenders)
        for line, budget in contender.timed_lines(wanted).items()
    }
    samples = measure({f"{number} {line}": call for (number, line), call in calls.items()}, rounds, WARM_UP, turn)
    found: list[dict[Line, Times]] = [{} for _ in contenders]
    for (number, line), call in calls.items():
        found[number][line] = Times(samples[f"{number} {line}"], call.graph_of_timed())
    return found


class _Call:
    """A subject of the stopwatch. It calls every subject twice a round, the second time counts."""

    def __init__(self, contender: Contender, line: Line, budget: Budget, images: Sequence[np.ndarray], wanted: Wanted) -> None:
        self._contender, self._line, self._budget = contender, line, budget
        self._images, self._wanted = images, wanted
        self._graph: list[float] = []

    def __call__(self) -> None:
        image = self._images[len(self._graph) // 2 % len(self._images)]
        found, graph = self._contender.once(self._line, image, self._budget, self._wanted)
        for detections in found:
            detections_to_results(detections, 1)
        self._graph.append(graph)

    def graph_of_timed(self) -> list[float]:
        """Without the first of two calls, and without the warm-up."""
        return self._graph[1::2][WARM_UP:]
