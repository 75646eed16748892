"""A fairness contract with values that nobody measured under."""

from __future__ import annotations

from typing import Any

from apex_runtime.fairness.contract import Contract, Hardware


def made_contract(**changed: Any) -> Contract:
    """The contract with some fields changed."""
    fields: dict[str, Any] = {
        "data": "1" * 64,
        "split": "test",
        "images": 6,
        "input": (512, 512),
        "image_policy": "letterbox",
        "min_score": 0.001,
        "max_detections": 100,
        "postprocessing": "none",
        "evaluator": "pycocotools",
        "precision": "fp32",
        "batch": 1,
        "threads": 2,
        "device": "cpu",
        "timed": "one call",
        "hardware": Hardware(processor="a processor", usable_cpus=2, gpus=()),
        "versions": {"numpy": "2.0", "onnxruntime": "1.22"},
    }
    return Contract(**(fields | changed))
