"""A checkpoint's network becomes one ONNX file, or no file at all (DESIGN section 5)."""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from apex_runtime.backends.ort import OrtSession
from apex_runtime.backends.session import Tiles
from apex_runtime.errors import UsageError
from apex_runtime.model_info import Decode, Gflops
from apex_train.export.agreement import check_agreement, level_budgets
from apex_train.export.structure import check_structure
from apex_train.export.trace import tool_versions, trace_detector
from apex_train.model.detector import ApexDetector
from apex_train.model.info import model_info
from apex_train.predictor import TorchSession


@dataclass(frozen=True)
class ExportReport:
    """What was written and how it was checked. ``worst`` is the largest |ONNX Runtime - torch| per output."""

    path: str
    bytes: int
    height: int
    width: int
    tiles: int
    decode: Decode
    budgets: tuple[Tiles, ...]
    gflops: Gflops
    functions: dict[str, int]
    nodes: int
    worst: dict[str, float]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self) | {"gflops": self.gflops.model_dump(), "budgets": list(self.budgets)}


def export_onnx(
    model: ApexDetector,
    size: tuple[int, int],
    path: str | Path,
    checkpoint_sha256: str = "",
    images: Sequence[np.ndarray] = (),
    decode: Decode = "topk",
) -> ExportReport:
    """Write ``model`` for inputs of ``size`` (height, width) to ``path`` when every post-condition holds.

    ``images``: uint8 [H,W,3] of that size, checked beside random ones. ``decode``: how the graph ends.
    Raises UsageError for a size that does not fit the tile or a folder that is not there, ExportError for a broken
    post-condition; in both cases nothing is written.
    """
    started = time.perf_counter()
    path = Path(path)
    if not path.parent.is_dir():
        raise UsageError(f"-o {path}: the folder {path.parent} does not exist.", "Create it, or choose another place.", path=path)
    if path.is_dir():
        raise UsageError(f"-o {path}: is a folder.", f"Name a file, for example {path / 'model.onnx'}.", path=path)
    try:
        info = model_info(model, *size, checkpoint_sha256, tool_versions(), decode)
    except ValueError as error:
        raise UsageError(f"--size {size[0]}x{size[1]}: {error}.", f"Use multiples of {model.config.coarse_tile}.") from error
    traced = trace_detector(model, info)
    check_structure(traced, decode, info.tiles.depth)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        draft = Path(folder) / "model.onnx"
        onnx.save(traced, draft)
        worst = check_agreement(TorchSession(model, *size, decode=decode), OrtSession(draft), info, images)
        os.replace(draft, path)
    calls = Counter(node.op_type for node in traced.graph.node if node.domain)
    return ExportReport(
        path=str(path),
        bytes=path.stat().st_size,
        height=size[0],
        width=size[1],
        tiles=info.tiles.count,
        decode=decode,
        budgets=level_budgets(info.tiles),
        gflops=info.gflops,
        functions=dict(calls),
        nodes=len(traced.graph.node),
        worst=worst,
        seconds=round(time.perf_counter() - started, 2),
    )
