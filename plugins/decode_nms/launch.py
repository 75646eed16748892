"""DecodeNMS on a GPU: which kernels, which grids, which arguments.

One launch does all of it with a block per image (``launch_alone``); two do it faster, the first of which finds the best class of
every anchor with the whole GPU and leaves it in a workspace for the second (``launches``). The results are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from apex_plugins.decode_nms.reference import MAX_PRE_NMS
from apex_plugins.kernels.launch import SIZES_OF_TYPES, THREADS, Launch, are_multiples, arguments, ceil_div

TYPES = {"f32": np.float32, "f16": np.float16}  # of the scores; boxes, centres and strides are f32
ROWS = 1024  # of choose.h: threads of a block, one for each row that enters the suppression
BEST_BYTES = 8  # score and class of an anchor
WIDE_BYTES = 16  # that a thread reads at once where rows of scores are multiples of it


@dataclass(frozen=True)
class Settings:
    """The attributes of the op. Raises ValueError for what the kernels cannot do."""

    max_detections: int
    pre_nms: int
    score: float
    iou: float

    def __post_init__(self) -> None:
        """See the class."""
        if not 1 <= self.pre_nms <= MAX_PRE_NMS or self.max_detections < 1 or self.score < 0:
            raise ValueError(f"decode_nms: pre_nms must be in 1..{MAX_PRE_NMS}, max_detections >= 1, score >= 0; got {self}")


@dataclass(frozen=True)
class Geometry:
    """Addresses of ltrb, centres and strides."""

    ltrb: int
    centres: int
    strides: int


def kernel_name(kind: str, step: str = "") -> str:
    """The entry point for a type of scores: all of the op, or a ``step`` of it. Raises ValueError when there is none."""
    if kind not in TYPES:
        raise ValueError(f"decode_nms has no kernel for scores of {kind}")
    return f"apex_decode_nms_{f'{step}_' if step else ''}{kind}"


def workspace_bytes(batch: int, anchors: int) -> int:
    """What ``launches`` needs, at an address that is a multiple of 8."""
    return batch * anchors * BEST_BYTES


def is_wide(kind: str, classes: int, scores: int = 0) -> bool:
    """Whether rows of ``classes`` scores, the first at address ``scores``, may be read 16 bytes at a time."""
    return are_multiples([scores, classes * SIZES_OF_TYPES[kind]], WIDE_BYTES)


def launch_alone(
    scores: int, geometry: Geometry, outputs: Sequence[int], *, kind: str, shape: tuple[int, int, int], settings: Settings
) -> Launch:
    """All of it in one launch; ``shape`` is (B, A, classes), ``outputs`` are boxes, scores, labels and candidate ids."""
    batch, anchors, classes = shape
    sizes = (anchors, classes, int(is_wide(kind, classes, scores)))
    return _block_per_image(kernel_name(kind), kind, batch, scores, geometry, outputs, sizes, settings)


def launches(
    scores: int,
    geometry: Geometry,
    outputs: Sequence[int],
    workspace: int,
    *,
    kind: str,
    shape: tuple[int, int, int],
    settings: Settings,
) -> tuple[Launch, Launch]:
    """The same in two launches, with a workspace of ``workspace_bytes``."""
    batch, anchors, classes = shape
    rows = batch * anchors
    sizes = (rows, classes, int(is_wide(kind, classes, scores)))
    grid = (ceil_div(rows, THREADS), 1, 1)
    first = Launch(kernel_name(kind, "best"), grid, (THREADS, 1, 1), 0, arguments((scores,), sizes, (workspace,)))
    name = kernel_name(kind, "from_best")
    return first, _block_per_image(name, kind, batch, workspace, geometry, outputs, (anchors,), settings)


def _block_per_image(
    name: str,
    kind: str,
    batch: int,
    first_input: int,
    geometry: Geometry,
    outputs: Sequence[int],
    sizes: tuple[int, ...],
    settings: Settings,
) -> Launch:
    inputs = (first_input, geometry.ltrb, geometry.centres, geometry.strides)
    numbers = (*sizes, settings.max_detections, settings.pre_nms)
    threshold = np.asarray(settings.score, TYPES[kind]).item()  # scores are compared with it in their own type
    values = arguments(inputs, numbers, outputs, (threshold, settings.iou))
    return Launch(name, (batch, 1, 1), (ROWS, 1, 1), 0, values)
