"""An exported model in the reference evaluator of ONNX: NumPy, no optimiser, no kernel of a runtime. Slow, and independent.

It tells a fault of the graph from one of ONNX Runtime. Seconds for an image of 512 pixels; a small export is the better subject.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from apex_runtime.backends.onnx_contract import read_onnx
from apex_runtime.backends.ort import check_feeds, execution_error, graph_feeds
from apex_runtime.backends.session import Tiles, in_all
from apex_runtime.model_info import ModelInfo, output_names

if TYPE_CHECKING:
    from onnx.reference import ReferenceEvaluator

EVALUATOR_NAME = "onnx-reference"


class EvaluatorSession:
    """An exported model in ``onnx.reference``. Implements ``Session``."""

    def __init__(self, path: str | Path) -> None:
        """Raises UsageError, ModelError."""
        file = read_onnx(path)
        self._info = file.info
        self._evaluator = reference_evaluator(file.model)

    @property
    def info(self) -> ModelInfo:
        """The model's passport."""
        return self._info

    @property
    def name(self) -> str:
        """What executes."""
        return EVALUATOR_NAME

    def run(self, images: np.ndarray, tiles: Tiles, tile_bonus: np.ndarray) -> dict[str, np.ndarray]:
        """As ``Session.run``. Raises UsageError, BackendError."""
        check_feeds(self._info, images, tiles, tile_bonus)
        names = output_names(self._info.tiles.depth)
        try:
            outputs = self._evaluator.run(list(names), graph_feeds(self._info, images, tiles, tile_bonus))
        except Exception as error:  # an evaluator of NumPy raises whatever NumPy raises
            raise execution_error(EVALUATOR_NAME, error, len(images), in_all(tiles)) from error
        return {name: np.asarray(array) for name, array in zip(names, outputs, strict=True)}


def reference_evaluator(model: Any) -> ReferenceEvaluator:
    """The evaluator of a model, with the op of onnx that is too small replaced."""
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun

    class GatherElements(OpRun):
        """That of onnx 1.23 is made of ``np.choose``, which ends at 64 entries of the axis."""

        op_domain = ""

        def _run(self, data: np.ndarray, indices: np.ndarray, axis: int = 0) -> tuple[np.ndarray]:
            axis %= data.ndim
            whole = tuple(slice(None if side == axis else size) for side, size in enumerate(indices.shape))
            positive = np.where(indices < 0, indices + data.shape[axis], indices)
            return (np.take_along_axis(data[whole], positive, axis),)

    class Evaluator(ReferenceEvaluator):
        """One whose functions are such evaluators too: onnx hands ``new_ops`` down to subgraphs only."""

        def __init__(self, proto: Any, **more: Any) -> None:
            super().__init__(proto, **(more | {"new_ops": [GatherElements]}))

    return Evaluator(model)
