"""What Triton does with a repository, as far as its documents say it, in one process: for tests where there is no server.

``python_backend_utils`` is the module ``triton_python_backend_utils`` that Python models import: Tensor, requests, responses,
errors (https://github.com/triton-inference-server/python_backend#usage). ``Ensemble`` loads the models of a repository and takes
a request through their steps: types and shapes against the configurations, the batch put on and taken off as in
``ReshapeTensorDims`` of ``ensemble_scheduler.cc``, and the graph by ONNX Runtime.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
from google.protobuf import json_format

NUMPY = {"TYPE_UINT8": np.uint8, "TYPE_INT64": np.int64, "TYPE_FP32": np.float32, "TYPE_STRING": np.object_}


class Tensor:
    def __init__(self, name: str, array: np.ndarray) -> None:
        assert isinstance(array, np.ndarray)
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> np.ndarray:
        return self._array


class InferenceRequest:
    def __init__(self, inputs: list[Tensor], requested_output_names: list[str]) -> None:
        self._inputs, self._names = inputs, requested_output_names

    def inputs(self) -> list[Tensor]:
        return self._inputs

    def requested_output_names(self) -> list[str]:
        return self._names


class TritonError(Exception):
    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG = range(4)

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self._code = code

    def code(self) -> int:
        return self._code

    def message(self) -> str:
        return str(self)


class InferenceResponse:
    def __init__(self, output_tensors: list[Tensor] | None = None, error: TritonError | None = None) -> None:
        self.output_tensors, self.error = output_tensors or [], error


def get_input_tensor_by_name(request: InferenceRequest, name: str) -> Tensor | None:
    return next((tensor for tensor in request.inputs() if tensor.name() == name), None)


@contextmanager
def python_backend_utils() -> Iterator[None]:
    """The module under the name that models import it by."""
    module = ModuleType("triton_python_backend_utils")
    for item in (Tensor, InferenceRequest, InferenceResponse, TritonError, get_input_tensor_by_name):
        setattr(module, item.__name__, item)
    sys.modules[module.__name__] = module
    try:
        yield
    finally:
        del sys.modules[module.__name__]


class Ensemble:
    """The ensemble ``name`` of a repository, its models loaded."""

    def __init__(self, repository: Path, name: str) -> None:
        from apex_runtime.serving.triton_check import read_config

        self._repository = repository
        self.config = read_config(repository, name)
        self.steps = list(self.config.ensemble_scheduling.step)
        self.models = {step.model_name: self._load(read_config(repository, step.model_name)) for step in self.steps}

    def _load(self, config: Any) -> Any:
        folder = self._repository / config.name
        if config.backend == "python":
            return config, _python_model(folder, config)
        session = onnxruntime.InferenceSession(str(folder / "1" / config.default_model_filename))
        return config, session

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs. Raises TritonError of a step."""
        known = {name: _checked(self.config, self.config.input, name, array) for name, array in inputs.items()}
        batch = {name: len(array) for name, array in known.items()}
        for step in self.steps:
            config, model = self.models[step.model_name]
            optional = {item.name for item in config.input if item.optional}
            feeds = {
                name: _reshaped(config, name, known[source], batch[source])
                for name, source in step.input_map.items()
                if source in known or name not in optional
            }
            feeds = {name: _checked(config, config.input, name, array) for name, array in feeds.items()}
            found = _run(config, model, feeds, list(step.output_map))
            for name, made in step.output_map.items():
                known[made] = _checked(config, config.output, name, found[name])
                batch[made] = len(found[name]) if config.max_batch_size else 0
        return {item.name: _checked(self.config, self.config.output, item.name, known[item.name]) for item in self.config.output}


def _python_model(folder: Path, config: Any) -> Any:
    spec = importlib.util.spec_from_file_location(f"model_of_{folder.name}", folder / "1" / "model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.TritonPythonModel()
    text = json_format.MessageToJson(config, preserving_proto_field_name=True)
    model.initialize({"model_config": text, "model_repository": str(folder), "model_version": "1", "model_name": config.name})
    return model


def _run(config: Any, model: Any, feeds: dict[str, np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
    if config.backend != "python":
        return dict(zip(names, model.run(names, feeds), strict=True))
    request = InferenceRequest([Tensor(name, array) for name, array in feeds.items()], names)
    (response,) = model.execute([request])
    if response.error is not None:
        raise response.error
    return {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors}


def _reshaped(config: Any, name: str, array: np.ndarray, batch: int) -> np.ndarray:
    dims = next(tuple(item.dims) for item in config.input if item.name == name)
    if bool(config.max_batch_size) == bool(batch):
        return array
    if config.max_batch_size:
        return array[None] if _agree(dims, array.shape) else array
    return array[0] if not _agree(dims, array.shape) and batch == 1 else array


def _checked(config: Any, items: Any, name: str, array: np.ndarray) -> np.ndarray:
    item = next(item for item in items if item.name == name)
    dims = (-1, *item.dims) if config.max_batch_size else tuple(item.dims)
    kind = type(item).DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[item.data_type].name
    assert _agree(dims, array.shape), f"{config.name}.{name}: {array.shape}, configured {dims}"
    assert array.dtype == NUMPY[kind], f"{config.name}.{name}: {array.dtype}, configured {kind}"
    if config.max_batch_size:
        assert len(array) <= config.max_batch_size
    return array


def _agree(dims: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return len(dims) == len(shape) and all(side in (-1, size) for side, size in zip(dims, shape, strict=True))
