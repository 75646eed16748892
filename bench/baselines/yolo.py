"""YOLO11n-seg by the program of ultralytics, in an environment of its own: it is AGPL-3.0, and nothing of it is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from yolo_text import write_description, write_split

from apex_runtime.data.open import open_dataset, recognise, split_names
from baselines.answers import write_yardstick
from baselines.budget import ran, trained_within
from baselines.trained import Task, Trained

SETTINGS = Path(__file__).with_name("yolo-seg.yaml")
DESCRIPTION = Path(__file__).resolve().parents[1] / "yardsticks" / "ultralytics-seg.yaml"


def train(task: Task, program: Path) -> Trained:
    """As many epochs as take nearest to the limit, then its own export; the last weights are used."""
    description, names = _as_text(task.data, task.output / "yolo")
    folder = task.output / "fit"
    epochs, seconds = trained_within(task.limit, lambda epochs, folder: fit(program, description, task, epochs, folder), folder)
    detector = exported(program, folder, task, names)
    facts = {"epochs": epochs, "settings": settings(), "program": said_version(program, task)}
    return Trained(detector, task.output / "model.onnx", seconds, facts)


def fit(program: Path, description: Path, task: Task, epochs: int, folder: Path) -> float:
    """Train into ``folder`` on a ``data.yaml``, and return the seconds of a processor that it took."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    wanted: dict[str, Any] = settings() | {"data": description.resolve(), "epochs": epochs, "imgsz": task.size, "seed": task.seed}
    wanted |= {"project": folder.resolve().parent, "name": folder.name, "exist_ok": True}
    wanted |= {"model": task.weights} if task.weights else {"pretrained": False}
    words = [program, "segment", "train", *(f"{key}={value}" for key, value in wanted.items())]
    return ran(words, folder.with_name(f"{folder.name}.log"), task.threads)


def exported(program: Path, folder: Path, task: Task, names: Sequence[str]) -> Path:
    """The last weights of ``folder`` as ``model.onnx`` in the output, and the path of its description."""
    weights = folder / "weights" / "last.pt"
    words = [program, "export", f"model={weights.resolve()}", "format=onnx", f"imgsz={task.size}", "device=cpu"]
    ran(words, task.output / "export.log", task.threads)
    weights.with_suffix(".onnx").replace(task.output / "model.onnx")
    wanted = yaml.safe_load(DESCRIPTION.read_text())
    return write_yardstick(task.output, wanted | {"model": "model.onnx", "classes": list(names)}, task.side)


def settings() -> dict[str, Any]:
    """What differs from the program's own defaults."""
    return dict(yaml.safe_load(SETTINGS.read_text()))


def said_version(program: Path, task: Task) -> str:
    """The last word of ``yolo version``."""
    log = task.output / "version.log"
    ran([program, "version"], log, task.threads)
    return f"ultralytics {log.read_text().split()[-1]}"


def _as_text(data: Path, folder: Path) -> tuple[Path, tuple[str, ...]]:
    """The splits that a training sees as YOLO text; the program measures on val at the end, which decides nothing here."""
    splits = [split for split in ("train", "val") if split in split_names(data, recognise(data).kind)]
    datasets = {split: open_dataset(data, split) for split in splits}
    for split, dataset in datasets.items():
        write_split(folder / split, dataset)
    names = tuple(category.name for category in datasets["train"].categories)
    return write_description(folder, "train/images", f"{splits[-1]}/images", names, str(folder.resolve())), names
