"""The backend ``ort-cuda``: ONNX Runtime's CUDA provider, arrays bound to device memory, a captured CUDA graph per request shape.

Asked for CUDA, ONNX Runtime runs on the CPU what it cannot run there, in the worst case everything, and says so only in its log.
Here both are errors. Device memory and streams are ONNX Runtime's own.

On an H200 it gave the tiles of the CPU in all of 46 runs (bench/evidence/gpu-ort-cuda.json), without CUDA graphs, which were
refused for copies between host and device. ``host_shapes.py`` is the answer; neither the graph that it makes nor a captured one
has been on a GPU: unproven.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from apex_runtime.backends.captured import RequestShapes
from apex_runtime.backends.host_shapes import shape_input, with_shape_inputs
from apex_runtime.backends.node_placement import RECORD_PLACEMENT, NamedGraph, float_nodes_outside, name_nodes
from apex_runtime.backends.onnx_contract import expected_inputs, expected_outputs, read_onnx
from apex_runtime.backends.ort import (
    check_feeds,
    check_threads,
    execution_error,
    first_line,
    graph_feeds,
    open_session,
    session_options,
)
from apex_runtime.backends.reasons import ReasonCode, backend_error
from apex_runtime.backends.session import Tiles, in_all, per_level
from apex_runtime.errors import BackendError
from apex_runtime.model_info import ModelInfo, output_names

if TYPE_CHECKING:
    import onnxruntime

BACKEND_NAME = "ort-cuda"
PROVIDER = "CUDAExecutionProvider"
_MEMORY = "cuda"  # where the arrays lie
_GRAPH_ID = "gpu_graph_id"  # run option: which captured graph; -1 captures and replays nothing
_NO_GRAPH = -1
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Bound:
    """Arrays on the device for one request shape, at addresses that its captured graph knows."""

    graph: int
    binding: onnxruntime.IOBinding
    inputs: dict[str, onnxruntime.OrtValue]


class OrtCudaSession:
    """An exported model on a GPU by ONNX Runtime. Implements ``Session``; ``run`` may be called from one thread at a time."""

    def __init__(self, path: str | Path, index: int = 0, threads: int | None = None) -> None:
        """``index``: N of ``cuda:N``; ``threads``: of what stays on the CPU. Raises UsageError, ModelError, BackendError."""
        check_threads(threads)
        file = read_onnx(path)
        self._info = file.info
        self._index = index
        self.graph_refusal = ""
        numbers = [spec.name for spec in expected_inputs(file.info) if spec.dtype == "int64"]
        self._session = self._open(file.path, name_nodes(with_shape_inputs(file.model, numbers)), threads)
        self._bound: RequestShapes[_Bound] = RequestShapes(self._release)
        self._graphs_made = 0

    @property
    def info(self) -> ModelInfo:
        """The model's passport."""
        return self._info

    @property
    def name(self) -> str:
        """The backend's name."""
        return BACKEND_NAME

    def run(self, images: np.ndarray, tiles: Tiles, tile_bonus: np.ndarray) -> dict[str, np.ndarray]:
        """Images uint8 [B,H,W,3], K, bonus float32 [B,N] to every output by name. Raises UsageError, BackendError."""
        check_feeds(self._info, images, tiles, tile_bonus)
        feeds = graph_feeds(self._info, images, tiles, tile_bonus)
        shape = (len(images), per_level(tiles))
        try:
            try:
                return self._execute(feeds, shape)
            except Exception as error:
                if self.graph_refusal or not _about_graphs(error):
                    raise
                self._bound.clear()
                self._give_up_graphs(error)
                return self._execute(feeds, shape)
        except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
            self._bound.drop(shape)  # what failed half way is not trusted: the next run binds afresh
            raise execution_error(BACKEND_NAME, error, len(images), in_all(tiles)) from error

    def _open(self, path: Path, graph: NamedGraph, threads: int | None) -> onnxruntime.InferenceSession:
        try:
            session = self._create(path, graph, threads, capture=True)
        except BackendError as error:
            if not _about_graphs(error):
                raise
            self._give_up_graphs(error)
            session = self._create(path, graph, threads, capture=False)
        check_placement(session, graph, path)
        return session

    def _create(self, path: Path, graph: NamedGraph, threads: int | None, capture: bool) -> onnxruntime.InferenceSession:
        options = session_options(threads)
        _load_cuda_libraries()
        options.add_session_config_entry(RECORD_PLACEMENT, "1")
        # The precision of a model is written in its graph: no 19-bit products where that says float32.
        cuda = {"device_id": str(self._index), "enable_cuda_graph": "1" if capture else "0", "use_tf32": "0"}
        return open_session(path, graph.data, options, [(PROVIDER, cuda), "CPUExecutionProvider"])

    def _give_up_graphs(self, error: Exception) -> None:
        self.graph_refusal = ReasonCode.CUDA_GRAPH_UNAVAILABLE.value
        _LOG.warning("ort-cuda runs without CUDA graphs: %s [%s]", first_line(error), self.graph_refusal)

    def _execute(self, feeds: dict[str, np.ndarray], shape: tuple[int, tuple[int, ...]]) -> dict[str, np.ndarray]:
        import onnxruntime

        bound = self._bound.get(shape)
        if bound is None:
            self._bound.make_room()
            bound = self._bind(feeds, *shape)
            self._bound.put(shape, bound)
        for name, value in bound.inputs.items():
            value.update_inplace(np.ascontiguousarray(feeds[name]))
        options = onnxruntime.RunOptions()
        options.add_run_config_entry(_GRAPH_ID, str(_NO_GRAPH if self.graph_refusal else bound.graph))
        # The first run of a graph's number captures it, after the warm-up that the provider does by itself; later ones replay.
        self._session.run_with_iobinding(bound.binding, options)
        names = output_names(self._info.tiles.depth)
        return dict(zip(names, bound.binding.copy_outputs_to_cpu(), strict=True))

    def _bind(self, feeds: dict[str, np.ndarray], batch: int, tiles: tuple[int, ...]) -> _Bound:
        from onnxruntime import OrtValue

        self._graphs_made += 1  # a number is never used twice: the arrays of a graph that was released are gone
        bound = _Bound(self._graphs_made, self._session.io_binding(), {})
        for spec in expected_inputs(self._info):
            if spec.dtype == "int64":  # a number of tiles, which the captured graph knows too
                number = OrtValue.ortvalue_from_shape_and_type((int(feeds[spec.name][0]),), "uint8", _MEMORY, self._index)
                bound.binding.bind_ortvalue_input(shape_input(spec.name), number)
                continue
            value = OrtValue.ortvalue_from_shape_and_type(feeds[spec.name].shape, spec.dtype, _MEMORY, self._index)
            bound.binding.bind_ortvalue_input(spec.name, value)
            bound.inputs[spec.name] = value
        for spec in expected_outputs(self._info):
            shape = spec.sized(batch, sum(tiles))
            value = OrtValue.ortvalue_from_shape_and_type(shape, spec.dtype, _MEMORY, self._index)
            bound.binding.bind_ortvalue_output(spec.name, value)
        return bound

    def _release(self, bound: _Bound) -> None:
        release = getattr(self._session, "release_captured_graph", None)  # not in every version
        if release is not None and not self.graph_refusal:
            with contextlib.suppress(Exception):  # after a failure there may be none; its number is not used again
                release(bound.graph)


def _load_cuda_libraries() -> None:
    """CUDA and cuDNN from pip's packages, which ONNX Runtime does not look for by itself. It prints what it misses."""
    import onnxruntime

    with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
        onnxruntime.preload_dlls()


def check_placement(session: onnxruntime.InferenceSession, graph: NamedGraph, path: Path) -> None:
    """The CUDA provider is in the session, and everything that computes floats is on it. Raises BackendError."""
    if PROVIDER not in session.get_providers():
        raise backend_error(
            ReasonCode.CUDA_PROVIDER_NOT_IN_SESSION,
            f"{path}: ONNX Runtime left CUDA out and would run on {', '.join(session.get_providers())}.",
        )
    strays = float_nodes_outside(session, PROVIDER, graph.is_float)
    if strays:
        raise backend_error(
            ReasonCode.FLOAT_NODES_ON_CPU,
            f"{path}: ONNX Runtime would run {len(strays)} node(s) that compute floats on the CPU: {', '.join(strays[:5])}.",
        )


def _about_graphs(error: Exception) -> bool:
    """In the words of ONNX Runtime: "cannot use the graph capture feature"; and of CUDA: "... when stream is capturing"."""
    text = str(error).lower()
    return "cuda graph" in text or "captur" in text
