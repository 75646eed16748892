"""What an exported file says about itself: one typed record, stored as JSON in the ONNX metadata under the key ``apex_x``."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from apex_plugins.spec import MAX_DEPTH
from apex_runtime.errors import ModelError

METADATA_KEY = "apex_x"
FORMAT_VERSION = 1
MAX_TILES = 3840  # of all levels: TopK's k is capped there by TensorRT, and the selection key needs N2 <= 4096

# How predictions become detections: the best one-to-one candidates, or the one-to-many ones after NMS, then rows of padding.
Decode = Literal["topk", "nms"]

INPUT_NAMES = ("images", "tiles", "tile_bonus")
OUTPUT_NAMES = (
    "boxes",
    "scores",
    "labels",
    "mask_coefficients",
    "mask_prototypes",
    "candidate_ids",
    "tile_ids",
    "tile_levels",
    "utilities",
)


def input_names(depth: int) -> tuple[str, ...]:
    """``INPUT_NAMES``, then ``tiles_1, tile_bonus_1`` and so on for every level below 0."""
    return (*INPUT_NAMES, *(name for level in range(1, depth) for name in (f"tiles_{level}", f"tile_bonus_{level}")))


def output_names(depth: int) -> tuple[str, ...]:
    """``OUTPUT_NAMES``, then ``utilities_1`` and so on for every level below 0."""
    return (*OUTPUT_NAMES, *(f"utilities_{level}" for level in range(1, depth)))


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Category(_Record):
    """A class: ``id`` is the id of the user's data set, the position in ``ModelInfo.classes`` is the label index of the graph."""

    id: int
    name: str


class InputInfo(_Record):
    """Fixed spatial size of the ``images`` input, uint8 [batch, height, width, 3], RGB."""

    height: int = Field(gt=0)
    width: int = Field(gt=0)


class Preprocessing(_Record):
    """What the host does before the graph: scale to fit keeping the aspect, content in the top left corner, pad the rest.

    ``mean`` and ``std`` (in 0..255 units) are applied *inside* the graph and stand here for the record.
    """

    resize: str = "letterbox-top-left"
    pad_value: int = 114
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class LevelGrid:
    """The tiles of one level: ``rows`` x ``cols`` of ``side`` input pixels. ``first`` is the flat number of its tile 0."""

    level: int
    side: int
    rows: int
    cols: int
    first: int

    @property
    def count(self) -> int:
        """How many tiles the level has."""
        return self.rows * self.cols

    @property
    def flat(self) -> slice:
        """Where the level lies in an array over the tiles of all levels."""
        return slice(self.first, self.first + self.count)


class TileInfo(_Record):
    """The routing grid: tiles that are seen as ``tile`` x ``tile`` pixels with ``halo`` pixels around them, row-major ids.

    ``rows`` and ``cols`` are of level 0. With ``depth`` 1 there is no other, and its tiles cover what they are seen as. With
    more, a tile has four children on the next level; those of the finest cover ``tile`` input pixels a side, their parents twice
    as many, seen at half the resolution. ``ratio`` says how a budget is shared among the levels, coarsest first.

    The tiles of all levels also have flat numbers, those of level 0 first: arrays over "all tiles" are in that order.
    """

    tile: int = Field(gt=0)
    halo: int = Field(ge=0)
    rows: int = Field(gt=0)
    cols: int = Field(gt=0)
    depth: int = Field(default=1, ge=1, le=MAX_DEPTH)
    ratio: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _one_share_per_level(self) -> TileInfo:
        if len(self.ratio) != (self.depth if self.depth > 1 else 0) or not all(0 < share < math.inf for share in self.ratio):
            raise ValueError(f"ratio {self.ratio} is not one positive share for each of {self.depth} levels")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_off(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """One level is written as before there were several: old files stay equal to new ones, bit by bit."""
        values: dict[str, Any] = write(self)
        return {key: value for key, value in values.items() if self.depth > 1 or key not in ("depth", "ratio")}

    @property
    def count(self) -> int:
        """N, the number of tiles of all levels."""
        return self.levels[-1].flat.stop

    @property
    def levels(self) -> tuple[LevelGrid, ...]:
        """The grids of all levels, the coarsest first."""
        found: list[LevelGrid] = []
        for level in range(self.depth):
            first = found[-1].flat.stop if found else 0
            side = self.tile << (self.depth - 1 - level)
            found.append(LevelGrid(level, side, self.rows << level, self.cols << level, first))
        return tuple(found)


class MaskInfo(_Record):
    """Prototype masks: ``channels`` P, at ``stride`` input pixels per cell."""

    channels: int = Field(gt=0)
    stride: int = 4


class Gflops(_Record):
    """Analytic cost of one image: ``base`` (everything but tiles) and ``per_tile``, of whichever level, in 1e9 multiply-adds
    times two."""

    base: float = Field(ge=0)
    per_tile: float = Field(ge=0)


class ModelInfo(_Record):
    """The passport of an exported model."""

    format_version: int = FORMAT_VERSION
    classes: tuple[Category, ...]
    input: InputInfo
    preprocessing: Preprocessing
    tiles: TileInfo
    mask: MaskInfo
    max_detections: int = Field(gt=0)
    decode: Decode = "topk"  # files written before there was a choice do not say
    gflops: Gflops
    model: dict[str, Any]
    checkpoint_sha256: str = ""
    tools: dict[str, str] = {}

    @model_validator(mode="after")
    def _grid_fits_the_input(self) -> ModelInfo:
        coarsest = self.tiles.levels[0]
        grid = (coarsest.rows * coarsest.side, coarsest.cols * coarsest.side)
        if grid != (self.input.height, self.input.width):
            raise ValueError(f"tile grid covers {grid}, input is {(self.input.height, self.input.width)}")
        if self.tiles.count > MAX_TILES:
            raise ValueError(f"{self.tiles.count} tiles exceed the limit of {MAX_TILES}")
        return self

    def to_json(self) -> str:
        """The JSON text stored in the ONNX metadata."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str, where: str) -> ModelInfo:
        """Parse the metadata of the file ``where``. Raises ModelError when it is of another version or does not fit."""
        try:
            raw = json.loads(text)
        except json.JSONDecodeError as error:
            raise ModelError(f"{where}: the {METADATA_KEY} metadata is not JSON ({error}).", "Export the model again.") from error
        version = raw.get("format_version") if isinstance(raw, dict) else None
        if version != FORMAT_VERSION:
            raise ModelError(
                f"{where}: metadata format {version!r}, this apex-rt reads format {FORMAT_VERSION}.",
                "Export the model again with this version of apex-train.",
            )
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "record"
            raise ModelError(f"{where}: metadata field {field}: {first['msg']}.", "Export the model again.") from error
