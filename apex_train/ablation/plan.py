"""From a study to its cells (one combination of levels with one seed) and to the trainings that they need.

Cells that differ only in how the network is measured share a training. Everything is named by a digest of what it depends on, so
that a study to which seeds or levels are added finds what was done, and one whose configuration changed does not.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from apex_runtime.bundle.hashing import sha256_of
from apex_runtime.errors import ConfigError
from apex_train.ablation.study import EVALUATE, EvaluateSection, Level, Study
from apex_train.config import FitConfig, load_config

_DIGITS = 16
# Every arm trains to its end, and nothing is selected on the split that it is measured on: the last weights count.
_WHOLE_BUDGET = {"train.metric": "auto", "train.patience": 0, "train.keep_epochs": 0}


@dataclass(frozen=True)
class Cell:
    """``levels``: the name of the level of every factor, in their order; ``key`` names the cell in the journal."""

    levels: tuple[str, ...]
    seed: int
    evaluation: EvaluateSection
    key: str


@dataclass(frozen=True)
class Training:
    """A training and the cells that measure it; ``key`` names its folder."""

    key: str
    config: FitConfig
    cells: tuple[Cell, ...]


def plan(study: Study, data_sha256: str, init_sha256: str | None = None) -> tuple[Training, ...]:
    """All trainings, seed by seed, so that a study that is stopped early has whole pairs.

    ``init_sha256`` is that of the checkpoint which the arms start from.

    Raises ConfigError for a level that the configuration refuses, one that changes nothing, and a file that cannot be read.
    """
    grouped: dict[str, tuple[FitConfig, list[Cell]]] = {}
    known: dict[str, Cell] = {}
    start = {} if init_sha256 is None else {"init": init_sha256}
    for seed in study.seeds:
        for levels in arms(study):
            config, evaluation = _settings(study, levels, seed)
            training = _digest({"config": config.learned(), "data": data_sha256} | start | _weights(config))
            measured = {"split": study.split, "metric": study.metric, "evaluation": _looks(evaluation)}
            names = tuple(level.name for level in levels)
            cell = Cell(names, seed, evaluation, _digest({"training": training} | measured))
            _check_differs(study, cell, known.setdefault(cell.key, cell))
            grouped.setdefault(training, (config, []))[1].append(cell)
    return tuple(Training(key, config, tuple(cells)) for key, (config, cells) in grouped.items())


def arms(study: Study) -> Iterator[tuple[Level, ...]]:
    """The combinations of levels: all, or the references and each other level on its own."""
    if study.design == "full":
        yield from itertools.product(*(factor.levels for factor in study.factors))
        return
    reference = tuple(factor.levels[0] for factor in study.factors)
    yield reference
    for place, factor in enumerate(study.factors):
        for level in factor.levels[1:]:
            yield (*reference[:place], level, *reference[place + 1 :])


def _weights(config: FitConfig) -> dict[str, str]:
    """What the file of sample weights holds, where there is one: its name says nothing about it. Raises ConfigError."""
    if config.train.sample_weights is None:
        return {}
    path = Path(config.train.sample_weights)
    try:
        return {"sample_weights": sha256_of(path)}
    except OSError as error:
        raise ConfigError(
            f"train.sample_weights: {path}: {error.strerror}.", "Name a file of apex-train mine.", path=path
        ) from error


def _looks(evaluation: EvaluateSection) -> dict[str, Any]:
    """What is looked at: with all tiles, whoever would choose."""
    return evaluation.model_dump() | ({"choice": "router"} if evaluation.all_tiles else {})


def _check_differs(study: Study, cell: Cell, first: Cell) -> None:
    if cell is not first:
        place = next(place for place, (own, other) in enumerate(zip(cell.levels, first.levels, strict=True)) if own != other)
        factor, pair = study.factors[place].name, f"{first.levels[place]} and {cell.levels[place]}"
        message = f"{factor}: {pair} train and measure the same thing."
        remedy = (
            "Leave one out; keys that change nothing that is learned are no factors, nor is choice with a budget of all tiles."
        )
        raise ConfigError(message, remedy)


def _settings(study: Study, levels: tuple[Level, ...], seed: int) -> tuple[FitConfig, EvaluateSection]:
    chosen = dict(study.set)
    for level in levels:
        chosen |= level.set
    own = {"train.seed": seed, "train.epochs": study.epochs, "train.dataset_type": study.dataset_type} | _WHOLE_BUDGET
    evaluate = {key.removeprefix(EVALUATE): value for key, value in chosen.items() if key.startswith(EVALUATE)}
    training = {key: value for key, value in chosen.items() if not key.startswith(EVALUATE)}
    where = ", ".join(f"{factor.name} = {level.name}" for factor, level in zip(study.factors, levels, strict=True))
    try:
        evaluation = EvaluateSection.model_validate(study.evaluate.model_dump() | evaluate)
        config = load_config(study.base, training | own)
        _check_possible(study, config, evaluation)
        return config, evaluation
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.message}", error.remedy, path=error.path) from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(("evaluate", *map(str, first["loc"])))
        known = ", ".join(EvaluateSection.model_fields)
        raise ConfigError(f"{where}: {key}: {first['msg']}.", f"Keys of evaluate are {known}.") from error


def _check_possible(study: Study, config: FitConfig, evaluation: EvaluateSection) -> None:
    """What each alone may be, but not together. Raises ConfigError."""
    if config.train.only == "router" and study.init is None:
        raise ConfigError("train.only: router would leave all other weights random.", "Give a trained network as init.")
    if config.model.depth > 1 and evaluation.choice != "router" and not evaluation.all_tiles:
        message = f"evaluate.choice: {evaluation.choice} chooses tiles of one level, and model.depth is {config.model.depth}."
        raise ConfigError(message, "Leave the choice to the router, or set model.depth to 1.")


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:_DIGITS]
