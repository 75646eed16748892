"""From the traced detector to one ONNX model: export, attach the function bodies, leave out what names this machine."""

from __future__ import annotations

import contextlib
import copy
import importlib.metadata
import logging
import platform
import re
import warnings
from collections.abc import Iterator
from typing import Any

import onnx
import onnx_ir
import torch

from apex_plugins.spec import DOMAIN
from apex_runtime.model_info import METADATA_KEY, ModelInfo, input_names, output_names
from apex_train.export.fold import fold_norms
from apex_train.export.ops import load_ops, translation_table
from apex_train.export.wrapper import DeployedDetector
from apex_train.model.detector import ApexDetector

OPSET = 20
MAX_BATCH = 1024
SCOPE_KEY = (
    "pkg.torch.onnx.name_scopes"  # metadata of a node: its module path, outermost first; later passes select regions by it
)
_TOOLS = ("apex-x", "torch", "onnx", "onnxscript")


def tool_versions() -> dict[str, str]:
    """Versions of what makes an export, for its metadata."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in _TOOLS}}


def trace_detector(model: ApexDetector, info: ModelInfo) -> onnx.ModelProto:
    """The ONNX model of ``model`` as ``info`` describes it: dynamic batch, run-time K, functions attached, metadata written."""
    wrapped = DeployedDetector(copy.deepcopy(model).float().cpu(), info.decode)
    fold_norms(wrapped)
    size = info.input
    images = torch.zeros(2, size.height, size.width, 3, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    levels = [(torch.tensor([min(2, grid.count)]), torch.zeros(2, grid.count)) for grid in info.tiles.levels]
    tiles, bonus, *finer = (item for level in levels for item in level)
    shapes: dict[str, Any] = {"images": {0: batch}, "tiles": {}, "tile_bonus": {0: batch}}
    if finer:
        shapes["finer"] = tuple({} if item.ndim == 1 else {0: batch} for item in finer)
    with _quiet():
        program = torch.onnx.export(
            wrapped,
            (images, tiles, bonus, *finer),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(input_names(info.tiles.depth)),
            output_names=list(output_names(info.tiles.depth)),
            dynamic_shapes=shapes,
            custom_translation_table=translation_table(),
            optimize=True,
            verbose=False,
        )
    assert program is not None
    _attach_functions(program.model)
    result = onnx_ir.serde.serialize_model(program.model)
    _strip(result, info.tiles.depth)
    onnx.helper.set_model_props(result, {METADATA_KEY: info.to_json()})
    return result


def _attach_functions(model: onnx_ir.Model) -> None:
    """Bodies come last: the exporter's version converter inlines every function that it finds."""
    used = {node.op_type for node in model.graph if node.domain == DOMAIN}
    for op in load_ops().values():
        if op.spec.name in used:
            body = onnx_ir.serde.deserialize_function(op.function)
            model.functions[body.identifier()] = body
            model.opset_imports[DOMAIN] = op.spec.version


def _strip(model: onnx.ModelProto, depth: int) -> None:
    """Keep the module scopes; drop stack traces and the like, which hold paths of this machine; name the run-time sizes ``k``,
    ``k_1`` and so on, one a level."""
    model.producer_name, model.doc_string, model.graph.doc_string = "apex-x", "", ""
    for node in model.graph.node:
        scopes = [prop for prop in node.metadata_props if prop.key == SCOPE_KEY]
        del node.metadata_props[:]
        node.metadata_props.extend(scopes)
        node.doc_string = ""
    del model.graph.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        del value.metadata_props[:]
    for value in (*model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            for level in range(depth) if dim.dim_param else ():
                dim.dim_param = re.sub(rf"\bu{level}\b", f"k_{level}" if level else "k", dim.dim_param)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns about torchvision, training mode of containers and axis names: nothing a user could act on."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
