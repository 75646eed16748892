"""``write_report``: at the end of a run its best checkpoint is measured on the held-out split, once, and everything is written.

``report.json`` (schema ``apex_runtime/schemas/report.schema.json``) holds the figures, ``report.md`` is for reading, ``report/``
has the curves and the pictures. Figures of val chose the checkpoint and are never called test figures; without a split test
nothing is measured, and the report says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.errors import ApexError
from apex_runtime.files import write_atomically
from apex_runtime.pipeline.predictor import Predictor
from apex_runtime.pipeline.results import write_json
from apex_train.checkpoint import file_sha256, load_model
from apex_train.config import FitConfig
from apex_train.model.detector import ApexDetector
from apex_train.predictor import TorchSession
from apex_train.report import facts, pictures
from apex_train.report.curves import write_curves
from apex_train.report.markdown import as_markdown
from apex_train.report.matching import MIN_IOU, MIN_SCORE
from apex_train.report.measure import BUDGETS, PASSES, finite, measure

if TYPE_CHECKING:
    from rich.console import Console

FORMAT_VERSION = 1
REPORT_JSON, REPORT_MD, FOLDER, CURVES = "report.json", "report.md", "report", "curves.png"
_SPLIT_FACTS = ("dataset_type", "split", "images", "fingerprint")


def write_report(
    output: Path,
    config: FitConfig,
    history: Sequence[dict[str, Any]],
    metric: str,
    data: dict[str, dict[str, Any]],
    test: InstanceDataset | None,
    device: torch.device,
    console: Console,
) -> Path:
    """Measure ``output/best.pt`` on ``test`` and write the report of the run into ``output``; returns ``report.md``.

    ``history``: the log, a dict per epoch; ``metric``: the figure of val that chose best.pt, empty when none did; ``data``: what
    is known of the splits it was trained and chosen on. Raises ModelError when there is no best.pt that can be read (nothing is
    written), and DataError, ImageError or BackendError when ``test`` cannot be measured: the report is written before, and says
    why it has no figures.
    """
    checkpoint = output / "best.pt"
    model = load_model(checkpoint).to(device)
    report = _head(checkpoint, model, config, history, metric, data, test, device)
    panels = write_curves(history, metric, output / FOLDER / CURVES)
    report["curves"] = {"file": f"{FOLDER}/{CURVES}" if panels else None, "panels": panels}
    failure: ApexError | None = None
    try:
        report["test"] = _test(model, config.train.letterbox, test, output / FOLDER, console)
    except ApexError as error:
        failure = error
        report["test"] = _not_measured(f"it could not be measured: {facts.without_paths(error.message)}")
    write_json(output / REPORT_JSON, report)
    write_atomically(output / REPORT_MD, as_markdown(report).encode())
    if failure is not None:
        raise failure
    return output / REPORT_MD


def _head(
    checkpoint: Path,
    model: ApexDetector,
    config: FitConfig,
    history: Sequence[dict[str, Any]],
    metric: str,
    data: dict[str, dict[str, Any]],
    test: InstanceDataset | None,
    device: torch.device,
) -> dict[str, Any]:
    """Everything that needs no measurement."""
    splits = {name: {key: split[key] for key in _SPLIT_FACTS if key in split} for name, split in data.items()}
    if test is not None:
        splits["test"] = dict(zip(_SPLIT_FACTS, (test.kind, test.split, len(test), test.fingerprint()), strict=True))
    return {
        "format_version": FORMAT_VERSION,
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "checkpoint": {
            "file": checkpoint.name,
            "sha256": file_sha256(checkpoint),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "classes": [category.name for category in model.config.classes],
        },
        "selection": selection(history, metric),
        "training": _training(config, history),
        "data": splits,
        "code": facts.code(),
        "versions": facts.versions(),
        "device": facts.device_facts(device),
        "config": config.model_dump(mode="json"),
    }


def selection(history: Sequence[dict[str, Any]], metric: str) -> dict[str, Any]:
    """Which epoch best.pt is and by what: the first with the best usable value, else the newest (``metric`` None)."""
    values = [(line[metric], line["epoch"]) for line in history if _usable(line.get(metric), metric)]
    if not values:
        return {"metric": None, "split": None, "value": None, "epoch": history[-1]["epoch"] if history else None}
    sign = -1 if metric == "val_loss" else 1
    value, epoch = max(values, key=lambda item: (sign * item[0], -item[1]))
    return {"metric": metric, "split": "val", "value": value, "epoch": epoch}


def _usable(value: Any, metric: str) -> bool:
    """-1 is an AP that nothing defines."""
    return isinstance(value, int | float) and math.isfinite(value) and (metric == "val_loss" or value >= 0)


def _training(config: FitConfig, history: Sequence[dict[str, Any]]) -> dict[str, Any]:
    last = history[-1] if history else {}
    return finite(
        {
            "epochs": len(history),
            "epochs_planned": config.train.epochs,
            "steps": last.get("step"),
            "bad_steps": last.get("bad_steps"),
            "seconds": round(sum(line.get("seconds") or 0 for line in history), 1),
        }
    )


def _not_measured(reason: str) -> dict[str, Any]:
    return {"measured": False, "reason": reason}


def _test(
    model: ApexDetector, letterbox: tuple[int, int], test: InstanceDataset | None, folder: Path, console: Console
) -> dict[str, Any]:
    """The figures and pictures of the held-out split, or the reason why there are none."""
    from apex_runtime.cli.progress import counter

    if test is None:
        return _not_measured("the data set has no split test")
    objects = sum(int((~test.instances(index).crowd).sum()) for index in range(len(test)))
    if not objects:
        return _not_measured("its split test has no object")
    budgets = ", ".join(BUDGETS)
    console.print(f"report: best.pt on {len(test)} test images at budgets {budgets} and without tiles", highlight=False)
    with counter(len(test) * (PASSES + 1), "report") as progress:
        session = TorchSession(model, *letterbox)
        figures = measure(session, test, lambda done: progress(done, 0))
        by_mask = figures["budgets"][-1]["figures"].get("mAP_segm", -1) >= 0
        judge = pictures.Judge(Predictor(session), test, by_mask)
        ranked = []
        for item in judge.rank():
            ranked.append(item)
            progress(len(test) * PASSES + len(ranked), 0)
    unknown = sorted({item.name for item in test.categories} - {item.name for item in model.config.classes})
    shown = pictures.write_pictures(judge, ranked, folder)
    score = {"name": "F1", "min_score": MIN_SCORE, "min_iou": MIN_IOU, "overlap": "mask" if by_mask else "box"}
    counts = {"images": len(test), "objects": objects, "unknown_classes": unknown}
    return (
        {"measured": True, "reason": None} | counts | figures | {"pictures": {"score": score, "budget": pictures.BUDGET} | shown}
    )
