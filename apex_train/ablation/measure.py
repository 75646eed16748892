"""The scores of a trained network: one figure per way of measuring it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apex_runtime.bundle.build import build_bundle
from apex_runtime.bundle.load import open_engine
from apex_runtime.bundle.manifest import Backend
from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.evaluation.bootstrap import Matches, average_precision
from apex_runtime.evaluation.coco_ap import detection_limit
from apex_runtime.frontier.choices import Line
from apex_runtime.frontier.contenders import ALL, EngineContender, Wanted
from apex_runtime.frontier.measure import find, score
from apex_runtime.precision.plan import Precision
from apex_runtime.precision.request import PrecisionRequest
from apex_runtime.routing.budget import parse_budget
from apex_train.ablation.study import EvaluateSection, Metric
from apex_train.checkpoint import file_sha256, load_model

_MIN_SCORE = 0.001
_DRAWS = 3  # of random tiles, whose mean counts


@dataclass(frozen=True)
class Measured:
    """What is measured: a checkpoint with the letterbox (height, width) it was trained at, where, and the folder of its data."""

    checkpoint: Path
    size: tuple[int, int]
    device: str
    data: Path


def measure(subject: Measured, dataset: InstanceDataset, metric: Metric, ways: Sequence[EvaluateSection]) -> list[float]:
    """The metric on ``dataset``, as a share, for each of ``ways``.

    Engines of other precisions are left beside the checkpoint. Raises ModelError, DataError, BackendError, UsageError (a
    budget that is too small).
    """
    found: dict[EvaluateSection, float] = {}
    for precision in dict.fromkeys(way.precision for way in ways):
        these = [way for way in ways if way.precision == precision]
        found |= zip(these, _of_one_engine(subject, precision, dataset, metric, these), strict=True)
    return [found[way] for way in ways]


def _of_one_engine(
    subject: Measured, precision: Precision, dataset: InstanceDataset, metric: Metric, ways: Sequence[EvaluateSection]
) -> list[float]:
    path = subject.checkpoint if precision == "fp32" else _engine(subject, precision)
    opened = open_engine(path, device=subject.device, size=subject.size if precision == "fp32" else None)
    contender = EngineContender("study", path, opened, {}, sliced=False)
    limit = detection_limit(dataset.ground_truth())
    budgets = {way.budget: parse_budget(way.budget) for way in ways if not way.all_tiles}
    wanted = Wanted(tuple(budgets.values()), _DRAWS, _MIN_SCORE, limit)
    indices = range(len(dataset))
    kind = metric.rpartition("_")[2]
    found = find(contender, dataset, indices, wanted, lambda: None)
    matches = {line: kinds[kind] for line, kinds in score(dataset, indices, found, (kind,), limit).items()}
    return [float(np.mean([_figure(matches[line], metric) for line in _lines(way)])) for way in ways]


def _engine(subject: Measured, precision: Precision) -> Path:
    """A bundle of another precision for this machine's ONNX Runtime."""
    from apex_train.export.exporter import export_onnx

    folder = subject.checkpoint.parent
    model, bundle = folder / "model.onnx", folder / precision
    export_onnx(load_model(subject.checkpoint), subject.size, model, file_sha256(subject.checkpoint))
    backend: Backend = "ort-cpu" if subject.device == "cpu" else "ort-cuda"
    build_bundle(model, backend, bundle, precision=PrecisionRequest(precision, data=subject.data, report=False))
    return bundle


def _lines(way: EvaluateSection) -> list[Line]:
    if way.all_tiles:
        return [ALL]
    budget = parse_budget(way.budget)
    if way.choice == "random":
        return [Line("random", budget.asked, seed) for seed in range(_DRAWS)]
    return [Line(way.choice, budget.asked)]


def _figure(matches: Matches, metric: Metric) -> float:
    precision_T = average_precision(matches, np.ones(len(matches.image_ids), np.int64))
    threshold = {"mAP": None, "AP50": 0.5, "AP75": 0.75}[metric.partition("_")[0]]
    chosen = precision_T if threshold is None else precision_T[np.isclose(matches.thresholds, threshold)]
    return float(chosen.mean())
