"""A graph that gives the same numbers for every image: what a yardstick makes of them can be worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

Size = tuple[int | str, int | str]


def write_graph(
    path: Path,
    outputs: Mapping[str, np.ndarray],
    size: Size = (64, 96),
    *,
    kind: int = TensorProto.FLOAT,
    inputs: Mapping[str, tuple[int | str, ...]] | None = None,
) -> Path:
    """An ONNX file with these outputs, batch axis included. ``inputs``: names and shapes instead of one NCHW image."""
    given = inputs or {"images": (1, 3, *size)}
    nodes = [helper.make_node("Constant", [], [name], value=numpy_helper.from_array(a)) for name, a in outputs.items()]
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for name, a in outputs.items()
    ]
    taken = [helper.make_tensor_value_info(name, kind, shape) for name, shape in given.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "fixed", taken, values), ir_version=9, opset_imports=[helper.make_opsetid("", 20)]
    )
    onnx.save(model, path)
    return path


def write_yardstick(folder: Path, description: Mapping[str, Any], outputs: Mapping[str, np.ndarray], **graph: Any) -> Path:
    """``fixed.onnx`` with these outputs, and the description that names it; its path."""
    write_graph(folder / "fixed.onnx", outputs, **graph)
    path = folder / "fixed.yaml"
    path.write_text(yaml.safe_dump({"title": "fixed", "model": "fixed.onnx", **description}, sort_keys=False))
    return path
