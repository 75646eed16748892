"""Registers every plugin with NVIDIA's registry and asks it what TensorRT would ask while it builds; JSON in, JSON out.

Input: a file with a list of {folder, types: one per input, inputs: [[size, fixed], ...] per input, attributes}. A size that is
not fixed is known at run time only, as the batch and the number of tiles are.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import as_tensorrt  # noqa: F401
import numpy as np
import tensorrt as trt
from sizes import Builder, Size

from apex_plugins.catalogue import FOLDERS, specs

MODULES = {folder: importlib.import_module(f"apex_plugins.{folder}.trt_plugin") for folder in FOLDERS}
# The real ones take only what a real builder makes.
trt.DimsExprs = lambda length: [None] * length
trt.plugin._tensor.SymExprImpl = lambda size: SimpleNamespace(dtype=type(size), expr=size._expr)
TYPES = {"float32": trt.float32, "float16": trt.float16, "bfloat16": trt.bfloat16, "int64": trt.int64}
NAMES = {value: key for key, value in TYPES.items()}


def creators() -> list[dict[str, Any]]:
    return [
        {
            "name": creator.name,
            "namespace": creator.plugin_namespace,
            "version": creator.plugin_version,
            "fields": {field.name: field.type.name for field in creator.field_names},
        }
        for creator in trt.get_plugin_registry().all_creators
    ]


def answers(case: dict[str, Any]) -> dict[str, Any]:
    """What the plugin of one case says: types and shapes of its outputs, type combinations, and the launch."""
    spec = specs()[case["folder"]]
    plugin = created(spec, case["attributes"])
    types = [TYPES[name] for name in case["types"]]
    sizes = [[Size(*size) for size in shape] for shape in case["inputs"]]
    out_types = plugin.get_output_data_types(types, [len(shape) for shape in sizes])
    shapes = plugin.get_output_shapes(sizes, [], Builder())
    in_out = [described(kind, shape) for kind, shape in zip([*types, *out_types], [*sizes, *shapes], strict=True)]
    combinations = plugin.get_supported_format_combinations(in_out, len(sizes))
    plugin.configure_plugin(in_out[: len(sizes)], in_out[len(sizes) :])
    rows = [combinations[start : start + len(in_out)] for start in range(0, len(combinations), len(in_out))]
    return {
        "types": [NAMES[kind] for kind in out_types],
        "shapes": [list(map(int, shape)) for shape in shapes],
        "combinations": [[NAMES[item.type] for item in row] for row in rows],
        "launch": launched(plugin, sizes, in_out),
    }


def created(spec: Any, attributes: dict[str, Any]) -> Any:
    """A plugin as the ONNX parser makes it: integers as int64, floats as float32."""
    registry = trt.get_plugin_registry()
    kinds = {int: (np.int64, trt.PluginFieldType.INT64), float: (np.float32, trt.PluginFieldType.FLOAT32)}
    fields = []
    for name, kind in spec.attributes.items():
        dtype, field_type = kinds[kind]
        fields.append(trt.PluginField(name, np.array([attributes[name]], dtype), field_type))
    creator = registry.get_creator(spec.name, "1", "apex")
    request = trt.QuickPluginCreationRequest.STRICT_AOT
    return creator.create_plugin(spec.name, "apex", trt.PluginFieldCollection(fields), trt.TensorRTPhase.BUILD, request)


def described(kind: Any, shape: list[Size]) -> Any:
    desc = trt.DynamicPluginTensorDesc()
    inner = trt.PluginTensorDesc()
    inner.dims = tuple(int(size) if size.fixed else -1 for size in shape)
    inner.type, inner.format = kind, trt.TensorFormat.LINEAR
    desc.desc = inner
    return desc


def launched(plugin: Any, sizes: list[list[Size]], in_out: list[Any]) -> dict[str, Any]:
    launch, extra = SimpleNamespace(), Extra()
    plugin.set_tactic(0)
    plugin.get_launch_params(sizes, in_out, len(sizes), launch, extra, Builder())
    count = len(sizes)
    name, ptx = plugin.get_kernel([item.desc for item in in_out[:count]], [item.desc for item in in_out[count:]])
    return {
        "kernel": name,
        "grid": [int(getattr(launch, f"grid_{axis}").expr) for axis in "xyz"],
        "block": [int(getattr(launch, f"block_{axis}").expr) for axis in "xyz"],
        "shared": int(launch.shared_mem.expr),
        "extra": [int(item.expr) for item in extra.values],
        "parameters": parameters(ptx.decode(), name),
    }


class Extra:
    """Stands for ``ISymExprs``."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.nbSymExprs = 0

    def __setitem__(self, index: int, value: Any) -> None:
        assert index == len(self.values) < self.nbSymExprs and issubclass(value.dtype, trt.plugin.SymInt32)
        self.values.append(value)


def parameters(ptx: str, kernel: str) -> list[str]:
    """The types of an entry point's parameters in PTX: u64 is a pointer, u32 an integer, f32 a float."""
    entry = re.search(rf"\.entry {kernel}\((.*?)\)", ptx, re.DOTALL)
    assert entry is not None, f"the PTX has no {kernel}"
    return re.findall(r"\.param \.(\w+)", entry[1])


if __name__ == "__main__":
    cases = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    implementations = {folder: module.IMPLEMENTATION for folder, module in MODULES.items()}
    json.dump({"creators": creators(), "implementations": implementations, "answers": list(map(answers, cases))}, sys.stdout)
