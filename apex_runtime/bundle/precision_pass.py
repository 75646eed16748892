"""The model of a bundle in the precision that was asked for: as exported, or rewritten by a pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apex_runtime.backends.onnx_contract import OnnxFile
from apex_runtime.bundle.manifest import Precision
from apex_runtime.errors import ModelError
from apex_runtime.precision.convert import Converted, convert
from apex_runtime.precision.data import PrecisionData
from apex_runtime.precision.plan import Plan
from apex_runtime.precision.ranges import GoOn, calibration_feeds

if TYPE_CHECKING:
    import onnx


def in_precision(
    file: OnnxFile, precision: Precision, data: PrecisionData | None, go_on: GoOn
) -> tuple[OnnxFile, Converted | None]:
    """The file to build from, and what the pass decided; for fp32, without ``data``, the exported file itself. ``go_on``: see
    ``calibration_feeds``.

    Raises UsageError (no images), ImageError, ModelError, KeyboardInterrupt.
    """
    if _is_converted(file.model):
        raise ModelError(
            f"{file.path}: its weights are float16 already; a bundle is built from an exported model.",
            "Give the model.onnx of apex-train export, not that of a bundle.",
            path=file.path,
        )
    if precision == "fp32" or data is None:
        return file, None
    converted = convert(file.model, Plan(half=True), calibration_feeds(data.calibration, file.info, go_on))
    return OnnxFile(file.path, converted.model.SerializeToString(deterministic=True), converted.model, file.info), converted


def _is_converted(model: onnx.ModelProto) -> bool:
    from onnx import TensorProto

    return any(tensor.data_type == TensorProto.FLOAT16 for tensor in model.graph.initializer)
