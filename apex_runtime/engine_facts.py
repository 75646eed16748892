"""What is in an exported model or an engine bundle, read without running it: for ``apex-rt inspect``.

Schema: ``apex_runtime/schemas/inspect.schema.json``.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apex_runtime.backends.onnx_contract import EXPORT_REMEDY, OnnxFile, read_onnx
from apex_runtime.bundle.fp32_record import AgainstFp32
from apex_runtime.bundle.hashing import sha256_of
from apex_runtime.bundle.load import CHECKPOINT_SUFFIXES
from apex_runtime.bundle.manifest import MANIFEST_NAME, REBUILD, Manifest, is_bundle, read_manifest
from apex_runtime.bundle.precision import precision_report
from apex_runtime.bundle.verify import verify_artefacts
from apex_runtime.errors import BundleError, ModelError, UsageError
from apex_runtime.precision.regions import regions_of

if TYPE_CHECKING:
    import onnx

FACTS_FORMAT_VERSION = 1


def engine_facts(path: Path) -> dict[str, Any]:
    """The facts of a bundle folder or an ``.onnx`` file; the files of a bundle are compared with its manifest first.

    Raises UsageError (no such file, a checkpoint), ModelError, BundleError.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such engine.", "Give a bundle folder or a model.onnx.", path=path)
    if path.suffix.lower() in CHECKPOINT_SUFFIXES and path.is_file():
        raise UsageError(f"{path}: a checkpoint, and this shows exported models and bundles.", EXPORT_REMEDY, path=path)
    if path.is_dir():
        return _of_bundle(path)
    file = read_onnx(path)
    return _of_model(file) | {"bundle": None, "precision": _precision_of_graph(file)}


def _precision_of_graph(file: OnnxFile) -> dict[str, Any]:
    try:
        return precision_report(file.model, "fp32", {})
    except Exception as error:  # functions that are missing, types that contradict each other: onnx has no common error for them
        message = f"{file.path}: its graph contradicts itself ({str(error).strip()[:200]})."
        raise ModelError(message, EXPORT_REMEDY, path=file.path) from error


def _of_bundle(folder: Path) -> dict[str, Any]:
    if not is_bundle(folder):
        raise BundleError(f"{folder}: not an engine bundle, it has no {MANIFEST_NAME}.", REBUILD, path=folder)
    manifest = read_manifest(folder)
    verify_artefacts(folder, manifest)
    facts = _of_model(read_onnx(folder / _only(manifest, "model", folder)))
    precision = _read_precision(folder / _only(manifest, "precision", folder))
    return facts | {"bundle": _bundle(folder, manifest), "precision": precision}


def _read_precision(path: Path) -> dict[str, Any]:
    """The record of a bundle; the manifest vouches for its bytes, and nobody for the manifest."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        named = isinstance(found["profile"], str) and all(
            isinstance(node["precision"], str) and isinstance(node["count"], int) for node in found["nodes"]
        )
        named &= all(isinstance(item["region"], str) and isinstance(item["nodes"], dict) for item in found.get("regions", ()))
        AgainstFp32.model_validate(found["against_fp32"])
    except (ValueError, TypeError, KeyError, RecursionError):
        named = False
    if not named:
        raise BundleError(f"{path}: not a record of precisions.", REBUILD, path=path)
    return dict(found)


def _only(manifest: Manifest, role: str, folder: Path) -> str:
    found = manifest.find(role)
    if len(found) != 1:
        raise BundleError(f"{folder}: the manifest lists {len(found)} files of role {role}, expected one.", REBUILD, path=folder)
    return found[0].path


def _bundle(folder: Path, manifest: Manifest) -> dict[str, Any]:
    said = manifest.model_dump(mode="json")
    taken = ("backend", "backend_version", "precision", "compute_capabilities", "artefacts", "plugins", "tools", "build")
    return {"manifest_sha256": sha256_of(folder / MANIFEST_NAME), **{name: said[name] for name in taken}}


def _of_model(file: OnnxFile) -> dict[str, Any]:
    model, info = file.model, file.info
    passport = info.model_dump(mode="json")
    return {
        "format_version": FACTS_FORMAT_VERSION,
        "file": {"name": file.path.name, "bytes": len(file.data), "sha256": sha256_of(file.path)},
        "checkpoint_sha256": info.checkpoint_sha256 or None,
        "ir_version": model.ir_version,
        "opsets": {item.domain or "ai.onnx": item.version for item in model.opset_import},
        "inputs": [_tensor(value) for value in model.graph.input],
        "outputs": [_tensor(value) for value in model.graph.output],
        "ops": _ops(model.graph.node),
        "functions": _functions(model),
        "regions": _regions(model),
        "weights": _weights(model),
        "gflops": passport["gflops"] | {"all_tiles": info.gflops.base + info.tiles.count * info.gflops.per_tile},
        "tiles": passport["tiles"]
        | {"count": info.tiles.count, "levels": [[grid.rows, grid.cols, grid.side] for grid in info.tiles.levels]},
        **{name: passport[name] for name in ("classes", "input", "preprocessing", "mask", "max_detections", "decode")},
    }


def _tensor(value: onnx.ValueInfoProto) -> dict[str, Any]:
    from onnx.helper import tensor_dtype_to_np_dtype

    tensor = value.type.tensor_type
    shape = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim]
    return {"name": value.name, "dtype": str(tensor_dtype_to_np_dtype(tensor.elem_type)), "shape": shape}


def _ops(nodes: Iterable[onnx.NodeProto]) -> list[dict[str, Any]]:
    """Nodes by op, those in the branches and loops of others included, the most frequent first."""
    counts = Counter((node.domain or "ai.onnx", node.op_type) for node in _every(nodes))
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"domain": domain, "op": op, "count": count} for (domain, op), count in ordered]


def _every(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _every(graph.node)


def _functions(model: onnx.ModelProto) -> list[dict[str, Any]]:
    """Ops that the file defines itself: how often the graph or another function calls each, and what each consists of."""
    bodies = [model.graph.node, *(function.node for function in model.functions)]
    calls = Counter((node.domain, node.op_type) for body in bodies for node in _every(body))
    return [
        {
            "domain": function.domain,
            "name": function.name,
            "calls": calls[function.domain, function.name],
            "nodes": sum(1 for _ in _every(function.node)),
            "ops": _ops(function.node),
        }
        for function in model.functions
    ]


def _regions(model: onnx.ModelProto) -> list[dict[str, Any]]:
    """Parts of the network with the number of their nodes, in the order of the graph; none where the nodes have no names."""
    try:
        counts = Counter(regions_of(model).values())
    except ModelError:
        return []
    return [{"region": region, "nodes": count} for region, count in counts.items()]


def _weights(model: onnx.ModelProto) -> dict[str, Any]:
    """Stored tensors of the graph: how many, how many numbers, how many bytes, and bytes by type."""
    import onnx

    by_type: Counter[str] = Counter()
    for tensor in model.graph.initializer:
        by_type[onnx.TensorProto.DataType.Name(tensor.data_type).lower()] += len(tensor.raw_data) or tensor.ByteSize()
    sizes = dict(sorted(by_type.items()))
    numbers = sum(math.prod(tensor.dims) for tensor in model.graph.initializer)
    return {"tensors": len(model.graph.initializer), "numbers": numbers, "bytes": sum(sizes.values()), "bytes_by_type": sizes}
