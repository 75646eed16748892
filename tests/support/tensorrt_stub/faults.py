"""Plants one fault in NVIDIA's registry, asks by what a graph that calls TilePack is to be built, and prints what comes of it.

Arguments: the fault, the folder of the model.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import as_tensorrt  # noqa: F401
import numpy as np
import onnx
import tensorrt as trt

from apex_runtime.backends.op_calls import op_calls
from apex_runtime.backends.plugin_use import check_before_load, choose_implementations
from apex_runtime.errors import BackendError

FIELDS = {"tile": trt.PluginFieldType.INT64, "halo": trt.PluginFieldType.INT64}


class Creator(trt.IPluginCreatorV3One):
    """A plugin of somebody else."""

    def __init__(self, version: str, namespace: str, fields: dict[str, Any]) -> None:
        trt.IPluginCreatorV3One.__init__(self)
        self.name, self.plugin_version, self.plugin_namespace = "TilePack", version, namespace
        self.field_names = trt.PluginFieldCollection([trt.PluginField(name, np.array([]), kind) for name, kind in fields.items()])


KEPT: list[Creator] = []  # the registry does not keep them alive


def plant(version: str = "1", namespace: str = "apex", **changes: Any) -> None:
    fields = {name: kind for name, kind in (FIELDS | changes).items() if kind is not None}
    KEPT.append(Creator(version, namespace, fields))
    assert trt.get_plugin_registry().register_creator(KEPT[-1], namespace)


FAULTS: dict[str, Callable[[], None]] = {
    "none": lambda: None,
    "fits": plant,
    "version": lambda: plant(version="2"),
    "namespace": lambda: plant(namespace="else"),
    "missing field": lambda: plant(halo=None),
    "foreign field": lambda: plant(pad=trt.PluginFieldType.INT32),
    "type of a field": lambda: plant(halo=trt.PluginFieldType.FLOAT32),
}


def outcome(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except BackendError as error:
        return {"code": error.code, "message": error.message, "remedy": error.remedy}


if __name__ == "__main__":
    FAULTS[sys.argv[1]]()
    calls = op_calls(onnx.load(sys.argv[2]))
    answers = {
        "load": outcome(lambda: [check_before_load(trt, call, "registry") for call in calls]),
        "build": outcome(lambda: [[use.implementation, use.reason] for use in choose_implementations(trt, calls)]),
    }
    json.dump(answers, sys.stdout)
