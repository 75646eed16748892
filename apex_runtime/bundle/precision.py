"""``precision.json`` of a bundle: in which precision each part of the graph computes, and why; read off the graph itself."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apex_runtime.bundle.fp32_record import IDENTICAL, AgainstFp32
from apex_runtime.precision.pinned import PINNED

if TYPE_CHECKING:
    import onnx

    from apex_runtime.precision.convert import Converted
    from apex_runtime.precision.sensitivity import Sensitivity

PRECISION_FORMAT_VERSION = 1
_REASONS = {
    "float32": "as exported: the fp32 profile changes nothing",
    "unknown": "shape inference does not reach this node's output",
}
_CHOSEN_REASONS = (
    _REASONS
    | {
        "float32": "kept: graph_nodes says why for each node",
        "float16": "converted: graph_nodes names the nodes",
    }
    | {
        codes: "codes of eight bits: graph_nodes says who reads them, and their range"
        for codes in ("uint8", "int8", "int32", "float8_e4m3fn")
    }
)


def precision_report(
    model: onnx.ModelProto,
    profile: str,
    plan_notes: dict[str, str],
    converted: Converted | None = None,
    against: AgainstFp32 = IDENTICAL,
    sensitivity: Sensitivity | None = None,
) -> dict[str, Any]:
    """Nodes per op and type of their first output, function bodies counted as what runs; weights per type; notes on single plans.

    Grouped by op because every node of an fp32 build has the same story; accuracy against fp32 is identity by construction. A
    pass has a story for every node, ``converted``: it is told node by node and summed up by region; ``against`` is what a
    comparison with the exported graph found, ``sensitivity`` by what the rounded regions were chosen.
    """
    import onnx
    from onnx import inliner, shape_inference
    from onnx.helper import tensor_dtype_to_np_dtype

    flat = shape_inference.infer_shapes(inliner.inline_local_functions(model))
    types = {value.name: value.type.tensor_type.elem_type for value in (*flat.graph.value_info, *flat.graph.output)}

    def name_of(elem_type: int) -> str:
        return str(tensor_dtype_to_np_dtype(elem_type)) if elem_type else "unknown"

    nodes = Counter((node.op_type, name_of(types.get(node.output[0], onnx.TensorProto.UNDEFINED))) for node in flat.graph.node)
    reasons = _CHOSEN_REASONS if converted else _REASONS
    weights = Counter(name_of(tensor.data_type) for tensor in flat.graph.initializer)
    return (
        {
            "format_version": PRECISION_FORMAT_VERSION,
            "profile": profile,
            "nodes": [
                {"op": op, "precision": precision, "count": count, "reason": reasons.get(precision, "index or shape arithmetic")}
                for (op, precision), count in sorted(nodes.items())
            ],
            "weights": dict(sorted(weights.items())),
            "plan_notes": plan_notes,
            "against_fp32": against.to_record(),
        }
        | (_story(converted) if converted else {})
        | ({"sensitivity": sensitivity.model_dump(mode="json")} if sensitivity else {})
    )


def _story(converted: Converted) -> dict[str, Any]:
    """What a pass decided: its calibration, regions with the number of nodes per precision, and every node of the graph."""
    regions: dict[str, Counter[str]] = {}
    for item in converted.decisions:
        regions.setdefault(item.region, Counter())[item.precision] += 1
    return {
        "calibration": {"method": converted.calibration.method, "images": converted.calibration.images},
        "regions": [
            {"region": region, "pinned": PINNED.get(region), "nodes": dict(counts)} for region, counts in regions.items()
        ],
        "graph_nodes": [asdict(item) for item in converted.decisions],
    }


def read_precision(path: Path) -> tuple[AgainstFp32, Sensitivity | None]:
    """What a ``precision.json`` that was just written says of fp32, and of the choice of regions, if there was one. Raises what a
    record that is none raises: OSError, ValueError."""
    from apex_runtime.precision.sensitivity import Sensitivity

    record = json.loads(path.read_text(encoding="utf-8"))
    chosen = record.get("sensitivity")
    return AgainstFp32.model_validate(record["against_fp32"]), chosen and Sensitivity.model_validate(chosen)
