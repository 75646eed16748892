"""Whether a Triton repository is whole, without a server: every configuration against Triton's own definitions, the graph against
its file, the steps of the ensemble against each other.

The rules for tensors between models are those of Triton's ``ensemble_utils.cc``: equal types, and dimensions that agree with the
batch or without it, where -1 agrees with any.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apex_runtime.errors import ModelError
from apex_runtime.serving.triton_protobuf import model_config

_AGAIN = "Write it again: apex-rt export-server BUNDLE --for triton -o FOLDER"
_NUMPY = {"TYPE_UINT8": "uint8", "TYPE_INT64": "int64", "TYPE_FP32": "float32"}
Dims = tuple[int, ...]


def check_repository(folder: Path, name: str) -> list[str]:
    """Check the ensemble ``name`` in ``folder`` and the models that it calls; their names.

    Raises ModelError, MissingPackageError.
    """
    ensemble = read_config(folder, name)
    steps = list(ensemble.ensemble_scheduling.step)
    if not steps:
        raise _broken(folder / name, "it is no ensemble")
    models = {step.model_name: read_config(folder, step.model_name) for step in steps}
    for model in models.values():
        _check_files(folder / model.name, model)
        _check_warm_up(folder / model.name, model)
    _check_steps(folder / name, ensemble, models)
    return [name, *models]


def read_config(folder: Path, name: str) -> Any:
    """The parsed ``config.pbtxt`` of a model. Raises ModelError for what Triton's definitions do not have."""
    from google.protobuf import text_format

    path = folder / name / "config.pbtxt"
    try:
        config = text_format.Parse(path.read_text(encoding="utf-8"), model_config())
    except (OSError, ValueError, text_format.ParseError) as error:
        raise _broken(path, str(error)) from error
    if config.name != name:
        raise _broken(path, f"its name is {config.name!r}, its folder's {name!r}")
    return config


def _check_files(folder: Path, config: Any) -> None:
    version = folder / "1"
    if config.backend == "python":
        _check_python(version / "model.py")
        return
    files = {config.default_model_filename, *config.cc_model_filenames.values()}
    missing = sorted(file for file in files if not (version / file).is_file())
    if missing:
        raise _broken(version, f"{missing[0]} is missing")
    if config.backend == "onnxruntime":
        _check_graph(version / config.default_model_filename, config)


def _check_python(path: Path) -> None:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError) as error:
        raise _broken(path, str(error)) from error
    found = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    if "TritonPythonModel" not in found:
        raise _broken(path, "it has no class TritonPythonModel")


def _check_graph(path: Path, config: Any) -> None:
    """Names, types and dimensions of the ONNX file against those of the configuration."""
    import onnx

    from apex_runtime.backends.onnx_contract import graph_inputs

    model = onnx.load(path, load_external_data=False)
    for kind, values, items in (
        ("input", graph_inputs(model), config.input),
        ("output", list(model.graph.output), config.output),
    ):
        declared = {item.name: (_type(item), _full(item, config.max_batch_size)) for item in items}
        actual = {value.name: _of_value(value) for value in values}
        if set(declared) != set(actual):
            raise _broken(path, f"{kind}s {sorted(actual)}, the configuration has {sorted(declared)}")
        for name, (dtype, dims) in actual.items():
            if declared[name][0] != dtype or not _agree(declared[name][1], dims):
                raise _broken(path, f"{kind} {name}: {dtype} {dims}, the configuration has {declared[name]}")


def _of_value(value: Any) -> tuple[str, Dims]:
    from onnx import helper

    tensor = value.type.tensor_type
    dims = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim)
    return np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name, dims


def _type(item: Any) -> str:
    name = _type_name(item)
    return _NUMPY.get(name, name)


def _type_name(item: Any) -> str:
    return str(type(item).DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[item.data_type].name)


def _full(item: Any, max_batch: int) -> Dims:
    return (-1, *item.dims) if max_batch else tuple(item.dims)


def _agree(one: Dims, other: Dims) -> bool:
    return len(one) == len(other) and all(a == b or -1 in (a, b) for a, b in zip(one, other, strict=True))


def _check_warm_up(folder: Path, config: Any) -> None:
    inputs = {item.name: item for item in config.input}
    for sample in config.model_warmup:
        if set(sample.inputs) != {name for name, item in inputs.items() if not item.optional}:
            raise _broken(folder, f"the warm-up has inputs {sorted(sample.inputs)}")
        for name, given in sample.inputs.items():
            if not _agree(tuple(given.dims), tuple(inputs[name].dims)) or given.data_type != inputs[name].data_type:
                raise _broken(folder, f"warm-up {name}: {_type(given)} {list(given.dims)}")
            if given.input_data_file:
                _check_size(folder / "warmup" / given.input_data_file, given)


def _check_size(path: Path, given: Any) -> None:
    expected = int(np.prod(given.dims)) * np.dtype(_type(given)).itemsize
    if not path.is_file() or path.stat().st_size != expected:
        raise _broken(path, f"expected {expected} bytes")


def _check_steps(path: Path, ensemble: Any, models: dict[str, Any]) -> None:
    """Every tensor is made before it is read, by one model, and means the same to all."""
    known = {item.name: (item, ensemble) for item in ensemble.input}
    for step in ensemble.ensemble_scheduling.step:
        model = models[step.model_name]
        if 0 < model.max_batch_size < ensemble.max_batch_size:
            raise _broken(
                path, f"{model.name} takes batches of {model.max_batch_size}, the ensemble of {ensemble.max_batch_size}"
            )
        _check_map(path, model.name, step.input_map, model.input, complete=True)
        _check_map(path, model.name, step.output_map, model.output, complete=False)
        for item in (item for item in model.input if item.name in step.input_map):
            _compare(path, known, step.input_map[item.name], item, model)
        for item in (item for item in model.output if item.name in step.output_map):
            made = step.output_map[item.name]
            if made in known:
                raise _broken(path, f"{made} is made twice")
            known[made] = (item, model)
    for item in ensemble.output:
        _compare(path, known, item.name, item, ensemble)


def _check_map(path: Path, model: str, mapped: Iterable[str], items: Sequence[Any], complete: bool) -> None:
    names = {item.name for item in items}
    wrong = set(mapped) ^ names if complete else set(mapped) - names
    if wrong:
        raise _broken(path, f"{sorted(wrong)[0]} of {model} is not mapped as it is declared")


def _compare(path: Path, known: dict[str, tuple[Any, Any]], name: str, item: Any, model: Any) -> None:
    if name not in known:
        raise _broken(path, f"{model.name} reads {name} before anything makes it")
    made, maker = known[name]
    same = _agree(tuple(made.dims), tuple(item.dims))
    if made.data_type != item.data_type or not (
        same or _agree(_full(made, maker.max_batch_size), _full(item, model.max_batch_size))
    ):
        said = f"{_type(made)} {list(made.dims)} of {maker.name}, {_type(item)} {list(item.dims)} of {model.name}"
        raise _broken(path, f"{name}: {said}")
    if getattr(made, "optional", False) and not getattr(item, "optional", False):
        raise _broken(path, f"{name} may be missing, and {model.name} needs it")


def _broken(path: Path, cause: str) -> ModelError:
    return ModelError(f"{path}: {cause}.", _AGAIN, path=path)
