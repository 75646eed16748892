"""What ``precision.json`` says under ``against_fp32``: the bundle's graph beside the exported one, on the same images.

Schema: ``apex_runtime/schemas/precision.schema.json``.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Sizes(_Strict):
    """Bytes of ``model.onnx`` as exported and in the bundle."""

    fp32: int
    built: int


class Overlap(_Strict):
    """Share of the tiles that fp32 chose and the bundle's graph chose too, over the images."""

    mean: float
    worst: float


class Precisions(_Strict):
    """Average precision of both as fractions, and what was lost in points; a gain is a negative drop."""

    fp32: float
    built: float
    drop_points: float


class Milliseconds(_Strict):
    """Medians of the graph alone, batch 1; ``ratio`` is the median of the bundle's time over that of fp32 in the same round."""

    fp32: float
    built: float
    ratio: float


class BudgetRow(_Strict):
    """Both graphs at one budget. Without labels there is no average precision, and no time for a backend that is simulated."""

    budget: str
    tile_overlap: Overlap
    box_ap: Precisions | None
    mask_ap: Precisions | None
    graph_milliseconds: Milliseconds | None


class Measured(_Strict):
    """A comparison. ``origin`` says which images they were; ``threads`` and ``rounds`` are those of the times, if there are any;
    ``remarks`` are sentences for people."""

    images: int
    origin: str
    executed: Literal["ort-cpu", "simulated on ort-cpu"]
    model_bytes: Sizes
    threads: int | None
    rounds: int | None
    budgets: tuple[BudgetRow, ...]
    remarks: tuple[str, ...]


class AgainstFp32(_Strict):
    """The whole entry: nothing changed, or what a comparison found, or why there is none."""

    identical_graph: bool
    not_made: str | None = None
    measured: Measured | None = None

    def to_record(self) -> dict[str, Any]:
        """The entry as JSON values."""
        return self.model_dump(mode="json", exclude_unset=True)


IDENTICAL = AgainstFp32(identical_graph=True)
NOT_ASKED_FOR = AgainstFp32(identical_graph=False, not_made="not asked for")
