"""The ops of domain ``apex`` as the exporter sees them: torch overload -> one opaque node -> model-local function body."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import onnx
import torch
from onnxscript.values import Op, Opset

from apex_plugins.catalogue import FOLDERS
from apex_plugins.spec import DOMAIN, OpSpec

_FLOATS = ["tensor(float)", "tensor(float16)", "tensor(bfloat16)", "tensor(double)"]


@dataclass(frozen=True)
class OpFaces:
    """One op: its description, its torch overload (as it appears in an exported program) and its function body."""

    spec: OpSpec
    overload: Any
    function: onnx.FunctionProto


@cache
def load_ops() -> dict[str, OpFaces]:
    """Every op by its folder name. Importing the torch faces registers the custom ops."""
    ops = {}
    for folder in FOLDERS:
        spec = importlib.import_module(f"apex_plugins.{folder}.reference").SPEC
        importlib.import_module(f"apex_plugins.{folder}.torch_op")
        body = getattr(importlib.import_module(f"apex_plugins.{folder}.onnx_function"), spec.name)
        ops[folder] = OpFaces(spec, getattr(torch.ops.apex, folder).default, body.to_function_proto())
    return ops


def translation_table() -> dict[Any, Callable[..., Any]]:
    """For ``torch.onnx.export(custom_translation_table=...)``: each overload becomes one node without a body.

    The bodies are attached after the export: its version converter inlines every function it finds.
    """
    return {op.overload: _emitter(op.spec) for op in load_ops().values()}


def _emitter(spec: OpSpec) -> Callable[..., Any]:
    node = Op(Opset(DOMAIN, spec.version), spec.name, _schema(spec))
    names = tuple(spec.attributes)

    def emit(*arguments: Any, **named: Any) -> Any:
        inputs, values = arguments[: len(spec.inputs)], arguments[len(spec.inputs) :]
        given = dict(zip(names, values, strict=False)) | named
        attributes = {name: spec.attributes[name](given[name]) for name in names}
        return node(*inputs, **attributes, plugin_namespace=DOMAIN, plugin_version=str(spec.version))

    return emit


def _schema(spec: OpSpec) -> onnx.defs.OpSchema:
    """The exporter asks for a schema; it need not be registered."""
    schema = onnx.defs.OpSchema
    kinds = {int: schema.AttrType.INT, float: schema.AttrType.FLOAT}
    attributes = [schema.Attribute(name, kinds[kind], required=True) for name, kind in spec.attributes.items()]
    attributes += [schema.Attribute(name, schema.AttrType.STRING) for name in ("plugin_namespace", "plugin_version")]
    return schema(
        spec.name,
        DOMAIN,
        spec.version,
        inputs=[schema.FormalParameter(name, _type(kind)) for name, kind in spec.inputs.items()],
        outputs=[schema.FormalParameter(name, _type(kind)) for name, kind in spec.outputs.items()],
        type_constraints=[("T", _FLOATS, "")],
        attributes=attributes,
    )


def _type(kind: str) -> str:
    return "tensor(int64)" if kind == "int64" else "T"
