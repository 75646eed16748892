"""What an exported file says about itself: one typed record, stored as JSON in the ONNX metadata under the key ``apex_x``."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from apex_runtime.errors import ModelError

METADATA_KEY = "apex_x"
FORMAT_VERSION = 1
MAX_TILES = 3840  # TopK's k is capped there by TensorRT, and the selection key needs N2 <= 4096

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


class TileInfo(_Record):
    """The routing grid: tiles of ``tile`` x ``tile`` input pixels seen with ``halo`` pixels around them, row-major ids."""

    tile: int = Field(gt=0)
    halo: int = Field(ge=0)
    rows: int = Field(gt=0)
    cols: int = Field(gt=0)

    @property
    def count(self) -> int:
        """N, the number of tiles of the grid."""
        return self.rows * self.cols


class MaskInfo(_Record):
    """Prototype masks: ``channels`` P, at ``stride`` input pixels per cell."""

    channels: int = Field(gt=0)
    stride: int = 4


class Gflops(_Record):
    """Analytic cost of one image: ``base`` (everything but tiles) and ``per_tile``, in 1e9 multiply-adds times two."""

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
        grid = (self.tiles.rows * self.tiles.tile, self.tiles.cols * self.tiles.tile)
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
