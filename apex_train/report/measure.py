"""The figures of a checkpoint on the held-out split: per budget, and with every tile off."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.evaluation.coco_ap import detection_limit
from apex_runtime.evaluation.sweep import SweepOptions, sweep
from apex_runtime.routing.budget import parse_budget
from apex_train.predictor import TorchSession

BUDGETS = ("0.25", "0.5", "1.0")
PASSES = len(BUDGETS) + 1  # over the images: one per budget, one without tiles
RESAMPLES = 1000
NO_TILES = "no tiles"
# What of a row holds for a session that computes the tiles and then ignores them: nothing about its time.
_WITHOUT_TILES = ("figures", "intervals", "per_class", "detections")

# images done, of all passes together
Progress = Callable[[int], None]


def measure(session: TorchSession, test: InstanceDataset, progress: Progress) -> dict[str, Any]:
    """``contract`` (what must be equal for two reports to be compared), ``timed`` (in words), ``budgets`` (rows of the sweep) and
    ``peripheral_only`` (a row without times). Raises DataError, ImageError, BackendError.
    """
    options = SweepOptions(bootstrap=RESAMPLES)
    budgets = [parse_budget(text) for text in BUDGETS]
    place = {budget.asked: number * len(test) for number, budget in enumerate(budgets)}
    rows = sweep(session, test, budgets, options, lambda asked, done: progress(place[asked] + done))
    # One tile, the least that the graph takes: with every tile gated off it changes nothing but the time.
    blind = copy.copy(session)
    blind.peripheral_only = True
    done_before = len(budgets) * len(test)
    row = sweep(blind, test, [parse_budget("1")], options, lambda _, done: progress(done_before + done))[0]
    none = {"budget": NO_TILES, "tiles_per_image": 0.0} | {key: row[key] for key in _WITHOUT_TILES if key in row}
    return {
        "contract": {
            "min_score": options.min_score,
            "max_detections": detection_limit(test.ground_truth()),
            "batch": options.batch,
            "threads": torch.get_num_threads(),
            "bootstrap": RESAMPLES,
            "input": [session.info.input.height, session.info.input.width],
            "precision": _precision(session),
        },
        "timed": _timed(session),
        "budgets": finite(rows),
        "peripheral_only": finite(none),
    }


def finite(value: Any) -> Any:
    """The value with None for every number that is not finite: an interval of a figure that nothing defines."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _precision(session: TorchSession) -> str:
    """GPUs since Ampere shorten the factors of float32 convolutions unless torch is told not to."""
    shortened = session.model.pixel_mean.device.type == "cuda" and torch.backends.cudnn.allow_tf32
    return "float32 with TF32 convolutions" if shortened else "float32"


def _timed(session: TorchSession) -> str:
    device, side = session.model.pixel_mean.device, session.info.input
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"the CPU with {torch.get_num_threads()} threads"
    return (
        f"torch {torch.__version__} on {where}, {_precision(session)}, one image of {side.height}x{side.width} at a time; "
        "network: with the copies to and from the device; image: everything from the file on the disk to the detections; an "
        "exported engine is another program and has other times"
    )
