"""The scores of a trained network: one figure per way of measuring it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from apex_runtime.bundle.load import open_engine
from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.evaluation.bootstrap import Matches, average_precision
from apex_runtime.evaluation.coco_ap import detection_limit
from apex_runtime.frontier.choices import Line
from apex_runtime.frontier.contenders import ALL, EngineContender, Wanted
from apex_runtime.frontier.measure import find, score
from apex_runtime.routing.budget import Budget, parse_budget
from apex_train.ablation.study import EvaluateSection, Metric

_MIN_SCORE = 0.001
_DRAWS = 3  # of random tiles, whose mean counts


def measure(
    checkpoint: Path,
    size: tuple[int, int],
    dataset: InstanceDataset,
    metric: Metric,
    ways: Sequence[EvaluateSection],
    device: str = "cpu",
) -> list[float]:
    """The metric, as a share, for each of ``ways``. ``size``: height and width of the letterbox in pixels.

    Raises ModelError, DataError, UsageError (a budget that cannot be, forced tiles of a network with several levels).
    """
    opened = open_engine(checkpoint, device=device, size=size)
    contender = EngineContender("study", checkpoint, opened, {}, sliced=False)
    limit = detection_limit(dataset.ground_truth())
    budgets = {way.budget: parse_budget(way.budget) for way in ways}
    below = tuple(budget for budget in budgets.values() if not _is_whole(budget))
    wanted = Wanted(below, _DRAWS, _MIN_SCORE, limit)
    indices = range(len(dataset))
    kind = metric.rpartition("_")[2]
    found = find(contender, dataset, indices, wanted, lambda: None)
    matches = {line: kinds[kind] for line, kinds in score(dataset, indices, found, (kind,), limit).items()}
    return [float(np.mean([_figure(matches[line], metric) for line in _lines(way)])) for way in ways]


def _lines(way: EvaluateSection) -> list[Line]:
    budget = parse_budget(way.budget)
    if _is_whole(budget):  # whoever chooses, it is all of them
        return [ALL]
    if way.choice == "random":
        return [Line("random", budget.asked, seed) for seed in range(_DRAWS)]
    return [Line(way.choice, budget.asked)]


def _is_whole(budget: Budget) -> bool:
    return (budget.kind, budget.value) == ("share", 1.0)


def _figure(matches: Matches, metric: Metric) -> float:
    precision_T = average_precision(matches, np.ones(len(matches.image_ids), np.int64))
    threshold = {"mAP": None, "AP50": 0.5, "AP75": 0.75}[metric.partition("_")[0]]
    chosen = precision_T if threshold is None else precision_T[np.isclose(matches.thresholds, threshold)]
    return float(chosen.mean())
