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

import onnx
import onnx_ir
import torch

from apex_plugins.spec import DOMAIN
from apex_runtime.model_info import INPUT_NAMES, METADATA_KEY, OUTPUT_NAMES, ModelInfo
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
    size, count = info.input, info.tiles.count
    images = torch.zeros(2, size.height, size.width, 3, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    with _quiet():
        program = torch.onnx.export(
            wrapped,
            (images, torch.tensor([min(2, count)]), torch.zeros(2, count)),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(INPUT_NAMES),
            output_names=list(OUTPUT_NAMES),
            dynamic_shapes={"images": {0: batch}, "tiles": {}, "tile_bonus": {0: batch}},
            custom_translation_table=translation_table(),
            optimize=True,
            verbose=False,
        )
    assert program is not None
    _attach_functions(program.model)
    result = onnx_ir.serde.serialize_model(program.model)
    _strip(result)
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


def _strip(model: onnx.ModelProto) -> None:
    """Keep the module scopes; drop stack traces and the like, which hold paths of this machine; name the run-time size ``k``."""
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
            if dim.dim_param:
                dim.dim_param = re.sub(r"\bu0\b", "k", dim.dim_param)


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
