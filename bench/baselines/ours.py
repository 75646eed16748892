"""Our own detector by the commands that everybody has: ``apex-train fit``, ``apex-train export``."""

from __future__ import annotations

import sys
from pathlib import Path

from apex_runtime.bundle.hashing import sha256_of
from apex_train.model.config import ModelConfig
from baselines.budget import ran, trained_within
from baselines.trained import Task, Trained

RECIPE = Path(__file__).with_name("ours.yaml")


def train(task: Task, recipe: Path, decode: str) -> Trained:
    """As many epochs of ``recipe`` as take nearest to the limit; the last weights are used, nothing is chosen on the way.

    A crop is half of ``task.size`` a side, in whole tiles, whatever the recipe says.
    """
    folder = task.output / "fit"
    epochs, seconds = trained_within(task.limit, lambda epochs, folder: _fit(task, recipe, epochs, folder), folder)
    model = task.output / "ours.onnx"
    words = (_program(), "export", folder / "last.pt", "-o", model, "--size", str(task.size), "--decode", decode)
    ran(words, task.output / "export.log", task.threads)
    return Trained(
        model, model, seconds, {"epochs": epochs, "recipe": recipe.name, "recipe_sha256": sha256_of(recipe), "decode": decode}
    )


def _fit(task: Task, recipe: Path, epochs: int, folder: Path) -> float:
    folder.parent.mkdir(parents=True, exist_ok=True)
    wanted = {"seed": task.seed, "size": task.size, "crop": crop_of(task.size), "workers": 0, "evaluate_every": epochs}
    words = [_program(), "fit", recipe, "--data", task.data, "--output", folder, "--epochs", str(epochs)]
    words += ["--no-report", "--threads", str(task.threads), *(["--init", task.weights] if task.weights else [])]
    words += [word for key, value in wanted.items() for word in ("--set", f"train.{key}={value}")]
    return ran(words, folder.with_name(f"{folder.name}.log"), task.threads)


def crop_of(size: int) -> int:
    """The side of a crop for images of ``size`` pixels a side: about half, a multiple of the tile."""
    tile = ModelConfig().tile
    return max(tile, size // 2 // tile * tile)


def _program() -> Path:
    return Path(sys.executable).with_name("apex-train")
