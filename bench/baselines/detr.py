"""A detector of the DETR family with masks, Mask2Former of ``transformers`` (Apache-2.0), in an environment that has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from apex_runtime.data.open import open_dataset
from baselines.answers import write_yardstick
from baselines.budget import ran
from baselines.trained import Task, Trained

CONFIG = Path(__file__).with_name("detr.yaml")
PROGRAM = Path(__file__).with_name("detr_program.py")
_VERSION = "import transformers, torch; print(f'transformers {transformers.__version__}, torch {torch.__version__}')"


def train(task: Task, python: Path) -> Trained:
    """Until the limit, by ``detr_program.py`` in the environment of ``python``; then its export."""
    folder = task.output / "fit"
    words = [python, PROGRAM, "train", task.data, "--config", CONFIG, "--cpu-seconds", f"{task.limit:.3f}", "--output", folder]
    words += ["--size", str(task.size), "--seed", str(task.seed), "--threads", str(task.threads)]
    words += ["--weights", task.weights] if task.weights else []
    seconds = ran(words, task.output / "fit.log", task.threads)
    model = task.output / "model.onnx"
    ran(
        [python, PROGRAM, "export", folder, "--size", str(task.size), "--output", model], task.output / "export.log", task.threads
    )
    names = [category.name for category in open_dataset(task.data, "train").categories]
    last = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    facts = {"epochs": last["epoch"] + 1, "steps": last["step"] + 1, "settings": CONFIG.name, "program": _version(python, task)}
    return Trained(write_yardstick(task.output, description(names), task.side), model, seconds, facts)


def description(names: list[str]) -> dict[str, Any]:
    """Of the graph that ``detr_network.Answering`` is; the mean and deviation are ``detr_network.MEAN`` and ``STD``."""
    outputs = {"form": "separate", "boxes": "boxes", "scores": "scores", "masks": "masks", "box": "xyxy", "unit": "normalised"}
    return {
        "title": "Mask2Former, small",
        "model": "model.onnx",
        "classes": names,
        "input": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "align": "top_left"},
        "outputs": outputs | {"score": "probability", "pick": "every", "cut_masks": False},
        "suppression": "none",
    }


def _version(python: Path, task: Task) -> str:
    log = task.output / "version.log"
    ran([python, "-c", _VERSION], log, task.threads)
    return log.read_text().strip().splitlines()[-1]
