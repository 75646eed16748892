"""The frontier as a JSON document. Schema: ``apex_runtime/schemas/frontier.schema.json``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np

from apex_runtime.benchmark.ratios import quotient
from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.evaluation.coco_matching import default_backend
from apex_runtime.fairness.contract import Contract, Hardware, differences, library_versions, of_engine
from apex_runtime.frontier.choices import Line
from apex_runtime.frontier.contenders import ALL, YARDSTICK, Contender, EngineContender, Wanted
from apex_runtime.frontier.figures import Sampled, as_json, interval
from apex_runtime.frontier.measure import Times
from apex_runtime.machine import machine, versions
from apex_runtime.parity.subjects import identify

FORMAT_VERSION = 1
CLOCK = "image: from pixels in memory to COCO results; graph: its calls; all lines in turn on one image, second of two calls"
ORDER = ("peripheral", "router", "all tiles", "random", "coverage", "dense", "sliced", "yardstick")


@dataclass(frozen=True)
class Setting:
    """What was asked of all: see ``apex-rt bench frontier``."""

    dataset: InstanceDataset
    images: int
    kinds: tuple[str, ...]
    wanted: Wanted
    threads: int | None
    rounds: int
    resamples: int

    @cached_property
    def data_sha256(self) -> str:
        """The fingerprint of the data set: it reads every annotation file, and every contender's contract names it."""
        return self.dataset.fingerprint()


@dataclass(frozen=True)
class Outcome:
    """What came out for one contender."""

    contender: Contender
    sampled: Sampled
    times: dict[Line, Times]


def document(setting: Setting, outcomes: Sequence[Outcome], status: dict[str, Any]) -> dict[str, Any]:
    """The answer; ``status``: circumstances before and after."""
    contracts = [contract_of(each.contender, setting) for each in outcomes]
    return {
        "format_version": FORMAT_VERSION,
        "kind": "frontier",
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": {
            "split": setting.dataset.split,
            "images": setting.images,
            "of": len(setting.dataset),
            "fingerprint": setting.data_sha256,
        },
        "asked": {
            "budgets": [budget.asked for budget in setting.wanted.budgets],
            "seeds": setting.wanted.seeds,
            "rounds": setting.rounds,
            "resamples": setting.resamples,
            "kinds": list(setting.kinds),
            "threads": setting.threads,
        },
        "timed": CLOCK,
        "contenders": [
            _contender(each, contract, contracts[0], outcomes[0]) for each, contract in zip(outcomes, contracts, strict=True)
        ],
        "circumstances": {"machine": machine(), "versions": versions()} | status,
    }


def _contender(outcome: Outcome, contract: Contract, first: Contract, leading: Outcome) -> dict[str, Any]:
    lines = sorted(outcome.sampled, key=_place)
    return {
        "title": outcome.contender.title,
        "subject": _subject(outcome.contender),
        "fairness": contract.model_dump(mode="json"),
        "contract_sha256": contract.sha256(),
        "differences": {name: list(pair) for name, pair in differences(first, contract).items()},
        "rows": [_row(line, outcome, _measure_of(leading)) for line in lines],
        "samples": {
            str(line): {"image": _rounded(each.image), "graph": _rounded(each.graph)} for line, each in outcome.times.items()
        },
    }


def _subject(contender: Contender) -> dict[str, Any]:
    if isinstance(contender, EngineContender):
        opened = contender.opened
        own = {"kind": "engine", "file_name": contender.path.name, "model_sha256": opened.digest, "executed": opened.executed}
        return own | ({"twins": {line.kind: twin.digest for line, twin in contender.twins.items()}} if contender.twins else {})
    facts = contender.yardstick.facts
    return {
        "kind": "yardstick",
        "file_name": contender.path.name,
        "model_sha256": facts.model_sha256,
        "executed": facts.backend,
        "description_sha256": facts.description_sha256,
    }


def _place(line: Line) -> tuple[int, float, int]:
    from apex_runtime.routing.budget import parse_budget

    return ORDER.index(line.kind), parse_budget(line.budget).value if line.budget else 0.0, -1 if line.seed is None else line.seed


def _measure_of(leading: Outcome) -> Times:
    """What times are measured by: all tiles of the first detector, or its one mark."""
    return leading.times[ALL if ALL in leading.times else YARDSTICK]


def _row(line: Line, outcome: Outcome, measure: Times) -> dict[str, Any]:
    """A forced choice of tiles costs what the router's choice of as many does.

    ``relative``: time of an image over that of ``measure``, paired within a round: medians alone jump about on a busy machine.
    """
    same = Line("router", line.budget) if line.budget else line
    times, tiles = outcome.times[same], outcome.contender.tiles.get(same)
    return {
        "line": line.kind,
        "budget": line.budget,
        "seed": line.seed,
        "tiles": None if tiles is None else round(float(np.mean(tiles)), 3),
        "image_ms": round(float(np.median(times.image)), 3),
        "graph_ms": round(float(np.median(times.graph)), 3),
        "relative": quotient(times.image, measure.image),
        **{name: as_json(interval(values)) for name, values in outcome.sampled[line].items()},
    }


def _rounded(milliseconds: Sequence[float]) -> list[float]:
    return [round(value, 4) for value in milliseconds]


def contract_of(contender: Contender, setting: Setting) -> Contract:
    """How this contender was measured."""
    common: dict[str, Any] = {
        "data": setting.data_sha256,
        "split": setting.dataset.split,
        "images": setting.images,
        "min_score": setting.wanted.min_score,
        "max_detections": setting.wanted.limit,
        "evaluator": default_backend(),
        "batch": 1,
        "threads": setting.threads,
        "timed": CLOCK,
    }
    if isinstance(contender, EngineContender):
        return of_engine(contender.opened, precision=identify(contender.path).precision, **common)
    facts = contender.yardstick.facts
    return Contract(
        input=facts.size,
        image_policy=facts.resize,
        postprocessing=facts.postprocessing,
        precision=facts.precision,
        device="cpu",
        hardware=Hardware.here(),
        versions=library_versions(),
        **common,
    )
