"""The configurations (``config.pbtxt``) of the four models of a Triton repository, as plain values of Triton's ModelConfig.

    NAME                 ensemble: image or pixels, budget -> boxes, scores, labels, category_ids, class_names, masks, spent
    NAME_preprocess      Python: decode, letterbox, budget to K
    NAME_graph           ONNX Runtime or TensorRT: the graph
    NAME_postprocess     Python: boxes and masks in pixels of the image

One image per request: all but the graph have a batch of at most 1. The graph under ONNX Runtime is batched by Triton over
requests of equal K (``triton_graph``). A TensorRT plan has ``tiles`` as a shape tensor with one number for its batch, and Triton
has no way to batch by that: its configuration has no batch dimension, and requests go through one by one.

Reference: https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from apex_runtime.backends.onnx_contract import TensorSpec, expected_inputs, expected_outputs
from apex_runtime.model_info import ModelInfo
from apex_runtime.serving.answer import OUTPUTS
from apex_runtime.serving.request import BUDGET, IMAGE, INPUTS, PIXELS
from apex_runtime.serving.settings import ServingSettings
from apex_runtime.serving.triton_graph import slot_names

TYPES = {"uint8": "TYPE_UINT8", "int64": "TYPE_INT64", "float32": "TYPE_FP32"}
_PROTOCOL = {"BYTES": "TYPE_STRING", "FP32": "TYPE_FP32", "INT64": "TYPE_INT64"}
SOURCE_SIZE = "source_size"
POSTPROCESSED = ("boxes", "scores", "labels", "mask_coefficients", "mask_prototypes", "tile_ids", "tile_levels")
MODEL_FILE = "model.onnx"

Config = dict[str, Any]


@dataclass(frozen=True)
class TritonOptions:
    """``max_batch`` and ``delay_us``: of the dynamic batcher of the graph. ``instances`` of the graph, ``helpers`` of each Python
    model. ``gpu``: where the graph runs. ``plans``: compute capability ("8.9", or empty) and file of each TensorRT plan; none
    for ONNX Runtime.
    """

    max_batch: int = 8
    delay_us: int = 2000
    instances: int = 1
    helpers: int = 2
    gpu: bool = False
    plans: tuple[tuple[str, str], ...] = ()


def model_names(name: str) -> tuple[str, str, str]:
    """The names of the models that the ensemble calls, in order."""
    return f"{name}_preprocess", f"{name}_graph", f"{name}_postprocess"


def configs(name: str, info: ModelInfo, settings: ServingSettings, options: TritonOptions) -> dict[str, Config]:
    """The four configurations by the names of their models."""
    first, graph, last = model_names(name)
    found = [
        _preprocess(first, info, settings, options),
        _graph(graph, info, settings, options),
        _postprocess(last, info, settings, options),
        _ensemble(name, info, options),
    ]
    return {config["name"]: config for config in found}


def graph_inputs(info: ModelInfo, options: TritonOptions) -> list[TensorSpec]:
    """The inputs of the graph in the repository, with the batch."""
    if options.plans:
        return list(expected_inputs(info))
    slots = slot_names(info)
    specs = expected_inputs(info)
    return [TensorSpec(slots[spec.name], "uint8", (None, None)) if spec.name in slots else spec for spec in specs]


def _preprocess(name: str, info: ModelInfo, settings: ServingSettings, options: TritonOptions) -> Config:
    prepared = [_without_batch(spec) for spec in graph_inputs(info, options)]
    outputs = [*prepared, _tensor(SOURCE_SIZE, "TYPE_INT64", [2])]
    return _python(name, _request(), outputs, options.helpers, {"serving": settings.model_dump_json()}) | {
        "dynamic_batching": {"default_queue_policy": _queue_policy(settings)}
    }


def _postprocess(name: str, info: ModelInfo, settings: ServingSettings, options: TritonOptions) -> Config:
    needed = [_without_batch(spec) for spec in expected_outputs(info) if spec.name in POSTPROCESSED]
    inputs = [*needed, _tensor(SOURCE_SIZE, "TYPE_INT64", [2])]
    return _python(name, inputs, _answer(), options.helpers, {"serving": settings.model_dump_json()})


def _graph(name: str, info: ModelInfo, settings: ServingSettings, options: TritonOptions) -> Config:
    shaped = _as_it_is if options.plans else _without_batch
    inputs = [shaped(spec) for spec in graph_inputs(info, options)]
    found: Config = {
        "name": name,
        "backend": "tensorrt" if options.plans else "onnxruntime",
        "max_batch_size": 0 if options.plans else options.max_batch,
        "input": [_shape_tensor(each) if options.plans else each for each in inputs],
        "output": [shaped(spec) for spec in expected_outputs(info)],
        "instance_group": [{"count": options.instances, "kind": "KIND_GPU" if options.gpu else "KIND_CPU"}],
        "dynamic_batching": {
            "max_queue_delay_microseconds": 0 if options.plans else options.delay_us,
            "default_queue_policy": _queue_policy(settings),
        },
    }
    if options.plans:
        by_capability = {capability: file for capability, file in options.plans if capability}
        return found | {"cc_model_filenames": by_capability, "default_model_filename": options.plans[0][1]}
    threads = {} if options.gpu else {"intra_op_thread_count": {"string_value": str(settings.threads)}}
    return found | {"default_model_filename": MODEL_FILE, "parameters": threads}


def _ensemble(name: str, info: ModelInfo, options: TritonOptions) -> Config:
    first, graph, last = model_names(name)
    feeds = _same(spec.name for spec in graph_inputs(info, options))
    found = {each: f"graph_{each}" for each in POSTPROCESSED}  # boxes of the graph are not those of the answer
    size = _same([SOURCE_SIZE])
    steps = [
        _step(first, _same(INPUTS), feeds | size),
        _step(graph, feeds, found),
        _step(last, found | size, _same(spec.name for spec in OUTPUTS)),
    ]
    return {
        "name": name,
        "platform": "ensemble",
        "max_batch_size": 1,
        "input": _request(),
        "output": _answer(),
        "ensemble_scheduling": {"step": steps},
    }


def _step(model: str, inputs: dict[str, str], outputs: dict[str, str]) -> Config:
    """A step of the ensemble: tensors of the model by name -> tensors of the ensemble."""
    return {"model_name": model, "model_version": -1, "input_map": inputs, "output_map": outputs}


def _same(names: Iterable[str]) -> dict[str, str]:
    return {name: name for name in names}


def _request() -> list[Config]:
    inputs = [_tensor(IMAGE, "TYPE_STRING", [1]), _tensor(PIXELS, "TYPE_UINT8", [-1, -1, 3]), _tensor(BUDGET, "TYPE_STRING", [1])]
    return [each | {"optional": True} for each in inputs]


def _answer() -> list[Config]:
    return [_tensor(spec.name, _PROTOCOL[spec.datatype], spec.shape[1:]) for spec in OUTPUTS]


def _python(name: str, inputs: list[Config], outputs: list[Config], count: int, parameters: dict[str, str]) -> Config:
    return {
        "name": name,
        "backend": "python",
        "max_batch_size": 1,
        "input": inputs,
        "output": outputs,
        "instance_group": [{"count": count, "kind": "KIND_CPU"}],
        "parameters": {key: {"string_value": value} for key, value in parameters.items()},
    }


def _queue_policy(settings: ServingSettings) -> Config:
    return {
        "timeout_action": "REJECT",
        "default_timeout_microseconds": round(settings.timeout_ms * 1000),
        "allow_timeout_override": True,
        "max_queue_size": settings.queue or 1,  # 0 means without a limit there
    }


def _without_batch(spec: TensorSpec) -> Config:
    shape = spec.shape if spec.name.startswith("tiles") else spec.shape[1:]
    return _tensor(spec.name, TYPES[spec.dtype], [-1 if side is None else side for side in shape])


def _as_it_is(spec: TensorSpec) -> Config:
    return _tensor(spec.name, TYPES[spec.dtype], [-1 if side is None else side for side in spec.shape])


def _shape_tensor(tensor: Config) -> Config:
    return tensor | {"is_shape_tensor": True} if tensor["name"].startswith("tiles") else tensor


def _tensor(name: str, data_type: str, dims: Sequence[int]) -> Config:
    return {"name": name, "data_type": data_type, "dims": list(dims)}


def warm_up(graph: Config, inputs: dict[str, np.ndarray]) -> Config:
    """A configuration that runs ``inputs`` (with a batch of 1) before the model is ready. What is not zero is read from a file of
    its name in the folder ``warmup`` of the model."""
    types = {item["name"]: item["data_type"] for item in graph["input"]}
    values = {name: {"data_type": types[name]} | _warm_input(name, array, graph) for name, array in inputs.items()}
    return graph | {"model_warmup": [{"name": "default-budget", "batch_size": 1, "inputs": values}]}


def _warm_input(name: str, array: np.ndarray, graph: Config) -> Config:
    dims = array.shape[1:] if graph["max_batch_size"] else array.shape
    return {"dims": list(dims)} | ({"input_data_file": name} if array.any() else {"zero_data": True})


def as_text(config: Config) -> str:
    """``config.pbtxt``. Raises MissingPackageError without tritonclient, ValueError for what Triton's definitions do not have."""
    from google.protobuf import json_format, text_format

    from apex_runtime.serving.triton_protobuf import model_config

    message = json_format.Parse(json.dumps(config), model_config())
    return str(text_format.MessageToString(message))
