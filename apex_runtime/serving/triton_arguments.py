"""What the Python models of a Triton repository read when they begin."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from apex_runtime.model_info import ModelInfo
from apex_runtime.serving.settings import ServingSettings, parse_settings

INFO_FILE = "model-info.json"
SETTINGS = "serving"


@dataclass(frozen=True)
class TritonModel:
    """The passport of the graph, the settings of the export, and the names of the tensors of this model."""

    info: ModelInfo
    settings: ServingSettings
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def opened(args: dict[str, str]) -> TritonModel:
    """``args``: the argument of ``TritonPythonModel.initialize``. Raises ModelError, ConfigError, OSError."""
    config = json.loads(args["model_config"])
    file = Path(args["model_repository"]) / args["model_version"] / INFO_FILE
    return TritonModel(
        ModelInfo.from_json(file.read_text(encoding="utf-8"), str(file)),
        parse_settings(json.loads(config["parameters"][SETTINGS]["string_value"]), f"{args['model_name']}: parameter {SETTINGS}"),
        tuple(item["name"] for item in config["input"]),
        tuple(item["name"] for item in config["output"]),
    )
