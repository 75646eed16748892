"""Weights of this network that come without their configuration: raw state dicts, and the wrappers of other code bases."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from apex_runtime.errors import ModelError, UsageError
from apex_runtime.model_info import Category
from apex_train.checkpoint import KeyReport, load_weights, read_checkpoint, state_dict_of
from apex_train.config import ModelSection
from apex_train.model.config import SIZES, ModelConfig
from apex_train.model.detector import ApexDetector


def is_foreign(path: Path) -> bool:
    """True for a checkpoint that does not say which network it is of. Raises ModelError when it cannot be read."""
    return "model_config" not in read_checkpoint(path)


def load_foreign(
    path: Path, section: ModelSection | None = None, class_names: Sequence[str] = (), strict: bool = True
) -> tuple[ApexDetector, KeyReport]:
    """The network whose weights these are, in evaluation mode, and which keys did not fit.

    Size, classes, widths and depth are read off the weights; ``tile``, ``halo``, ``max_detections`` and ``ratio``, which leave no
    trace in them, come from ``section`` or are the defaults. Raises ModelError when the weights are of another network
    (``strict``: when one is missing, unexpected or of another shape), UsageError when the names are not as many as the classes.
    """
    state = state_dict_of(read_checkpoint(path), path)
    model = ApexDetector(infer_config(state, path, section, class_names))
    report = load_weights(model, state)
    if strict and not report.fits:
        raise ModelError(f"{path}: weights do not fit the model: {report}.", "--no-strict takes those that do.", path=path)
    return model.eval(), report


def infer_config(
    state: dict[str, Tensor], path: Path, section: ModelSection | None = None, class_names: Sequence[str] = ()
) -> ModelConfig:
    """The architecture that weights of these shapes belong to. Raises ModelError, UsageError."""
    try:
        count, prototypes = len(state["heads.0.many.weight"]), len(state["heads.0.coefficients.weight"])
        heads, features = state["context.log_rate"].shape[1], len(state["peripheral.laterals.0.weight"])
        width = (len(state["context.scans.0.weight"]) - heads) // 2
    except (KeyError, IndexError) as error:
        raise ModelError(
            f"{path}: these are not weights of this network (no {error}).", "See docs/training.md.", path=path
        ) from error
    size = next((name for name, widths in SIZES.items() if widths["features"] == features), None)
    if size is None:
        raise ModelError(f"{path}: {features} feature channels are of no size that there is.", "See docs/training.md.", path=path)
    if class_names and len(class_names) != count:
        raise UsageError(f"--class-names: {len(class_names)} names for {count} classes.", "Give one per class, in their order.")
    names = class_names or [f"class {number}" for number in range(1, count + 1)]
    kept: dict[str, Any] = (section or ModelSection()).model_dump(include={"tile", "halo", "max_detections"})
    kept |= {"size": size, "prototypes": prototypes, "scan_heads": heads, "scan_state": width}
    kept["mask_quality"] = "heads.0.quality.weight" in state
    kept["depth"] = 1 + sum(re.fullmatch(r"finer_routers\.\d+\.score\.0\.weight", key) is not None for key in state)
    if section is not None and section.depth == kept["depth"]:
        kept["ratio"] = section.ratio
    try:
        return ModelConfig(classes=tuple(Category(id=number, name=name) for number, name in enumerate(names, start=1)), **kept)
    except ValidationError as error:
        raise ModelError(f"{path}: no such network: {error.errors()[0]['msg']}.", "See docs/training.md.", path=path) from error
