"""The two graphs of a search, read and checked like any model from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from apex_runtime.backends.onnx_contract import OnnxFile, read_onnx
from apex_runtime.bundle.hashing import sha256_of
from apex_runtime.bundle.manifest import read_manifest
from apex_runtime.bundle.verify import model_of, verify_artefacts
from apex_runtime.errors import UsageError
from apex_runtime.parity.run import info_differences
from apex_runtime.parity.subjects import Kind, check_size, identify
from apex_runtime.parity.tolerance import Floating

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Side:
    """One graph, the digest of its file, and what it computes in."""

    file: OnnxFile
    sha256: str
    precision: Floating


def open_sides(reference: Path, candidate: Path, size: tuple[int, int] | None = None) -> tuple[Side, Side]:
    """Reference and candidate, each an ONNX file or a bundle; ``size`` is refused, since both have one.

    Raises UsageError for a checkpoint or a recording, for eight bits and for models of different kinds; ModelError, BundleError.
    """
    subjects = identify(reference), identify(candidate)
    check_size(*subjects, size)
    first, second = (_open(subject.path, subject.kind) for subject in subjects)
    other = info_differences(first.file.info, second.file.info)
    if other:
        raise UsageError(
            f"{candidate}: not the same model: {'; '.join(other)}.", "Compare two forms of one model.", path=candidate
        )
    return first, second


def _open(path: Path, kind: Kind) -> Side:
    if kind == "recording":
        raise UsageError(f"{path}: --bisect needs a graph, a recording has none.", "Name what was recorded.", path=path)
    if kind == "checkpoint":
        raise UsageError(
            f"{path}: --bisect needs a graph, a checkpoint has none.",
            f"Export it first: apex-train export {path.name} -o model.onnx",
            path=path,
        )
    model = _model_in(path) if kind == "bundle" else path
    file = read_onnx(model)
    return Side(file, sha256_of(model), _precision(file))


def _model_in(bundle: Path) -> Path:
    manifest = read_manifest(bundle)
    verify_artefacts(bundle, manifest)
    return model_of(bundle, manifest)


def _precision(file: OnnxFile) -> Floating:
    """What the graph itself says: float16 or bfloat16 where a weight or a cast is."""
    from onnx import TensorProto

    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in file.model.graph.node):
        raise UsageError(
            f"{file.path}: --bisect does not judge eight bits: inside the graph nothing says how much noise is right.",
            "Bisect the float graph that it was made from; parity without --bisect compares eight bits.",
            path=file.path,
        )
    types = _types(file.model)
    return "bf16" if TensorProto.BFLOAT16 in types else "fp16" if TensorProto.FLOAT16 in types else "fp32"


def _types(model: onnx.ModelProto) -> set[int]:
    casts = {item.i for node in model.graph.node if node.op_type == "Cast" for item in node.attribute if item.name == "to"}
    return casts | {tensor.data_type for tensor in model.graph.initializer}
