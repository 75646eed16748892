"""The backend ``ort-cpu``: ONNX Runtime on the CPU, the default that needs nothing but this package.

Legend: B images, H x W input pixels, N tiles of all levels, K tiles looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from apex_runtime.backends.onnx_contract import read_onnx
from apex_runtime.backends.optimiser_guard import disabled_optimizers
from apex_runtime.backends.reasons import ReasonCode, backend_error
from apex_runtime.backends.session import Tiles, in_all, per_level
from apex_runtime.errors import BackendError, UsageError
from apex_runtime.machine import usable_cpus
from apex_runtime.model_info import ModelInfo, input_names, output_names
from apex_runtime.routing.quadtree import CHILDREN

if TYPE_CHECKING:
    import onnxruntime

BACKEND_NAME = "ort-cpu"
_PROVIDER = "CPUExecutionProvider"
_MOST_LANES = 8  # what is beside the graph has one interpreter for all of them


class OrtSession:
    """An exported model in ONNX Runtime. Implements ``Session``; ``run`` may be called from several threads at once."""

    def __init__(self, path: str | Path, threads: int | None = None, lanes: int = 1) -> None:
        """``threads``: of one run; None leaves it to ONNX Runtime (one per core). ``lanes``: calls at a time that share them.

        Raises UsageError, ModelError, BackendError.
        """
        check_threads(threads)
        if lanes > 1:  # the callers are threads, too
            threads = (threads or usable_cpus()) - lanes + 1
        file = read_onnx(path)
        self._info = file.info
        self._session = open_session(file.path, file.data, session_options(threads), [_PROVIDER])

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
        names = output_names(self._info.tiles.depth)
        try:
            outputs = self._session.run(list(names), graph_feeds(self._info, images, tiles, tile_bonus))
        except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
            raise execution_error(BACKEND_NAME, error, len(images), in_all(tiles)) from error
        return dict(zip(names, outputs, strict=True))


def lanes_of(threads: int | None) -> int:
    """How many calls at a time are best for many images: one per thread, because a thread that waits for no other wastes nothing.

    Two calls with one thread each do more images on two cores than one with two (bench/evidence/throughput.json); more cores are
    not measured.
    """
    return min(threads or usable_cpus(), _MOST_LANES)


def check_threads(threads: int | None) -> None:
    """Raises UsageError unless None or 1..1024."""
    if threads is not None and not 1 <= threads <= 1024:
        raise UsageError(f"--threads {threads}: expected 1 to 1024.", "Leave it out for one thread per core.")


def graph_feeds(info: ModelInfo, images: np.ndarray, tiles: Tiles, tile_bonus: np.ndarray) -> dict[str, np.ndarray]:
    """The inputs of the graph by name: those of ``Session.run``, level by level."""
    levels = zip(per_level(tiles), info.tiles.levels, strict=True)
    parts = (part for k, grid in levels for part in (np.array([k], np.int64), tile_bonus[:, grid.flat]))
    return dict(zip(input_names(info.tiles.depth), (images, *parts), strict=True))


def check_feeds(info: ModelInfo, images: np.ndarray, tiles: Tiles, tile_bonus: np.ndarray) -> None:
    """Raises UsageError when the arrays are not what the graph takes: backends report such things badly."""
    batch = len(images) if images.ndim == 4 else 0
    wanted = (batch, info.input.height, info.input.width, 3)
    if batch == 0 or images.shape != wanted or images.dtype != np.uint8:
        raise UsageError(
            f"images: {images.dtype} {images.shape}, expected uint8 [batch, {info.input.height}, {info.input.width}, 3].",
            "Letterbox images first, or use apex_runtime.load(...).predict, which does.",
        )
    if tile_bonus.shape != (batch, info.tiles.count) or tile_bonus.dtype != np.float32:
        raise UsageError(
            f"tile_bonus: {tile_bonus.dtype} {tile_bonus.shape}, expected float32 {(batch, info.tiles.count)}.",
            "One row per image, one number per tile; zeros change nothing.",
        )
    _check_tiles(info, per_level(tiles))


def _check_tiles(info: ModelInfo, tiles: tuple[int, ...]) -> None:
    depth, count = info.tiles.depth, info.tiles.levels[0].count
    if len(tiles) != depth:
        raise UsageError(f"tiles: {tiles}, this engine has {depth} level(s) of them.", "Give one number per level.")
    if not 1 <= tiles[0] <= count:
        raise UsageError(f"tiles: {tiles[0]}, this engine has 1 to {count}.", "Choose a number of that range.")
    for level in range(1, depth):
        if not 0 <= tiles[level] <= CHILDREN * tiles[level - 1]:
            most = CHILDREN * tiles[level - 1]
            raise UsageError(f"tiles_{level}: {tiles[level]}, the chosen tiles have {most} children.", f"Give 0 to {most}.")


def session_options(threads: int | None) -> onnxruntime.SessionOptions:
    """Options of a session with so many threads in one run. Raises BackendError without ONNX Runtime."""
    try:
        import onnxruntime
    except ImportError as error:
        raise backend_error(ReasonCode.ONNXRUNTIME_NOT_INSTALLED, f"ONNX Runtime cannot be imported ({error}).") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


def open_session(
    path: Path,
    data: bytes,
    options: onnxruntime.SessionOptions,
    providers: Sequence[str | tuple[str, dict[str, Any]]],
    remedy: str = "",
) -> onnxruntime.InferenceSession:
    """A session of the model ``data`` that was read from ``path``; ``remedy`` where it is not one of ours.

    Raises BackendError with the first line of what was said.
    """
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(data, options, providers=providers, disabled_optimizers=disabled_optimizers(data))
    except Exception as error:
        message = f"{path}: ONNX Runtime cannot load it ({first_line(error)})."
        if _for_want_of_memory(error):
            raise backend_error(ReasonCode.OUT_OF_MEMORY, message) from error
        raise backend_error(ReasonCode.MODEL_LOAD_FAILED, message, remedy=remedy) from error


def execution_error(backend: str, error: Exception, batch: int, tiles: int) -> BackendError:
    """The failure of a run under its reason code."""
    code = ReasonCode.OUT_OF_MEMORY if _for_want_of_memory(error) else ReasonCode.EXECUTION_FAILED
    return backend_error(code, f"{backend} failed on {batch} image(s) with {tiles} tile(s): {first_line(error)}.")


def first_line(error: Exception) -> str:
    """What an exception says first, without its last full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(".")


def _for_want_of_memory(error: Exception) -> bool:
    """ONNX Runtime has no exception of its own for this: the words of the CPU's allocator, the GPU's arena, CUDA and cuBLAS."""
    return any(word in str(error).lower() for word in ("bad_alloc", "failed to allocate", "out of memory", "alloc_failed"))
