"""The faces of an op that can be called by themselves, and why one is absent here.

Of ``body-ort`` and ``body-reference`` the function body is what runs, alone in a graph; of ``torch`` the formula on the CPU; of
``kernel-host`` the lines of the CUDA kernel on this processor; of ``kernel-cuda`` the kernel on a GPU. A TensorRT plugin launches
the kernel of ``kernel-cuda``; what TensorRT itself does around it shows in a plan only.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from apex_plugins.catalogue import specs
from apex_plugins.kernels.host import host_library
from apex_plugins.kernels.host_calls import call_host
from apex_plugins.kernels.reasons import KernelError, KernelReason
from apex_plugins.spec import DOMAIN
from apex_runtime.backends.reasons import ReasonCode
from apex_runtime.parity.evaluator import reference_evaluator

Arrays = tuple[np.ndarray, ...]
Call = Callable[[dict[str, np.ndarray], dict[str, Any]], Arrays]
Narrow = Literal["fp32", "fp16"]

# What says that a face cannot be had on this machine; any other refusal is a fault.
_NOT_HERE = frozenset(
    {
        KernelReason.CXX_NOT_FOUND,
        KernelReason.NVCC_NOT_FOUND,
        KernelReason.CUDA_PYTHON_NOT_INSTALLED,
        KernelReason.TORCH_WITHOUT_CUDA,
        KernelReason.CACHE_NOT_WRITABLE,
    }
)


# Of inputs whose rank ONNX Runtime must know beforehand: it infers that of what a Scan carries.
_RANKS = {"scores": 3, "ltrb": 3, "centres": 2, "strides": 1}


class AbsentError(Exception):
    """A face that this machine does not have; ``code`` is the stable reason."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Face:
    """``open(folder)`` gives what computes an op in ``precision``. Raises AbsentError where this machine has no such face."""

    name: str
    precision: Narrow
    open: Callable[[str], Call]


def faces() -> tuple[Face, ...]:
    """All of them, in the order of a report."""
    return (
        Face("body-ort", "fp32", _body_ort),
        Face("body-reference", "fp32", _body_reference),
        Face("torch", "fp32", _torch),
        *(Face("kernel-host", kind, _kernel_host) for kind in ("fp32", "fp16")),
        *(Face("kernel-cuda", kind, _kernel_cuda) for kind in ("fp32", "fp16")),
    )


def reference(folder: str) -> Call:
    """The NumPy meaning of an op: the truth, in float64."""
    function = getattr(importlib.import_module(f"apex_plugins.{folder}.reference"), folder)
    return lambda inputs, attributes: _tuple(function(*inputs.values(), **attributes))


def _tuple(found: Any) -> Arrays:
    return found if isinstance(found, tuple) else (found,)


def _body_ort(folder: str) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    _body(folder)

    @cache
    def session(attributes: tuple[tuple[str, Any], ...]) -> Any:
        data = _model(folder, attributes).SerializeToString()
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    return lambda inputs, attributes: tuple(session(tuple(attributes.items())).run(None, inputs))


def _body_reference(folder: str) -> Call:
    _body(folder)
    evaluator = cache(lambda attributes: reference_evaluator(_model(folder, attributes)))
    return lambda inputs, attributes: tuple(evaluator(tuple(attributes.items())).run(None, inputs))


@cache
def _body(folder: str) -> Any:
    """The function body that an export attaches."""
    spec = specs()[folder]
    try:
        written = importlib.import_module(f"apex_plugins.{folder}.onnx_function")
    except ImportError as error:
        raise AbsentError(ReasonCode.ONNXSCRIPT_NOT_INSTALLED.value, str(error)) from error
    return getattr(written, spec.name).to_function_proto()


def _model(folder: str, attributes: tuple[tuple[str, Any], ...]) -> Any:
    """The body alone in a graph of one node; sizes are left open."""
    from onnx import helper

    spec, function = specs()[folder], _body(folder)
    results = [f"out_{name}" for name in spec.outputs]
    node = helper.make_node(spec.name, list(spec.inputs), results, domain=DOMAIN, **dict(attributes))
    graph = helper.make_graph([node], spec.name, _infos(spec.inputs, ""), _infos(spec.outputs, "out_"))
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, spec.version)]
    return helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=10)


def _infos(names: dict[str, str], prefix: str) -> list[Any]:
    from onnx import TensorProto, helper

    kinds = {"float": TensorProto.FLOAT, "int64": TensorProto.INT64}
    return [
        helper.make_tensor_value_info(prefix + name, kinds[kind], [None] * _RANKS[name] if name in _RANKS else None)
        for name, kind in names.items()
    ]


def _torch(folder: str) -> Call:
    function, torch_face = _torch_function(folder)
    return lambda inputs, given: torch_face.on_arrays(function, list(inputs.values()), list(given.values()), "cpu")


def _kernel_host(folder: str) -> Call:
    _unless_absent(lambda: host_library(folder))
    return lambda inputs, attributes: call_host(folder, inputs, attributes)


def _kernel_cuda(folder: str) -> Call:
    function, torch_face = _torch_function(folder)
    reason = torch_face.why_not(folder)
    if reason is not None:
        _unless_absent(_raiser(reason))
    return lambda inputs, given: torch_face.on_arrays(function, list(inputs.values()), list(given.values()), "cuda")


def _torch_function(folder: str) -> tuple[Callable[..., Any], Any]:
    """The torch face of an op, and the module that calls it with NumPy arrays."""
    try:
        module = importlib.import_module(f"apex_plugins.{folder}.torch_op")
        return getattr(module, folder), importlib.import_module("apex_plugins.kernels.torch_face")
    except ImportError as error:
        raise AbsentError(ReasonCode.TORCH_NOT_INSTALLED.value, str(error)) from error


def _raiser(error: KernelError) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def _unless_absent(build: Callable[[], object]) -> None:
    """Raises AbsentError for what this machine lacks, KernelError for what is broken."""
    try:
        build()
    except KernelError as error:
        if error.reason in _NOT_HERE:
            raise AbsentError(error.reason.value, error.message) from error
        raise
