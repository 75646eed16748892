"""What an ONNX file must look like to be an Apex-X model, checked before any backend sees it.

The contract is DESIGN-level: three inputs and nine outputs (two and one more per finer level of tiles), one metadata record
(``ModelInfo``), weights inside the file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from apex_runtime.errors import ModelError, UsageError
from apex_runtime.model_info import METADATA_KEY, ModelInfo, input_names, output_names

if TYPE_CHECKING:
    import onnx

MAX_FILE_BYTES = 1 << 30  # protobuf itself stops at 2 GiB; ours are some MB
EXPORT_REMEDY = "Export one from a checkpoint: apex-train export best.pt -o model.onnx"

# A dimension: a number, or None where the contract asks for a run-time one.
Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: ``dtype`` as NumPy names it, ``shape`` with None for run-time dimensions."""

    name: str
    dtype: str
    shape: Shape

    def sized(self, batch: int, tiles: int) -> tuple[int, ...]:
        """The shape with its run-time dimensions filled in: the batch first, then the number of tiles of all levels."""
        found = (batch, tiles)
        return tuple(found[axis] if size is None else size for axis, size in enumerate(self.shape))


@dataclass(frozen=True)
class OnnxFile:
    """A file that fits the contract: its bytes, the parsed graph, its passport."""

    path: Path
    data: bytes
    model: onnx.ModelProto
    info: ModelInfo


def expected_inputs(info: ModelInfo) -> tuple[TensorSpec, ...]:
    """The inputs of a model with this passport; B is a run-time dimension."""
    images, *names = input_names(info.tiles.depth)
    levels = zip(names[::2], names[1::2], info.tiles.levels, strict=True)
    return (
        TensorSpec(images, "uint8", (None, info.input.height, info.input.width, 3)),
        *(
            spec
            for tiles, bonus, grid in levels
            for spec in (TensorSpec(tiles, "int64", (1,)), TensorSpec(bonus, "float32", (None, grid.count)))
        ),
    )


def expected_outputs(info: ModelInfo) -> tuple[TensorSpec, ...]:
    """The outputs of a model with this passport; B and K are run-time dimensions."""
    m, p, stride = info.max_detections, info.mask.channels, info.mask.stride
    utilities = [name for name in output_names(info.tiles.depth) if name.startswith("utilities")]
    return (
        TensorSpec("boxes", "float32", (None, m, 4)),
        TensorSpec("scores", "float32", (None, m)),
        TensorSpec("labels", "int64", (None, m)),
        TensorSpec("mask_coefficients", "float32", (None, m, p)),
        TensorSpec("mask_prototypes", "float32", (None, p, info.input.height // stride, info.input.width // stride)),
        TensorSpec("candidate_ids", "int64", (None, m)),
        TensorSpec("tile_ids", "int64", (None, None)),
        TensorSpec("tile_levels", "int64", (None, None)),
        *(TensorSpec(name, "float32", (None, grid.count)) for name, grid in zip(utilities, info.tiles.levels, strict=True)),
    )


def read_onnx(path: str | Path) -> OnnxFile:
    """Read and check an exported model; nothing runs. Raises UsageError without a file, ModelError for what does not fit."""
    path = Path(path)
    data, model = read_graph(path, EXPORT_REMEDY)
    info = _passport(path, model)
    inputs = graph_inputs(model)
    _compare(path, "input", inputs, expected_inputs(info), run_time_dims=True)
    _compare(path, "output", model.graph.output, expected_outputs(info), run_time_dims=False)
    return OnnxFile(path, data, model, info)


def read_graph(path: Path, remedy: str) -> tuple[bytes, onnx.ModelProto]:
    """The bytes and the graph of any ONNX file that has its weights inside. Raises UsageError without a file, ModelError."""
    data = _read_bytes(path, remedy)
    model = _parse(path, data, remedy)
    _refuse_external_data(path, model, remedy)
    return data, model


def graph_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """What must be fed; old files list their weights among the inputs."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in initializers]


def _read_bytes(path: Path, remedy: str) -> bytes:
    if not path.is_file():
        what = "a folder, expected an .onnx file" if path.is_dir() else "not a file" if path.exists() else "no such file"
        raise UsageError(f"{path}: {what}.", remedy, path=path)
    size = path.stat().st_size
    if size == 0:
        raise ModelError(f"{path}: the file is empty.", remedy, path=path)
    if size > MAX_FILE_BYTES:
        raise ModelError(
            f"{path}: {size / 2**30:.1f} GiB is more than a model may have ({MAX_FILE_BYTES / 2**30:.0f} GiB).",
            remedy,
            path=path,
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}).", "Check the file's permissions.", path=path) from error


def _parse(path: Path, data: bytes, remedy: str) -> onnx.ModelProto:
    import onnx

    try:
        model = onnx.ModelProto.FromString(data)
    except Exception as error:  # protobuf's DecodeError; protobuf is a dependency of onnx, not ours
        raise ModelError(f"{path}: not an ONNX file, or a damaged one.", remedy, path=path) from error
    if not model.graph.node:
        raise ModelError(f"{path}: not an ONNX model: it has no graph.", remedy, path=path)
    return model


def _passport(path: Path, model: onnx.ModelProto) -> ModelInfo:
    for prop in model.metadata_props:
        if prop.key == METADATA_KEY:
            return ModelInfo.from_json(prop.value, str(path))
    raise ModelError(
        f"{path}: not an Apex-X model: its metadata has no '{METADATA_KEY}' record.",
        f"Models of other programs cannot be run here. {EXPORT_REMEDY}",
        path=path,
    )


def _refuse_external_data(path: Path, model: onnx.ModelProto, remedy: str) -> None:
    """Weights in another file could point anywhere on the disk, and no hash of this file would cover them."""
    for tensor in model.graph.initializer:
        if tensor.external_data:
            raise ModelError(f"{path}: weight {tensor.name} is stored outside the file.", remedy, path=path)


def _compare(
    path: Path, kind: str, values: Iterable[onnx.ValueInfoProto], expected: tuple[TensorSpec, ...], *, run_time_dims: bool
) -> None:
    found = {value.name: value for value in values}
    wanted = [spec.name for spec in expected]
    if set(found) != set(wanted):
        raise ModelError(
            f"{path}: not an Apex-X model of this version: its {kind}s are {', '.join(found)}; expected {', '.join(wanted)}.",
            EXPORT_REMEDY,
            path=path,
        )
    for spec in expected:
        problem = _difference(found[spec.name], spec, run_time_dims)
        if problem:
            raise ModelError(f"{path}: {kind} {spec.name} {problem}.", EXPORT_REMEDY, path=path)


def _difference(value: onnx.ValueInfoProto, spec: TensorSpec, run_time_dims: bool) -> str:
    """What is wrong with one tensor, or an empty string. A symbolic dimension satisfies any number."""
    from onnx.helper import tensor_dtype_to_np_dtype

    tensor = value.type.tensor_type
    dtype = str(tensor_dtype_to_np_dtype(tensor.elem_type)) if tensor.elem_type else "none"
    if dtype != spec.dtype:
        return f"has type {dtype}, expected {spec.dtype}"
    dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    if len(dims) != len(spec.shape):
        return f"has {len(dims)} dimensions, expected {len(spec.shape)}"
    for axis, (found, wanted) in enumerate(zip(dims, spec.shape, strict=True)):
        if found is None or found == wanted:
            continue
        if wanted is not None:
            return f"has {found} at axis {axis}, its metadata says {wanted}"
        if run_time_dims:
            return f"is fixed to {found} at axis {axis}, where a run-time size is needed"
    return ""
