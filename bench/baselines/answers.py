"""What a trained detector finds in the test images, by its ONNX file and the code that times it, with the terms of that.

A folder of a run: ``run.json`` (who, seed, what it cost, hashes, terms), ``answers-<name>.json`` (COCO results), the ONNX file,
and for other projects' detectors the descriptions ``yardstick.yaml`` and, sliced, ``sliced.yaml``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from apex_runtime.bundle.load import open_engine
from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.errors import DataError
from apex_runtime.evaluation.coco_ap import ImagePredictor, predict_results
from apex_runtime.fairness.contract import Contract
from apex_runtime.fairness.evidence import read_json
from apex_runtime.files import write_atomically
from apex_runtime.frontier.contenders import Contender, EngineContender, Wanted, YardstickContender
from apex_runtime.frontier.report import Setting, contract_of
from apex_runtime.yardsticks.description import is_yardstick
from apex_runtime.yardsticks.slicing import SlicedPredictor, Slicing
from apex_runtime.yardsticks.yardstick import Yardstick

LIMIT = 500  # detections that count per image
MIN_SCORE = 0.001
RUN_NAME = "run.json"
ALL = "all"  # the answer of what has no budget


@dataclass(frozen=True)
class Answer:
    """COCO results on the test images, and the terms under which they were made."""

    name: str
    results: list[dict[str, Any]]
    contract: Contract


def sahi(side: int) -> Slicing:
    """Windows as SAHI has them where scores below 0.1 are asked for."""
    return Slicing(side=side, match="iou", whole=True, within=True)


def answers_of(
    detector: Path, dataset: InstanceDataset, threads: int, budgets: tuple[str, ...], side: int | None = None
) -> Iterator[Answer]:
    """Of an engine of ours one per budget, of a yardstick one; with ``side`` also those of windows of so many pixels."""
    contender = opened(detector, threads)
    setting = Setting(dataset, len(dataset), ("bbox", "segm"), Wanted((), 0, MIN_SCORE, LIMIT), threads, 0, 0)
    terms = contract_of(contender, setting).model_copy(update={"timed": None})
    words = budgets if isinstance(contender, EngineContender) else ("1.0",)
    for budget in words:
        name = budget if isinstance(contender, EngineContender) else ALL
        yield Answer(name, _found(contender.predictor, dataset, budget), terms)
    if side is not None:
        said = f"{terms.postprocessing}; sliced side {side} overlap 0.2 iou 0.5 whole within"
        found = _found(SlicedPredictor(contender.predictor, sahi(side)), dataset, "1.0")
        yield Answer(f"sliced {side}", found, terms.model_copy(update={"postprocessing": said}))


def opened(detector: Path, threads: int) -> Contender:
    """An engine of ours, or the yardstick of a description."""
    if is_yardstick(detector):
        return YardstickContender(detector, Yardstick(detector, threads))
    return EngineContender(detector.stem, detector, open_engine(detector, threads), {}, sliced=False)


def _found(predictor: ImagePredictor, dataset: InstanceDataset, budget: str) -> list[dict[str, Any]]:
    return predict_results(predictor, dataset, budget, min_score=MIN_SCORE, max_detections=LIMIT, batch=1)


def write_yardstick(folder: Path, description: dict[str, Any], side: int | None) -> Path:
    """``yardstick.yaml``, and with ``side`` the same one sliced, for ``apex-rt bench frontier``."""
    path = folder / "yardstick.yaml"
    path.write_text(yaml.safe_dump(description, sort_keys=False))
    if side is not None:
        slicing = {"side": side, "match": "iou", "whole": True, "within": True}
        title = f"{description['title']}, sliced {side}"
        (folder / "sliced.yaml").write_text(yaml.safe_dump(description | {"title": title, "slicing": slicing}, sort_keys=False))
    return path


def write_run(folder: Path, facts: dict[str, Any], answers: Iterator[Answer]) -> None:
    """The answers, and last of all ``run.json``: a folder with it is complete."""
    listed = {}
    for answer in answers:
        name = f"answers-{answer.name.replace(' ', '-')}.json"
        write_atomically(folder / name, json.dumps(answer.results).encode())
        listed[answer.name] = {"file": name, "contract": answer.contract.model_dump(mode="json")}
    document = {"format_version": 1, "kind": "baseline-run"} | facts | {"answers": listed}
    write_atomically(folder / RUN_NAME, (json.dumps(document, indent=2) + "\n").encode())


def read_run(folder: Path) -> tuple[dict[str, Any], list[Answer]]:
    """``run.json`` and the answers. Raises DataError when the folder holds no complete run."""
    path = folder / RUN_NAME
    if not path.is_file():
        raise DataError(f"{folder}: no {RUN_NAME}.", "Run bench/baselines/run.py with this folder to its end.", path=folder)
    facts = read_json(path)
    if (facts.get("kind"), facts.get("format_version")) != ("baseline-run", 1):
        raise DataError(f"{path}: not of a run of bench/baselines/run.py.", "Make it again.", path=path)
    listed = [each["file"] for each in facts["answers"].values()]
    if any(Path(name).name != name for name in listed):
        raise DataError(f"{path}: names answers outside of its folder.", "Make it again.", path=path)
    answers = [
        Answer(name, json.loads((folder / each["file"]).read_text()), Contract.model_validate(each["contract"]))
        for name, each in facts["answers"].items()
    ]
    return facts, answers
