"""A teacher's labels for the images without any, as a file; done when the account of it lies beside."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from apex_runtime.bundle.load import open_engine
from apex_runtime.cli.progress import counter
from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.errors import DataError
from apex_runtime.fairness.evidence import read_json
from apex_runtime.pipeline.predictor import Predictor
from apex_runtime.pipeline.results import write_json
from apex_train.pseudo.calibrate import calibrate
from apex_train.pseudo.run import Choice, Labelling, model_facts
from apex_train.selftrain.pool import Pool
from apex_train.selftrain.setting import Setting

LABELS, ACCOUNT = "labels.json", "labelling.json"


class Stopped(Exception):
    """The wish to stop was granted between two images."""


def label(
    teacher: Path, pool: Pool, val: InstanceDataset | None, setting: Setting, folder: Path, device: str, stop: threading.Event
) -> dict[str, Any]:
    """Write ``LABELS`` and ``ACCOUNT`` into ``folder``, unless they are there; the account.

    It has the ``seconds`` that the labelling took and its ``report`` (pseudo-label.schema.json). Raises Stopped when ``stop`` is
    set, DataError for a damaged account and when no label passes the limits or no limits reach the precision.
    """
    done = folder / ACCOUNT
    if done.is_file():
        return read_json(done)
    started = time.perf_counter()
    opened = open_engine(teacher, setting.threads, device, size=setting.config.train.letterbox)
    predictor = Predictor(opened.session)
    labelling = Labelling(predictor, pool.pictures, _choice(predictor, val, setting, stop), model_facts(opened))
    with counter(len(pool.pictures.items), "label") as progress:
        labelling.run(_unless(stop, progress))
    report = labelling.report()
    if not report["labels"]:
        unread = labelling.failures
        lost = f" {len(unread)} cannot be read; the first: {unread[0].reason}" if unread else ""
        message = f"{teacher}: none of its {report['candidates']} detections in the unlabelled images passed the limits.{lost}"
        raise DataError(message, "Lower them (--min-score, --min-stability, ...), or train more before the first round.")
    write_json(folder / LABELS, scaled(labelling.document(), setting.pseudo_weight))
    account = {"seconds": round(time.perf_counter() - started, 1), "report": report}
    write_json(done, account)
    return account


def _choice(predictor: Predictor, val: InstanceDataset | None, setting: Setting, stop: threading.Event) -> Choice:
    """As it was asked for, or with limits for the precision that was asked for."""
    if setting.precision is None:
        return setting.choice
    assert val is not None  # asked before the first round
    with counter(len(val), "calibrate") as progress:
        found = calibrate(predictor, val, setting.choice.views, setting.precision, _unless(stop, progress))
    return replace(setting.choice, limits=found.limits, calibration=found.facts())


def _unless(stop: threading.Event, progress: Callable[[int, int], None]) -> Callable[[int, int], None]:
    def tell(done: int, failed: int) -> None:
        if stop.is_set():
            raise Stopped
        progress(done, failed)

    return tell


def scaled(document: dict[str, Any], factor: float) -> dict[str, Any]:
    """The COCO file of pseudo labels with every weight multiplied by ``factor``, and its provenance saying so."""
    info = document["info"]
    entries = [entry | ({"weight": entry["weight"] * factor} if "weight" in entry else {}) for entry in document["annotations"]]
    said = info | {"apex_x": info["apex_x"] | {"pseudo_weight": factor}}
    return document | {"info": said, "annotations": entries}
